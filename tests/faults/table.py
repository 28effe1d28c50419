"""Which tests stand for which fault, and what came of them: the marks, and the table docs/faults.md made from a run."""

import ast
from collections import defaultdict
from pathlib import Path

from faults.listed import FAULTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "faults.md"
COMMAND = "python -m pytest tests -q -n 2 --dist loadfile -m fault --faults-table docs/faults.md"
_HEAD = f"""# Faults

What is done to the pipeline on purpose, what it must do, and the tests that hold it to that. Made by the tests:

```
{COMMAND}
```

Besides these, `tests/faults/` ingests more than 5,000 damaged files (`test_fuzz_*.py`): each ends in one line or in
counted rows.

| fault | what is done | what must happen | tests | result |
|---|---|---|---|---|
"""

# Test function -> {"faults": ids, "passed": cases, "failed": cases, "skipped": reasons}; filled where pytest reports.
_results: dict[str, dict] = {}


def pytest_addoption(parser) -> None:
    parser.addoption("--faults-table", metavar="FILE", help="write the table of faults and their tests to FILE")


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        for mark in item.iter_markers("fault"):
            if unknown := sorted(set(mark.args) - set(FAULTS)):
                raise ValueError(f"{item.nodeid}: no such fault: {unknown}; tests/faults/listed.py names them")
            item.user_properties += [("fault", fault) for fault in mark.args]


def pytest_runtest_logreport(report) -> None:
    """Reports carry their marks, so that the controller of several workers sees them too."""
    faults = {value for key, value in report.user_properties if key == "fault"}
    if not faults or (report.when != "call" and report.outcome == "passed"):
        return
    test = _results.setdefault(
        report.nodeid.split("[")[0], {"faults": set(), "passed": 0, "failed": 0, "skipped": set()}
    )
    test["faults"] |= faults
    if report.outcome == "skipped":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        test["skipped"].add(reason.removeprefix("Skipped: "))
    else:
        test[report.outcome] += 1


def pytest_sessionfinish(session) -> None:
    target = session.config.getoption("--faults-table")
    if target and not hasattr(session.config, "workerinput"):
        Path(target).write_text(page(_results), encoding="utf-8")


def page(results: dict[str, dict]) -> str:
    """The table as Markdown: one row a fault, in the order of the list."""
    tests_of = defaultdict(list)
    for name, test in sorted(results.items()):
        for fault in test["faults"]:
            tests_of[fault].append((name, test))
    rows = []
    for fault, (done, must) in FAULTS.items():
        names = "<br>".join(f"`{name}`" for name, _ in tests_of[fault]) or "none"
        said = "<br>".join(_result(test) for _, test in tests_of[fault]) or "no test"
        rows.append(f"| {fault} | {done} | {must} | {names} | {said} |\n")
    return _HEAD + "".join(rows)


def _result(test: dict) -> str:
    if test["failed"]:
        return f"FAILED ({test['failed']} of {test['failed'] + test['passed']})"
    said = "passed" + (f" ({test['passed']} cases)" if test["passed"] > 1 else "") if test["passed"] else ""
    skipped = "skipped: " + "; ".join(sorted(test["skipped"])) if test["skipped"] else ""
    return ", ".join(part for part in (said, skipped) if part)


def marked(root: Path = ROOT / "tests") -> dict[str, set[str]]:
    """Every fault with the test functions that bear its mark, read from their source: `tests/x/test_y.py::test_z`."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in sorted(root.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for fault in _marks(node):
                    found[fault].add(f"{file.relative_to(root.parent).as_posix()}::{node.name}")
    return found


def _marks(test: ast.FunctionDef) -> list[str]:
    calls = [node for decorator in test.decorator_list for node in ast.walk(decorator) if isinstance(node, ast.Call)]
    return [
        argument.value
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "fault"
        for argument in call.args
        if isinstance(argument, ast.Constant)
    ]


def stated(text: str) -> dict[str, set[str]]:
    """Every fault of the page with the tests it names."""
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| F")]
    return {row[0].removeprefix("| "): {name.strip("`") for name in row[3].split("<br>")} for row in rows}
