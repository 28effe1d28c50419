"""Seeded damage to valid data: bytes for any file, values for records."""

import json
import random

SPLICED = (
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b'"',
    b"''",
    b"\n",
    b"\r\n",
    b"\r",
    b",",
    b"\t",
    b"{",
    b"]",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"999999999999999999999999999999",
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"true",
    b"[[[[[[[[[[",
    b"../",
    b"/etc/passwd",
    b"\xe2\x80\xae",
    b"\xf0\x9f\x98\x80",
    b"%s%n",
    b"\x1b[31m",
    b"=cmd()",
)


def mutated(draw: random.Random, data: bytes) -> bytes:
    """One to four of: flipped bits, a cut, a piece taken out, doubled, moved or overwritten, something put in."""
    made = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
        if not made:
            break
        at = draw.randrange(len(made))
        end = min(len(made), at + draw.choice((1, 2, 4, 8, 16, 64, 256)))
        kind = draw.randrange(8)
        if kind == 0:
            made[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            for _ in range(draw.randint(2, 20)):
                made[draw.randrange(len(made))] ^= 1 << draw.randrange(8)
        elif kind == 2:
            del made[at:]
        elif kind == 3:
            del made[at:end]
        elif kind == 4:
            made[at:at] = made[at:end]
        elif kind == 5:
            to = draw.randrange(len(made))
            made[to:to] = made[at:end]
        elif kind == 6:
            made[at:at] = draw.choice(SPLICED)
        else:
            made[at:end] = draw.randbytes(end - at)
    return bytes(made)


ODD_VALUES = (
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63,
    10**40,
    1.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\0",
    "\ud800",
    "a\nb",
    "../x.png",
    "/etc/passwd",
    "C:\\x",
    "x" * 5000,
    "\u202e\u200b",
    [],
    {},
    [[]],
    [None],
    {"id": {}},
    [1, "a", None],
)


def odd(draw: random.Random) -> object:
    """A value nobody expects there; sometimes deeply nested."""
    if draw.random() < 0.1:
        value: object = draw.choice(ODD_VALUES)
        for _ in range(draw.choice((3, 50, 400))):
            value = [value] if draw.random() < 0.5 else {"a": value}
        return value
    return draw.choice(ODD_VALUES)


def misshapen(draw: random.Random, value: object) -> object:
    """A document like `value`, in which one place holds another type, is gone, or is there twice."""
    made = json.loads(json.dumps(value))
    places = list(_places(made))
    for _ in range(draw.choice((1, 1, 2, 3))):
        holder, key = draw.choice(places)
        try:
            kind = draw.randrange(5)
            if kind <= 2:
                holder[key] = odd(draw)
            elif kind == 3:
                del holder[key]
            elif isinstance(holder, list):
                holder.append(holder[key])
            else:
                holder[str(draw.choice(ODD_VALUES))[:20]] = holder.pop(key)
        except (LookupError, TypeError):
            continue
    return made


def _places(value: object):
    pairs = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, inner in pairs:
        yield value, key
        yield from _places(inner)


def as_json(value: object) -> bytes:
    """JSON as careless writers make it: NaN, lone surrogates and all."""
    return json.dumps(value).encode()
