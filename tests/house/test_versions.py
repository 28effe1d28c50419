"""A stage whose code changes must say so: by a new VERSION, or by a written waiver that the output is the same.

`versions.json` holds, for every sharded stage, its VERSION and the hash of its code without comments, docstrings and
layout. After a change: raise `version` in the stage's `STAGE` if what it writes may differ; else leave it and state
in `waiver` why the output is the same. Then `python tests/house/test_versions.py` writes the new hashes.
"""

import ast
import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
TABLE = Path(__file__).with_name("versions.json")
SHARDED = ("ingest", "parse", "detect", "segment", "embed", "align")
SHARED = ("stages/common", "pipeline/tables.py")


def code_hash(*places: str) -> str:
    """A hash of what Python files say, whatever their comments, docstrings and layout."""
    digest = hashlib.sha256()
    for place in places:
        path = ROOT / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                body = getattr(node, "body", None)
                if isinstance(body, list) and body and _is_text(body[0]):
                    node.body = body[1:]
            digest.update(f"{file.relative_to(ROOT).as_posix()}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def present() -> dict:
    from pipeline.runner import load_stage

    stages = {
        name: {"version": load_stage(name).version, "code": code_hash(f"stages/{name}"), "waiver": ""}
        for name in SHARDED
    }
    return stages | {"shared": {"code": code_hash(*SHARED), "waiver": ""}}


def test_changed_code_has_a_new_version_or_a_waiver():
    stated, now = json.loads(TABLE.read_text()), present()
    for name, entry in now.items():
        known = stated[name]
        assert entry["code"] == known["code"], (
            f"the code of {name} changed: raise its VERSION or waive it, then run tests/house/test_versions.py"
        )
        assert entry.get("version") == known.get("version"), f"{name}: run python tests/house/test_versions.py"


def test_comments_and_layout_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "a.py"
    file.write_text('"""Doc."""\ndef f(x):\n    """Doc."""\n    return x + 1\n')
    first = code_hash("a.py")
    file.write_text("# a remark\ndef f( x ):\n    return (x\n        + 1)  # why\n")
    assert code_hash("a.py") == first
    file.write_text("def f(x):\n    return x + 2\n")
    assert code_hash("a.py") != first


def write() -> None:
    """Takes the present code as the stated one; refuses a change with neither a new VERSION nor a waiver."""
    stated = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    now = present()
    for name, entry in now.items():
        known = stated.get(name, {})
        unchanged_version = known.get("version") == entry.get("version")
        if known and known["code"] != entry["code"] and unchanged_version:
            reason = " ".join(sys.argv[1:])
            if not reason:
                sys.exit(
                    f"{name}: code changed but not its VERSION; give the reason why its output is the same as argument"
                )
            entry["waiver"] = reason
        elif known:
            entry["waiver"] = known.get("waiver", "")
    TABLE.write_text(json.dumps(now, indent=2) + "\n")


if __name__ == "__main__":
    write()
