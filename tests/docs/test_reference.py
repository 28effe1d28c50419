"""The pages that are made from the code are up to date, and every code is on its page."""

import re
from pathlib import Path

import pytest
import reference
from small import ROOT

from pipeline import errors
from pipeline.sections import Params

DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", ["parameters", "reasons"])
def test_the_page_is_what_the_code_says(name):
    stale = f"docs/{name}.md is stale: run `python tests/docs/reference.py`"
    assert (DOCS / f"{name}.md").read_text() == getattr(reference, name)(), stale


def test_every_parameter_is_on_the_page():
    def names(model, prefix=""):
        for name, field in model.model_fields.items():
            yield name, field
            if hasattr(field.annotation, "model_fields"):
                yield from names(field.annotation, f"{prefix}{name}.")

    page = reference.parameters()
    for name, field in names(Params):
        if not hasattr(field.annotation, "model_fields"):
            assert f"{name}` | " in page, name
            assert field.description, f"{name} has no description"


def test_every_reason_the_stages_give_has_a_meaning():
    for stage, code in reference.codes():
        assert f"{stage}.{code}" in reference.MEANING or code in reference.MEANING, (stage, code)


def test_every_meaning_is_of_a_reason_that_a_stage_can_give():
    made = reference.codes()
    for name in reference.MEANING:
        stage, _, code = name.rpartition(".")
        owners = [owner for owner, known in made if known == code and stage in ("", owner)]
        assert owners, f"no stage gives {name}"
        if not code.startswith("image_"):  # made of the image's outcome
            assert any(code in reference.literals(owner) for owner in owners), name


def test_reasons_are_found_wherever_they_stand(tmp_path, monkeypatch):
    """The search itself: a reason in any of the forms the stages use."""
    file = tmp_path / "stages/segment/stage.py"
    file.parent.mkdir(parents=True)
    (tmp_path / "stages/common").mkdir()
    (tmp_path / "stages/common/images.py").write_text("")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline/ledger.py").write_text("class Drop:\n    unit: str\n    reason: str\n")
    file.write_text(
        "def f(x):\n"
        "    Drop('box', 'one_way'); Drop(unit='box', reason='by_name')\n"
        "    reason[rows] = 'by_assignment'\n"
        "    Drop('box', 'this' if x else 'that')\n"
        "    run(\"UPDATE image SET outcome = 'dropped', reason = 'in_sql'\")\n"
        "def fault(x) -> tuple[str, str] | None:\n"
        "    return 'by_tuple', 'a detail'\n"
        "def unrelated():\n    'docstring'\n    return 'no_code'\n"
    )
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    monkeypatch.setattr(reference, "_PLACES", {})
    found = {code for _, code in reference.codes()}
    assert found == {"one_way", "by_name", "by_assignment", "this", "that", "in_sql", "by_tuple"}


def test_every_exit_code_is_on_its_page():
    page = (DOCS / "exit-codes.md").read_text()
    listed = set(re.findall(r"^\| (\d+(?:, \d+)*) \|", page, re.MULTILINE))
    listed = {int(code) for codes in listed for code in codes.split(", ")}
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
    assert codes <= listed
    told = set()
    for file in [*Path(ROOT / "pipeline").rglob("*.py"), *Path(ROOT / "stages").rglob("*.py")]:
        text = file.read_text()
        told |= {int(code) for code in re.findall(r"(?:Exit|sys\.exit|return) ?\(?(\d+)(?:, \"|\) from)", text)}
    assert told <= listed, "a code is used that the page does not know"
