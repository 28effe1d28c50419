"""Whether what lies in weights/ is still what was put there."""

from dataclasses import dataclass, field

from pipeline.files import sha256_file
from pipeline.weights import store
from pipeline.weights.manifest import MANIFEST, Weights, entry, is_here


@dataclass
class Finding:
    """What was seen of one entry: how many files hold, what is damaged, what is worth knowing."""

    name: str
    held: int = 0
    damaged: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What a person reads."""
        listed = [f"{self.name}: {line}" for line in self.damaged]
        if not self.damaged:
            listed.append(f"{self.name}: ok, {self.held} file{'' if self.held == 1 else 's'}")
        return listed + [f"{self.name}: note: {note}" for note in self.notes]


def verify(names: list[str]) -> list[Finding]:
    """Looks through the named entries; without names, through all whose folder is there. Hashes every file.

    Raises:
        ParamsError: there is no such entry.
        InputError: the pins cannot be read.
    """
    chosen = names or [name for name, weights in MANIFEST.items() if weights.folder.exists()]
    return [_look(name, entry(name)) for name in chosen]


def _look(name: str, weights: Weights) -> Finding:
    found = Finding(name)
    again = f"delete {weights.folder} and run `python -m pipeline weights get {name}`"
    if not is_here(weights):
        state = f"lacks {weights.marker}; {again}" if weights.folder.exists() else "is not here"
        found.damaged.append(f"{weights.folder} {state}")
        return found
    pinned = store.read_pins()["folders"].get(weights.folder.as_posix())
    known = dict(pinned["files"]) if pinned else {}
    if not weights.converter:
        known |= {file.name: digest for file in weights.files if (digest := store.expected(name, file))}
    here = store.hashes(weights.folder)
    for file, digest in sorted(known.items()):
        if file not in here:
            found.damaged.append(f"{weights.folder / file} is missing; {again}")
        elif here[file] != digest:
            found.damaged.append(
                f"{weights.folder / file} is damaged: its sha256 is {here[file]}, not {digest}; {again}"
            )
        else:
            found.held += 1
    if not known:
        found.notes.append("nothing says what its files must be: they were not put there by `get`")
        return found
    found.notes += [
        f"{weights.folder / file} was not put there by `get`" for file in sorted(here.keys() - known.keys())
    ]
    if pinned and pinned["from"] and not pinned["from"]["official"]:
        found.notes.append(f"made of {pinned['from']['file']}, which is not the official file")
    found.damaged += _originals(name, weights)
    return found


def _originals(name: str, weights: Weights) -> list[str]:
    """The fetched files that a folder was made of, where the store still has them."""
    wrong = []
    for file in weights.files if weights.converter else ():
        path = store.STORE / (store.expected(name, file) or "")
        if path.is_file() and sha256_file(path) != path.name:
            wrong.append(f"{path} ({file.name}) is damaged; delete it, `get` brings it again when it is needed")
    return wrong
