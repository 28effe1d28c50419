"""2,000 damaged captions files: CSV, and JSON lines and token files; a line of refusal or counted rows."""

import json
import random

from faults.fuzz import fuzz
from faults.mutate import as_json, misshapen, mutated, odd

NAMES = ("000001.png", "000002.png", "000003.png")
TEXTS = ("a red box next to a kite", 'he said "box", twice', "caf\u00e9 \U0001f600", "two\nlines", "")


def valid_csv(draw: random.Random) -> bytes:
    end = draw.choice(("\n", "\r\n"))
    rows = ["image,caption,id"]
    for number, name in enumerate(NAMES * 2):
        text = draw.choice(TEXTS).replace('"', '""')
        rows.append(f'{name},"{text}",{number}')
    return (end.join(rows) + end).encode("utf-8-sig" if draw.random() < 0.2 else "utf-8")


def test_csv(tmp_path):
    seen = fuzz(tmp_path, "folder", "captions.csv", 1000, lambda draw: mutated(draw, valid_csv(draw)))
    assert seen["refused"] > 30 and seen["rows lost"] > 300 and sum(seen.values()) == 1000


def damaged_jsonl(draw: random.Random) -> bytes:
    rows = [
        {"image": name, "caption": draw.choice(TEXTS), "id": str(number), "captions": [draw.choice(TEXTS)]}
        for number, name in enumerate(NAMES)
    ]
    lines = [as_json(row if draw.random() < 0.4 else misshapen(draw, row)) for row in rows]
    if draw.random() < 0.2:
        lines.append(as_json(odd(draw)))
    data = b"\n".join(lines)
    return mutated(draw, data) if draw.random() < 0.5 else data


def test_json_lines(tmp_path):
    seen = fuzz(tmp_path, "folder", "captions.jsonl", 600, damaged_jsonl)
    assert seen["rows lost"] > 300 and sum(seen.values()) == 600


def test_token_files(tmp_path):
    lines = [f"{name}#{number}\t{text}" for name in NAMES for number, text in enumerate(TEXTS) if "\n" not in text]
    data = ("\n".join(lines) + "\n").encode()
    seen = fuzz(tmp_path, "flickr", "captions.token", 400, lambda draw: mutated(draw, data))
    assert seen["rows lost"] > 50 and sum(seen.values()) == 400


def test_what_is_not_damaged_goes_through(tmp_path):
    """The other way round: were everything refused, the tests above would say nothing."""
    rows = [json.dumps({"image": name, "caption": TEXTS[0]}) for name in NAMES]
    assert fuzz(tmp_path, "folder", "captions.jsonl", 1, lambda draw: "\n".join(rows).encode()) == {"whole": 1}
