"""The table of aims, with checkpoints and measurements made up here: what it says and how it ends."""

from types import SimpleNamespace

import pytest

from demo.recipes import check
from demo.recipes.aims import Aim
from demo.recipes.cards import Figures, write_figures
from pipeline.errors import InputError

TABLE = (
    Aim("good", "accuracy", "", least=0.9),
    Aim("good", "unseen", "", least=0.8, of="seen"),
    Aim("parser", "f1", "", least=0.5),
    Aim("parser", "las", "", least=0.8, ewt=True),
)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Checkpoints `good` (shipped figures), `parser`, `other` (no aim), and a folder nobody measures."""
    for name in ("good", "parser", "other", "bystander"):
        (tmp_path / name).mkdir()
    write_figures(tmp_path / "good", Figures("good", 11, 5, 1.0, "here", {"accuracy": 0.97, "unseen": 0.9}, 12))
    measured = {
        "good": {"accuracy": 0.95, "unseen": 0.81, "seen": 0.9},
        "parser": {"f1": 0.75},
        "other": {"loss": 2.5},
    }
    asked = []

    def measuring(name):
        if name not in measured:
            return None

        def figures(folder, seed, scenes):
            asked.append((folder, seed, scenes))
            if isinstance(measured[name], Exception):
                raise measured[name]
            return measured[name]

        module = SimpleNamespace(figures=figures)
        if name == "parser":
            module.ewt_figures = lambda folder, treebank: {"las": float((treebank / "las").read_text())}
        return module

    monkeypatch.setattr(check, "AIMS", TABLE)
    monkeypatch.setattr("demo.recipes.aims.AIMS", TABLE)
    monkeypatch.setattr(check, "measuring", measuring)
    monkeypatch.setattr(check, "CHECKPOINTS", tmp_path)
    return SimpleNamespace(root=tmp_path, measured=measured, asked=asked)


def run(world, capsys, *given):
    code = check.main([*given, "--checkpoints", str(world.root)])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def cells(lines, *start):
    (line,) = [line for line in lines if line.startswith(f"{start[0]:<15} {start[1]}  ")]
    return line[len(start[0]) :].replace(start[1], "", 1).split()


def test_everything_met(world, capsys):
    code, out, err = run(world, capsys, "--seed", "40", "--scenes", "7")
    assert code == 0 and out[-1] == "3 of 4 aims met, 1 not measured"
    assert out[0].split() == ["checkpoint", "figure", "measured", "aim", "shipped"]
    assert cells(out, "good", "accuracy") == ["0.950", ">=", "0.90", "met", "0.970"]
    assert cells(out, "good", "unseen / seen") == ["0.900", ">=", "0.80", "met", "-"]
    assert cells(out, "parser", "las")[-3:] == ["give", "--ewt", "PATH"]
    assert cells(out, "other", "loss") == ["2.500", "-", "-", "-"]
    assert world.asked == [(world.root / name, 40, 7) for name in ("good", "parser", "other")]
    assert err[0] == "[1/3] good: 7 scenes of seed 40 ..." and not any("bystander" in line for line in out + err)


def test_an_aim_that_is_not_met(world, capsys):
    world.measured["good"]["accuracy"] = 0.89
    code, out, _ = run(world, capsys)
    assert code == 1 and "NOT MET" in next(line for line in out if " accuracy " in line)
    assert out[-1] == "2 of 4 aims met, 1 not measured; NOT met: good accuracy"


def test_a_ratio_that_is_not_met_and_one_that_nobody_measured(world, capsys):
    world.measured["good"]["seen"] = 1.1
    assert run(world, capsys)[1][-1].endswith("NOT met: good unseen / seen")
    del world.measured["good"]["seen"]
    code, out, _ = run(world, capsys)
    assert code == 1 and out[-1].endswith("NOT met: good unseen / seen")
    assert any("the recipe's figures hold no unseen / seen" in line for line in out)


@pytest.mark.parametrize(("las", "code"), [("0.81", 0), ("0.7", 1)])
def test_the_treebank_s_figures_count_when_it_is_given(world, capsys, tmp_path_factory, las, code):
    treebank = tmp_path_factory.mktemp("ewt")
    (treebank / "las").write_text(las)
    found, out, _ = run(world, capsys, "--ewt", str(treebank))
    assert found == code and "4 aims met" in out[-1]
    assert cells(out, "parser", "las")[0] == f"{float(las):.3f}"


def test_a_checkpoint_that_is_not_there_fails_and_the_others_are_measured(world, capsys):
    (world.root / "parser").rmdir()
    code, out, _ = run(world, capsys)
    assert code == 1 and "parser f1" in out[-1] and any("python -m demo.recipes.parser" in line for line in out)
    assert "0.950" in out[1]


def test_weights_that_cannot_be_loaded_are_a_row_of_the_table(world, capsys):
    world.measured["parser"] = InputError("parser.pt: damaged\nfetch it again")
    code, out, _ = run(world, capsys)
    assert code == 1 and cells(out, "parser", "f1")[-2:] == ["parser.pt:", "damaged"]


def test_only_some(world, capsys):
    code, out, _ = run(world, capsys, "--only", "parser")
    assert code == 0 and out[-1] == "1 of 2 aims met, 1 not measured"
    code, out, err = run(world, capsys, "--only", "praser")
    assert (code, out) == (2, []) and err == ["--only praser: no such checkpoint; there are good, parser, other"]


@pytest.mark.parametrize(
    ("seed", "by"),
    [
        (0, "the demo world"),
        (1, "the vision recipes"),
        (2025, "the recipes' own figures"),
        (2027, "the recipes' own figures"),
        (11, "the recipe of good"),
        (12, "the figures of good"),
    ],
)
def test_a_seed_that_was_used_is_refused(world, capsys, seed, by):
    for only in ((), ("--only", "parser")):  # whatever is measured
        code, out, err = run(world, capsys, "--seed", str(seed), *only)
        assert (code, out, len(err)) == (2, [], 1) and err[0].startswith(f"--seed {seed}: used by {by}; take one")
    assert not world.asked


@pytest.mark.parametrize("given", [("--seed", "-1"), ("--scenes", "0")])
def test_numbers_out_of_range(world, capsys, given):
    code, out, err = run(world, capsys, *given)
    assert (code, out, len(err)) == (2, [], 1)


def test_a_treebank_that_is_not_there(world, capsys):
    code, _, err = run(world, capsys, "--ewt", str(world.root / "nowhere"))
    assert code == 3 and len(err) == 1 and "UD_English-EWT" in err[0]


def test_figures_that_cannot_be_read_are_told_and_the_rest_goes_on(world, capsys):
    (world.root / "good" / "figures.json").write_text("{}")
    code, out, err = run(world, capsys)
    assert code == 0 and "figures.json: not the figures of a recipe" in err[0]
    assert cells(out, "good", "accuracy")[-1] == "-"


def test_a_folder_within_a_folder_goes_by_its_recipe_s_name(world, capsys):
    write_figures(world.root / "several" / "a", Figures("other", 3, 5, 1.0, "here", {"loss": 2.0}))
    (world.root / "other").rmdir()
    code, out, _ = run(world, capsys, "--only", "other")
    assert code == 0 and cells(out, "other", "loss") == ["2.500", "-", "-", "2.000"]
    assert world.asked == [(world.root / "several" / "a", check.SEED, check.SCENES)]


def test_weights_that_are_missing_are_told_even_where_nothing_is_asked(world, capsys):
    world.measured["other"] = OSError("no file named model.safetensors found")
    code, out, err = run(world, capsys)
    assert code == 0 and not any(line.startswith("other") for line in out)
    assert "other: no file named model.safetensors found" in err


def test_what_measures_is_found_in_its_own_module_or_in_the_recipe_s(tmp_path, monkeypatch):
    package = tmp_path / "made_up_recipes"
    package.mkdir()
    files = {"__init__": "", "figures_a": "def figures(): ...", "a": "", "b": "def figures(): ...", "c": "other = 1"}
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(check, "PACKAGE", "made_up_recipes")
    found = {name: check.measuring(name) for name in ("a", "b", "c", "d")}
    assert {name: module and module.__name__ for name, module in found.items()} == {
        "a": "made_up_recipes.figures_a", "b": "made_up_recipes.b", "c": None, "d": None,
    }  # fmt: skip


def test_a_default_seed_is_one_that_nothing_shipped_used():
    check.refuse_used(check.SEED, check.checkpoints(check.CHECKPOINTS))
