"""Makes docs/parameters.md and docs/reasons.md from the code: `python tests/docs/reference.py`."""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pipeline.sections import Params  # noqa: E402
from stages.report.reasons import MEANING  # noqa: E402

STAGES = ("ingest", "parse", "detect", "segment", "embed", "align")
_CODE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_OUTCOMES = ("dropped", "rejected")
# What a stage does with a bad record where the code beside the reason does not say it.
_USUAL = {"ingest": "rejected", "parse": "dropped", "detect": "dropped", "embed": "rejected", "align": "dropped"}
_NOT_REASONS = {"image", "caption", "sentence", "phrase", "box", "feature", "candidate", *_OUTCOMES}
_BEFORE = {
    "ingest": "The collection and what of it is taken.",
    "parse": "Captions become phrases.",
    "detect": "Phrases get boxes.",
    "segment": "Boxes get masks.",
    "embed": "Images, crops and texts become features.",
    "align": "Candidates become pairs. No model runs here: thresholds are tuned in seconds.",
    "quality": "What the stages before it found is measured against this.",
    "train": "A sentence encoder for each cell of the grid.",
    "grid": "The cells that are trained and evaluated.",
    "evaluate": "What the encoders are scored on.",
    "report": "The page.",
    "runtime": "How work is run. Nothing here changes a result, so nothing is computed again when it changes.",
}


def parameters() -> str:
    """docs/parameters.md."""
    schema = Params.model_json_schema()
    lines = [
        "# Parameters",
        "",
        "Every parameter of `params.yaml`. The file names all of them; *usual* is what a preset takes where it has no",
        "reason to take something else, and a dash means that there is none. `python -m pipeline set",
        "SECTION.NAME=VALUE` changes one and keeps the comments; all mistakes are told at once. A path counts by the",
        "content that lies there, not by its name.",
        "",
        "(This page is made from the code: `python tests/docs/reference.py`.)",
        "",
        "| parameter | takes | usual | |",
        "|---|---|---|---|",
        _row("dataset", schema["properties"]["dataset"], schema),
    ]
    for name, about in _BEFORE.items():
        section = _resolved(schema["properties"][name], schema)
        lines += ["", f"## {name}", "", about, "", "| parameter | takes | usual | |", "|---|---|---|---|"]
        lines += list(_rows("", section, schema))
    missing = set(schema["properties"]) - set(_BEFORE) - {"dataset"}
    assert not missing, f"say in a line what the sections {missing} are for"
    return "\n".join(lines) + "\n"


def _rows(prefix: str, section: dict, schema: dict) -> Iterator[str]:
    for name, field in sorted(section["properties"].items(), key=lambda item: item[0] == "max_reject_rate"):
        inner = _resolved(field, schema)
        if "properties" in inner:
            yield f"| `{prefix}{name}` | the parameters below | | {_cell(field.get('description', ''))} |"
            yield from _rows(f"{prefix}{name}.", inner, schema)
        else:
            yield _row(f"{prefix}{name}", field, schema)


def _row(name: str, field: dict, schema: dict) -> str:
    default = f"`{_value(field['default'])}`" if "default" in field else "-"
    return f"| `{name}` | {_takes(field, schema)} | {default} | {_cell(field.get('description', ''))} |"


def _resolved(field: dict, schema: dict) -> dict:
    return schema["$defs"][field["$ref"].rsplit("/", 1)[1]] if "$ref" in field else field


