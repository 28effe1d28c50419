"""The graph and its plan, on a copy of the real dvc.yaml whose stages count as run: all files are small stand-ins."""

import contextlib
import json
import shutil
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.repo import Repo
from pydantic import BaseModel
from ruamel.yaml import YAML
from small import ROOT, in_process, make_collection

from pipeline import graph, params, sections
from pipeline.errors import InputError, ParamsError
from pipeline.runner import load_stage
from pipeline.tables import WRITER

CELLS = ("untrained-0", "simcse-0", "mcse-0", "mcseo-0")
PARAMS = Path("params.yaml")

# Which stages run when a parameter changes, and which may run after them. `train` and `evaluate` stand for all cells.
AFTER = {
    "ingest": "parse detect segment embed align quality train evaluate report",
    "parse": "detect segment embed align quality train evaluate report",
    "detect": "segment embed align quality train evaluate report",
    "segment": "embed align quality train evaluate report",
    "embed": "align quality train evaluate report",
    "align": "quality train evaluate report",
    "quality": "report",
    "detect quality": "segment embed align train evaluate report",
    "train report": "evaluate",
}
NEW_SEED = "train@untrained-1 train@simcse-1 train@mcse-1 train@mcseo-1"
NEW_SCORES = "evaluate@untrained-1 evaluate@simcse-1 evaluate@mcse-1 evaluate@mcseo-1"
GOLDEN = [
    # parameter, another value, the stages that run
    ("dataset", "other", "ingest parse detect segment embed align quality train evaluate report"),
    ("ingest.source", "folder", "ingest"),
    ("ingest.path", "elsewhere", "ingest"),
    ("ingest.captions", "c.csv", "ingest"),
    ("ingest.images", ["pictures"], "ingest"),
    ("ingest.lists", "lists.txt", "ingest"),
    ("ingest.columns.image", "picture", "ingest"),
    ("ingest.columns.caption", "sentences", "ingest"),
    ("ingest.columns.id", "key", "ingest"),
    ("ingest.sentences_path", "other.txt", "ingest"),
    ("ingest.shards", 64, "ingest"),
    ("ingest.splits", {"train": 1.0, "dev": 0.0, "test": 0.0}, "ingest"),
    ("ingest.deduplicate", False, "ingest"),
    ("ingest.near_duplicates", 4, "ingest"),
    ("ingest.max_pixels", 1000, "ingest"),
    ("ingest.min_side", 8, "ingest"),
    ("ingest.max_aspect", 3.0, "ingest"),
    ("ingest.max_caption_words", 50, "ingest"),
    ("ingest.max_reject_rate", 0.5, "ingest"),
    ("parse.backend", "markup", "parse"),
    ("parse.path", "elsewhere", "parse"),
    ("parse.span", "maximal", "parse"),
    ("parse.drop_pronouns", False, "parse"),
    ("parse.drop_heads", [], "parse"),
    ("parse.max_words", 5, "parse"),
    ("parse.max_reject_rate", 0.5, "parse"),
    ("detect.backend", "annotations", "detect"),
    ("detect.path", "elsewhere", "detect"),
    ("detect.annotations", "a.json", "detect"),
    ("detect.synonyms", {"person": ["man"]}, "detect quality"),
    ("detect.top_k", 5, "detect"),
    ("detect.box_threshold", 0.2, "detect"),
    ("detect.nms_iou", 0.9, "detect"),
    ("detect.prompting", "per_phrase", "detect"),
    ("detect.dtype", "bf16", "detect"),
    ("detect.max_reject_rate", 0.5, "detect"),
    ("segment.backend", "annotations", "segment"),
    ("segment.path", "elsewhere", "segment"),
    ("segment.annotations", "a.json", "segment"),
    ("segment.prompt", "grid", "segment"),
    ("segment.multimask", False, "segment"),
    ("segment.grid.points_per_side", 12, "segment"),
    ("segment.grid.min_predicted_iou", 0.5, "segment"),
    ("segment.grid.min_stability", 0.5, "segment"),
    ("segment.grid.nms_iou", 0.5, "segment"),
    ("segment.min_island", 9, "segment"),
    ("segment.dtype", "bf16", "segment"),
    ("segment.max_reject_rate", 0.5, "segment"),
    ("embed.path", "elsewhere", "embed"),
    ("embed.crop", "box", "embed"),
    ("embed.crop_margin", 0.3, "embed"),
    ("embed.text", False, "embed"),
    ("embed.dtype", "bf16", "embed"),
    ("embed.max_reject_rate", 0.5, "embed"),
    ("align.min_score", 0.4, "align"),
    ("align.min_predicted_iou", 0.4, "align"),
    ("align.min_mask_box_iou", 0.4, "align"),
    ("align.min_area", 0.1, "align"),
    ("align.max_area", 0.5, "align"),
    ("align.min_similarity", 0.1, "align"),
    ("align.tie", 0.1, "align"),
    ("align.max_per_caption", 1, "align"),
    ("align.max_reject_rate", 0.5, "align"),
    ("quality.gold_path", "elsewhere", "quality"),
    ("train.path", "elsewhere", "train report"),
    ("train.teachers_path", "elsewhere", "train report"),
    ("train.triplets_path", "elsewhere", "train report"),
    ("train.init", "scratch", "train report"),
    ("train.pooling", "cls", "train report"),
    ("train.epochs", 9, "train report"),
    ("train.max_steps", 9, "train report"),
    ("train.batch_size", 9, "train report"),
    ("train.accumulation", 9, "train report"),
    ("train.cache_chunk", 9, "train report"),
    ("train.learning_rate", 0.1, "train report"),
    ("train.schedule", "cosine", "train report"),
    ("train.warmup", 0.5, "train report"),
    ("train.max_length", 9, "train report"),
    ("train.length_chunks", 9, "train report"),
    ("train.objects_per_caption", 9, "train report"),
    ("train.captions_per_image", "all", "train report"),
    ("train.pair_every", 9, "train report"),
    ("train.temperature", 0.9, "train report"),
    ("train.image_weight", 0.9, "train report"),
    ("train.object_weight", 0.9, "train report"),
    ("train.eval_every", 9, "train report"),
    ("train.patience", 9, "train report"),
    ("train.dtype", "bf16", "train report"),
    ("train.compile", True, "train report"),
    ("train.normalize", True, "train report"),
    ("train.settings", {"mcse": {"lambda": 0.05}}, "train report"),
    ("grid.recipes", ["mcseo", "mcse", "simcse", "untrained"], "report"),
    ("grid.seeds", [0, 1], f"{NEW_SEED} {NEW_SCORES} report"),
    ("evaluate.path", "elsewhere", "train evaluate report"),
    ("evaluate.suite", ["sts"], "evaluate report"),
    ("evaluate.protocol", "mteb", "evaluate report"),
    ("evaluate.dtype", "bf16", "evaluate report"),
    ("evaluate.note", "other", "evaluate report"),
    ("report.gallery", 3, "report"),
    ("report.dropped", 3, "report"),
    ("report.seed", 3, "report"),
    ("report.leak_jaccard", 0.5, "report"),
    ("report.leak_distance", None, "report"),
    ("runtime.devices", ["cpu"], ""),
    ("runtime.workers", 2, ""),
    ("runtime.threads", 1, ""),
    ("runtime.batch_rows", 9, ""),
    ("runtime.batch_images", 9, ""),
    ("runtime.compile", True, ""),
    ("runtime.scratch", "elsewhere", ""),
]
ONLY_ONE_VALUE = {"embed.backend"}


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which every stage has run, by DVC's record: its files are committed as they are."""
    folder = tmp_path_factory.mktemp("workspace")
    for name in ("dvc.yaml", "requirements.lock", ".dvcignore"):
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copyfile(ROOT / "presets" / "demo.yaml", folder / "params.yaml")
    Repo.init(str(folder), no_scm=True).close()
    shutil.copyfile(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    with contextlib.chdir(folder), Repo() as repo:
        for stage in repo.index.stages:
            for entry in (*stage.outs, *stage.deps):
                _stand_in(Path(entry.fs_path))
        repo.commit(None, force=True)
    return folder


def _stand_in(path: Path) -> None:
    """A small file, or a folder with one file a table, where nothing is yet."""
    if path.exists():
        return
    files = [path] if path.suffix else [path / "pairs" / "0000.parquet"] if path.name == "align" else [path / "file"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{file.name}\n")


@pytest.fixture
def workspace(run_once: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder is that workspace; its params.yaml is put back afterwards."""
    monkeypatch.chdir(run_once)
    before = PARAMS.read_text()
    yield run_once
    PARAMS.write_text(before)


def states(steps: list[graph.Step]) -> dict[str, str]:
    return {step.stage: step.state for step in steps}


def cells(names: str) -> set[str]:
    found = set()
    for name in names.split():
        found |= {f"{name}@{cell}" for cell in CELLS} if name in ("train", "evaluate") else {name}
    return found


def test_nothing_changed_and_everything_is_fresh(workspace):
    steps = graph.Graph().plan()
    assert set(states(steps).values()) == {"fresh"}
    assert graph.summary(steps) == "nothing to do: 16 stages fresh"
    order = [step.stage for step in steps]
    assert order[:7] == ["ingest", "parse", "detect", "segment", "embed", "align", "quality"]
    assert order[-1] == "report"


@pytest.mark.fault("F58")
@pytest.mark.parametrize(("key", "value", "runs"), GOLDEN, ids=[row[0] for row in GOLDEN])
def test_golden_table(workspace, key, value, runs):
    """Changing a parameter runs exactly the stages that the table names, and may run exactly those behind them."""
    params.update(PARAMS, {key: value})
    found = states(graph.Graph().plan(shards=False))
    assert {stage for stage, state in found.items() if state == "runs"} == cells(runs)
    may_run = {stage for stage, state in found.items() if state == "may run"}
    assert may_run == cells(AFTER.get(runs, ""))


@pytest.mark.fault("F58")
def test_golden_table_names_every_parameter():
    named = {row[0] for row in GOLDEN} | ONLY_ONE_VALUE
    assert named == {".".join(path) for path in _leaves(params.Params)}


def _leaves(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Parameters one can set on their own; the shares of the splits are set together."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, sections.Section) and name != "splits":
            yield from ((name, *rest) for rest in _leaves(field.annotation))
        else:
            yield (name,)


@pytest.mark.fault("F57")
def test_no_parameter_bears_a_name_that_dvc_drops():
    """DVC's run cache ignores keys named `size` and `nfiles`: such a parameter would be restored with old results."""
    names, models = set(), [params.Params]
    while models:
        for name, field in models.pop().model_fields.items():
            names.add(name)
            kinds = [field.annotation, *typing.get_args(field.annotation)]
            models += [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    assert len(names) > 60
    assert not names & {"size", "nfiles"}


SHARDED = sorted(set(WRITER.values()))


@pytest.mark.parametrize("name", SHARDED)
def test_what_is_in_a_fingerprint_is_visible_to_dvc(name):
    declared = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"][name]
    stage = load_stage(name)
    assert declared["params"] == ["dataset", name]
    wanted = {"requirements.lock", f"stages/{name}"}
    wanted |= {f"data/${{dataset}}/{WRITER[table]}/{table}" for table in stage.reads}
    section = params.Params.model_fields[name].annotation
    wanted |= {f"${{{name}.{key}}}" for key in section.model_fields if key.endswith("path")}
    wanted |= _imported_code(name)
    assert wanted <= set(declared["deps"])
    assert declared["outs"] == [f"data/${{dataset}}/{name}"]


def _imported_code(name: str) -> set[str]:
    text = "".join(path.read_text() for path in (ROOT / "stages" / name).glob("*.py"))
    return {"pipeline/tables.py"} | ({"stages/common"} if "from stages.common" in text else set())


def test_code_that_every_stage_runs_is_a_dependency_of_every_stage():
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, declared in stages.items():
        assert f"stages/{name}" in declared["deps"], name
        assert declared["cmd"].startswith(f"python -m stages.{name}"), name


def test_reasons_are_told(workspace):
    params.update(PARAMS, {"align.min_score": 0.4, "align.tie": 0.2})
    code = Path("stages/report/file")
    before = code.read_text()
    code.write_text("changed\n")
    shutil.rmtree("data/demo/parse")
    Path("data/demo/detect/file").write_text("edited by hand\n")
    try:
        steps = {step.stage: step for step in graph.Graph().plan(shards=False)}
    finally:
        code.write_text(before)
        with Repo() as repo:
            repo.checkout(force=True)
    assert steps["parse"].state == "restored"
    assert steps["parse"].reasons == ("output data/demo/parse missing",)
    assert steps["detect"].state == "restored"
    assert steps["detect"].reasons == ("output data/demo/detect changed",)
    assert steps["segment"].state == "fresh"
    assert steps["align"].reasons == ("align.min_score changed", "align.tie changed")
    assert (steps["report"].state, steps["report"].reasons) == ("runs", ("stages/report changed",))
    assert steps["train@mcse-0"] == graph.Step("train@mcse-0", "may run", ("after align",))


def test_a_clone_with_the_cache_restores_everything(workspace):
    for name in ("data", "metrics", "plots", "report"):
        shutil.move(name, f"{name}.away")
    try:
        steps = graph.Graph().plan(shards=False)
        assert set(states(steps).values()) == {"restored"}
        shutil.rmtree(".dvc/cache/files", ignore_errors=False)
        assert states(graph.Graph().plan(shards=False))["ingest"] == "runs"
    finally:
        for name in ("data", "metrics", "plots", "report"):
            shutil.move(f"{name}.away", name)
        with Repo() as repo:
            repo.commit(None, force=True)


def test_targets_bring_their_ancestors_and_unknown_ones_are_named(workspace):
    made = graph.Graph()
    assert made.order(["align"]) == ["ingest", "parse", "detect", "segment", "embed", "align"]
    assert made.order(["evaluate@mcse-0"])[-2:] == ["train@mcse-0", "evaluate@mcse-0"]
    assert len(made.order(["train"])) == 10
    with pytest.raises(ParamsError, match="'aling': no such stage in dvc.yaml; there are align, "):
        made.order(["aling"])


def test_outside_a_project_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no DVC project here"):
        graph.Graph()


def test_the_plan_tells_what_dvc_then_does(tmp_path, monkeypatch):
    """On a graph that really runs: what was planned as fresh or restored is not computed, what runs is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHELL", "/bin/sh")
    Repo.init(no_scm=True).close()
    shutil.copyfile(ROOT / ".dvc" / "config", ".dvc/config")
    Path(".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    _write_runnable_graph()
    history = []
    for level, note, source in (*(f"{change}x" for change in ("an", "bn", "an", "cm", "bn")), "bny", "bnx"):
        Path("source").write_text(f"{source}\n")
        PARAMS.write_text(json.dumps({"first": {"level": level}, "last": {"note": note}}))
        planned = states(graph.Graph().plan())
        Path("ran.log").write_text("")
        with Repo() as repo:
            repo.reproduce()
        ran = set(Path("ran.log").read_text().split())
        for stage, state in planned.items():
            assert state != "runs" or stage in ran, (history, stage)
            assert state not in ("fresh", "restored") or stage not in ran, (history, stage)
        history.append(planned)
    assert history == [
        {"first": "runs", "second": "runs", "third": "runs", "last": "runs"},
        # level b: the second stage writes what it wrote before, and the chain ends there
        {"first": "runs", "second": "may run", "third": "may run", "last": "may run"},
        {"first": "restored", "second": "restored", "third": "fresh", "last": "fresh"},
        {"first": "runs", "second": "may run", "third": "may run", "last": "runs"},
        {"first": "restored", "second": "restored", "third": "fresh", "last": "restored"},
        # another source, whose results no cache has; then the one before
        {"first": "runs", "second": "may run", "third": "may run", "last": "may run"},
        {"first": "restored", "second": "fresh", "third": "fresh", "last": "fresh"},
    ]
    assert set(states(graph.Graph().plan()).values()) == {"fresh"}


def _write_runnable_graph() -> None:
    """first copies its parameter; second writes a folder that does not depend on it, and a metric; last reads both."""

    def stage(name: str, work: str, **rest: object) -> dict:
        return {"cmd": f"echo {name} >> ran.log && {work}", **rest}

    stages = {
        "first": stage(
            "first", "mkdir -p one && cp params.yaml one/level && echo 1 > one/same", params=["first"], deps=["source"],
            outs=["one"],
        ),  # fmt: skip
        "second": stage(
            "second", "mkdir -p two metrics && cp one/same two/same && cp one/same metrics/two.json", deps=["one"],
            outs=["two"], metrics=[{"metrics/two.json": {"cache": False}}],
        ),  # fmt: skip
        "third": stage("third", "cp two/same three", deps=["two/same"], outs=["three"]),
        "last": stage("last", "cp three four", params=["last"], deps=["three", "metrics"], outs=["four"]),
    }  # fmt: skip
    Path("source").write_text("x\n")
    Path("dvc.yaml").write_text(json.dumps({"stages": stages}))


def test_shards_in_the_scratch_store_are_counted(small, monkeypatch):
    """Of a stage that runs, the plan says how many shards need no computing."""
    monkeypatch.chdir(small)
    assert graph.finished_shards("ingest") == (0, 4)
    in_process("ingest", small)
    assert graph.finished_shards("ingest") == (4, 4)
    make_collection(small / "collection", 1, first=25)
    assert graph.finished_shards("ingest") == (3, 4)
    params.update(PARAMS, {"ingest.min_side": 8})
    assert graph.finished_shards("ingest") == (0, 4)
    assert graph.finished_shards("detect") is None, "its inputs are not there"
    assert graph.finished_shards("train@mcse-0") is None, "it has no shards"
