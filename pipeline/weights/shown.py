"""The manifest as a person reads it."""

from pipeline.weights.manifest import MANIFEST, Weights, is_here

HEAD = ("name", "here", "fetched", "set", "licence")
FOOT = (
    "\n`python -m pipeline weights list NAME` says what it is, where it comes from and where it goes,\n"
    "`weights get NAME` brings it, `python -m pipeline set PARAMETER=FOLDER` makes a stage use it."
)
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def rows() -> list[tuple[str, ...]]:
    """A row an entry, in the columns of HEAD."""
    return [
        (name, _state(weights), size(weights.bytes), weights.parameter, weights.licence)
        for name, weights in MANIFEST.items()
    ]


def details(name: str, weights: Weights) -> str:
    """All that is known of an entry, a line a fact."""
    lines = [
        f"{name}: {weights.what}",
        f"  licence: {weights.licence}",
        f"  from: {weights.source}",
        f"  folder: {weights.folder} ({_state(weights)}); python -m pipeline set {weights.parameter}={weights.folder}",
    ]
    for file in weights.files:
        facts = [f"{file.bytes:,} bytes" if file.bytes else "size not known"]
        facts.append(f"sha256 {file.sha256}" if file.sha256 else "sha256 pinned at first use")
        lines += [f"  {file.name}: {', '.join(facts)}", *(f"    {url}" for url in file.urls)]
    return "\n".join(lines)


def size(number: int | None) -> str:
    """Bytes for people: 375 MB."""
    if number is None:
        return "?"
    for unit, called in _UNITS:
        if number >= unit:
            return f"{number / unit:,.3g} {called}"
    return f"{number} B"


def _state(weights: Weights) -> str:
    if is_here(weights):
        return "yes"
    return "damaged" if weights.folder.exists() else "no"