def _takes(field: dict, schema: dict) -> str:
    field = _resolved(field, schema)
    if "anyOf" in field:
        return " or ".join(_takes(option, schema) for option in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    match field["type"]:
        case "array":
            return f"list of {_takes(field['items'], schema)}"
        case "object":
            return f"mapping of text to {_takes(field['additionalProperties'], schema)}"
        case "null":
            return "`null`"
        case "boolean":
            return "`true`, `false`"
        case "string":
            return f"text like `{_cell(field['pattern'])}`" if "pattern" in field else "text"
    kind = {"integer": "whole number", "number": "number"}[field["type"]]
    low, above = field.get("minimum"), field.get("exclusiveMinimum")
    high, below = field.get("maximum"), field.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{kind} from {low:g} to {high:g}"
    limits = {"from": low, "above": above, "up to": high, "below": below}
    bounds = [f"{word} {value:g}" for word, value in limits.items() if value is not None]
    return " ".join([kind, *bounds])


def _value(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{key}: {_value(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_value, value)) + "]"
    return _cell(str(value)) or '""'


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<").replace("\n", " ")


def reasons() -> str:
    """docs/reasons.md."""
    lines = [
        "# Reasons",
        "",
        "What does not come through is a row of the stage's `drops/` with one of these codes: *dropped* by a rule, or",
        "*rejected* because the record is bad. A rejected record never stops a stage; more of them than",
        "`max_reject_rate` do (exit 4). `python -m pipeline show ID` tells what became of one record, the page counts",
        "them all.",
        "",
        "(This page is made from the code: `python tests/docs/reference.py`.)",
    ]
    for stage in STAGES:
        lines += ["", f"## {stage}", "", "| code | outcome | what it means |", "|---|---|---|"]
        found = {code: outcomes for (owner, code), outcomes in codes().items() if owner == stage}
        for code in sorted(found):
            meaning = MEANING.get(f"{stage}.{code}") or MEANING.get(code, "")
            lines.append(f"| `{code}` | {', '.join(sorted(found[code]))} | {_cell(meaning)} |")
    return "\n".join(lines) + "\n"


def codes() -> dict[tuple[str, str], set[str]]:
    """(stage, reason code) -> outcomes, of all codes that the code of the stages can give."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for stage in STAGES:
        for file in sorted((ROOT / "stages" / stage).rglob("*.py")):
            for code, outcome, _ in _in_file(file):
                found[stage, code].add(outcome or _USUAL.get(stage, "dropped"))
    for code, _, function in _in_file(ROOT / "stages/common/images.py"):
        # `decode` reads what ingest stored; all else in that file is what ingest does with a file of the collection.
        for stage in ("detect", "segment", "embed") if function == "decode" else ("ingest",):
            found[stage, code].add("rejected")
    return dict(found)


def _in_file(file: Path) -> Iterator[tuple[str, str | None, str]]:
    """(code, outcome named beside it, function) of a file: wherever a literal stands where a reason is meant."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    places = _reason_places()
    for function, node in _nodes(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            named = [word for word in _words(node.args) if word in _OUTCOMES]
            given = [node.args[at] for at in places.get(name, ()) if at < len(node.args)]
            given += [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
            if name == "Drop" and isinstance(given[-1] if given else None, ast.JoinedStr):
                yield from (("image_dropped", "dropped", function), ("image_rejected", "dropped", function))
            outcome = named[0] if named else None
            yield from ((word, outcome, function) for word in _words(given) if word not in _OUTCOMES)
        elif isinstance(node, ast.Assign) and any("reason" in ast.unparse(target) for target in node.targets):
            yield from ((word, None, function) for word in _words([node.value]))
        elif isinstance(node, ast.FunctionDef) and (_gives_fault(node) or "reason" in node.name):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    value = inner.value.elts[0] if isinstance(inner.value, ast.Tuple) else inner.value
                    yield from ((word, None, function) for word in _words([value]))
        elif isinstance(node, ast.keyword) and node.arg == "fault" and isinstance(node.value, ast.Tuple):
            yield from ((word, None, function) for word in _words(node.value.elts[:1]))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _SQL.search(node.value):
            outcome = "dropped" if "'dropped'" in node.value else "rejected"
            for word in re.findall(rf"'({_CODE.pattern})'", node.value):
                if word not in _NOT_REASONS:
                    yield word, outcome, function


_SQL = re.compile(r"INSERT INTO lost|reason = ", re.IGNORECASE)


def _nodes(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every node with the name of the outermost function around it; docstrings left out."""

    def walk(node: ast.AST, function: str) -> Iterator[tuple[str, ast.AST]]:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        inside = function or (node.name if isinstance(node, ast.FunctionDef) else "")
        yield inside, node
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    return walk(tree, "")


def _reason_places() -> dict[str, set[int]]:
    """Functions and classes of the project that take a `reason`, and its place among their arguments."""
    if not _PLACES:
        folders = [ROOT / "stages" / name for name in (*STAGES, "common")]
        for file in [ROOT / "pipeline/ledger.py", *(file for folder in folders for file in folder.rglob("*.py"))]:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    fields = [item.target.id for item in node.body
                              if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]  # fmt: skip
                    inits = [f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
                    names = [a.arg for a in inits[0].args.args[1:]] if inits else fields
                    _note(node.name, names)
                elif isinstance(node, ast.FunctionDef):
                    names = [argument.arg for argument in node.args.args]
                    _note(node.name, names[1:] if names[:1] == ["self"] else names)
    return _PLACES


_PLACES: dict[str, set[int]] = {}


def _note(name: str, arguments: list[str]) -> None:
    if "reason" in arguments and name != "meaning":
        _PLACES.setdefault(name, set()).add(arguments.index("reason"))


def _gives_fault(function: ast.FunctionDef) -> bool:
    return function.returns is not None and ast.unparse(function.returns) == "tuple[str, str] | None"


def _words(nodes: list[ast.AST]) -> list[str]:
    """Literals that look like codes, both branches of a conditional among them."""
    found = []
    for node in nodes:
        if isinstance(node, ast.IfExp):
            found += _words([node.body, node.orelse])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _CODE.fullmatch(node.value):
            found.append(node.value)
    return found


def literals(stage: str) -> set[str]:
    """Every word that stands in quotes in a stage's code (or in what the stages share)."""
    found = set()
    for folder in (ROOT / "stages" / stage, ROOT / "stages/common"):
        for file in folder.rglob("*.py"):
            for _, node in _nodes(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= {node.value, *re.findall(rf"'({_CODE.pattern})'", node.value)}
    return found


def main() -> None:
    for name, text in (("parameters", parameters()), ("reasons", reasons())):
        (ROOT / "docs" / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
