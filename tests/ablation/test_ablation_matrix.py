"""The matrix as dvc.yaml has it: how many cells, what each names, and which of them a changed key concerns."""

import ast
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from small import ROOT

from ablation import cell, gains, matrix, mine
from model.recipes import NAMES
from pipeline.errors import InputError, ParamsError

MOST = 150


class Cells:
    """The resolved stages of ablation/dvc.yaml, by address, and what each stands on."""

    def __init__(self):
        from dvc.repo import Repo
        from networkx import ancestors

        with Repo(str(ROOT)) as repo:
            own = ROOT / "ablation/dvc.yaml"
            graph = repo.index.graph
            found = [stage for stage in graph if Path(stage.path) == own]
            self.stages = {stage.name: stage for stage in found}
            self.after = {stage.name: {later.name for later in ancestors(graph, stage)} for stage in found}

    def keys(self, name: str) -> set[str]:
        """The keys of ablation/params.yaml that a cell depends on itself."""
        own = [dep for dep in self.stages[name].deps if dep.def_path == "ablation/params.yaml"]
        return {key for dep in own for key in dep.params}

    def concerned(self, key: str) -> set[str]:
        """The cells that run when `key` changes: those that name it, a part or the whole of it, and all after them."""
        own = {name for name in self.stages if any(map(partial(_touch, key), self.keys(name)))}
        return own | {later for name in own for later in self.after[name]}


def _touch(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


@pytest.fixture(scope="module")
def cells() -> Cells:
    return Cells()


@pytest.fixture(scope="module")
def plan() -> matrix.Matrix:
    return matrix.load(ROOT / matrix.PARAMS)


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A folder with the files that matrix.py reads."""
    for path in (matrix.PARAMS, matrix.PRESET):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, tmp_path / path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_no_more_cells_than_promised(cells):
    assert 100 < len(cells.stages) <= MOST


def test_every_arm_is_trained_with_every_seed(cells, plan):
    commands = {stage.cmd for stage in cells.stages.values()}
    for dataset, recipe in gains.cells(plan):
        if recipe == gains.UNTRAINED:
            assert f"python -m ablation.cell {dataset} {recipe}" in commands
        else:
            assert {f"python -m ablation.cell {dataset} {recipe} {seed}" for seed in plan.grid["seeds"]} <= commands


def test_commands_name_datasets_recipes_and_steps_that_there_are(cells, plan):
    steps = {*mine.SHARDED, "world", "gold", "corrupt", "quality"}
    for stage in cells.stages.values():
        _, _, module, *words = stage.cmd.split()
        if module == "ablation.table":
            continue
        assert plan.world_of(words[0]) in plan.worlds
        if module == "ablation.mine":
            assert words[1:] and set(words[1:]) <= steps
        else:
            assert module == "ablation.cell" and words[1] in NAMES


def test_another_noise_level_concerns_its_own_cells_alone(cells, plan):
    seeds = plan.grid["seeds"]
    for world in plan.grid["noise"]:
        trained = {f"noise@{world}-{recipe}-{seed}" for recipe in ("mcse", "mcseo") for seed in seeds}
        assert cells.concerned(f"worlds.{world}") == {f"gold@{world}", "table", *trained}


def test_another_share_of_spoilt_pairs_concerns_its_own_cells_alone(cells, plan):
    for source in plan.sources:
        trained = {f"sources@{source}-{seed}" for seed in plan.grid["seeds"]}
        assert cells.concerned(f"sources.{source}") == {f"corrupt@{source}", "table", *trained}


def test_what_is_trained_otherwise_renders_nothing_anew(cells):
    concerned = cells.concerned("settings.train.max_steps")
    assert {name.split("@")[0] for name in concerned} == {"untrained", "recipes", "noise", "sources", "table"}
    assert len(concerned) == sum(stage.cmd.startswith("python -m ablation.cell") for stage in cells.stages.values()) + 1


def test_other_features_concern_every_cell_but_what_stands_before_them(cells):
    concerned = cells.concerned("settings.embed")
    assert {"models", "corrupt@swap50", "gold@clean", "recipes@simcse-0", "table"} <= concerned
    assert all(name in concerned for name in cells.stages if name.startswith(("noise@", "sources@", "recipes@")))


def test_worlds_depend_on_every_file_that_draws_them(cells):
    named = {dep.def_path for dep in cells.stages["gold@clean"].deps}
    code = {path for path in named if path.startswith("demo/") and path.endswith(".py")}
    assert code == {f"demo/{name}.py" for name in imported("build")}


def imported(name: str) -> set[str]:
    """The modules of demo/ that one of them is made of, itself among them."""
    found, todo = set(), {name}
    while todo:
        found.add(one := todo.pop())
        for node in ast.walk(ast.parse((ROOT / f"demo/{one}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("demo."):
                todo |= {node.module.removeprefix("demo.")} - found
    return found


def test_stages_and_code_of_a_training_cell_are_its_dependencies(cells):
    named = {dep.def_path for dep in cells.stages["recipes@mcseo-0"].deps}
    assert {"model", "stages/train", "stages/evaluate", "ablation/cell.py", "ablation/matrix.py"} <= named


def test_the_parameter_file_of_every_dataset_is_whole(checkout, plan):
    from pipeline import params

    for dataset in (*plan.worlds, *plan.sources, matrix.MODELS):
        made = params.load(matrix.write_params(plan, dataset))
        assert made.dataset == f"ablation-{dataset}"
        assert made.ingest.path == f"data/ablation/datasets/{plan.world_of(dataset)}/world"
        assert made.train.max_steps == plan.settings["train"]["max_steps"]
        assert made.embed.path == plan.settings["embed"]["path"]


def test_settings_over_the_preset_leave_the_rest_of_a_section(checkout, plan):
    from pipeline import params

    made, preset = params.load(matrix.write_params(plan, plan.base)), params.load(matrix.PRESET)
    assert made.align == preset.align and made.ingest.max_pixels == preset.ingest.max_pixels


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scenes": None}, "'scenes' is missing"),
        ({"rounds": 3}, "'rounds' is unknown"),
        ({"base": "quiet"}, "'quiet' is not among `worlds`"),
    ],
)
def test_a_mistake_in_the_matrix_is_one_line(checkout, change, says):
    from ruamel.yaml import YAML

    values = YAML(typ="safe").load(matrix.PARAMS.read_text()) | change
    values = {key: value for key, value in values.items() if value is not None}
    matrix.PARAMS.write_text(json.dumps(values))
    with pytest.raises(ParamsError, match=says):
        matrix.load()


def test_a_setting_that_does_not_exist_is_told(checkout, plan):
    with pytest.raises(ParamsError, match="colour"):
        matrix.write_params(plan, plan.base, train={"colour": "red"})


def test_no_such_dataset_no_matrix(checkout, plan):
    with pytest.raises(ParamsError, match="'loud': no such dataset"):
        cell.train(plan, "loud", "mcse", [0])
    with pytest.raises(ParamsError, match="swap50 is no world"):
        mine.mine(plan, "swap50", ["world"])
    with pytest.raises(ParamsError, match="clean is not among `sources`"):
        mine.mine(plan, "clean", ["corrupt"])
    with pytest.raises(InputError, match="run this in the root"):
        matrix.load(Path("elsewhere.yaml"))


def test_a_stage_that_fails_ends_the_cell_with_its_code():
    with pytest.raises(SystemExit) as ended:
        matrix.start("stages.train", "--recipe", "nothing")
    assert ended.value.code == 2
