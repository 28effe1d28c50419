"""How long a plan roughly takes: from what is there, or what is published, and from one table of rates."""

import json
import math
from pathlib import Path

import pytest
from small import ROOT

from pipeline import cli, estimate, params, presets
from pipeline.estimate import RATES, Counts
from pipeline.graph import Step
from pipeline.tables import WRITER
from stages.train.work import sentences

PAPER = [name for name in presets.names() if name.startswith("paper-")]
CELLS = [f"train@{recipe}-0" for recipe in ("untrained", "simcse", "simcse-sup", "diffcse", "mcse", "kdmcse", "dalr")]


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """A folder with the parameters of a preset, and nothing else: no weights, no data."""
    monkeypatch.chdir(tmp_path)

    def loaded(name="paper-flickr30k"):
        Path("params.yaml").write_text(presets.render(presets._source(name), name, tmp_path / "nowhere" / ".."))
        return params.load(Path("params.yaml"))

    (tmp_path / "nowhere").mkdir()
    return loaded


def amount(**changes):
    values = {"images": 29_783, "captions": 148_915, "phrases": 0, "boxes": 0, "sentences": 1_000_000, "triplets": 0}
    return Counts(**(values | changes), known=True)


def everything(state="runs"):
    names = (*dict.fromkeys(WRITER.values()), "quality", *CELLS, "evaluate@mcse-0", "report")
    return [Step(name, state) for name in names]


def test_every_stage_has_rates_with_their_source():
    assert set(RATES) == {*WRITER.values(), "quality", "train", "evaluate", "report"}
    for rates in RATES.values():
        assert list(rates)[-1] == "", "the last fits all"
        for rate in rates.values():
            assert rate.source and (rate.cpu or rate.gpu)


@pytest.mark.parametrize("name", PAPER)
def test_a_plan_without_data_and_weights_rests_on_what_is_published(paper, name):
    loaded = paper(name)
    found = estimate.of_plan(loaded, everything("may run"))
    assert set(found) == {step.stage for step in everything()}
    assert all(e.here is not None and e.here > 0 and math.isfinite(e.here) for e in found.values())
    said = "\n".join(estimate.in_words(loaded, found))
    images = "82,783" if "coco" in name else "31,783"
    assert f"reckoned for {images} images" in said and "1,000,000 sentences, as published" in said
    encoder = "roberta-base" if name.endswith("roberta") else "bert-base-uncased"
    assert f"weights/{encoder} (train.path)" in said and "weights/teachers" in said
    assert f"clip-vit-large-patch14 {encoder}` gets weights" in said
    assert "nli_for_simcse.csv (train.triplets_path)" in said


def test_nothing_is_estimated_of_what_does_not_run(paper):
    steps = [Step("detect", "fresh"), Step("segment", "restored"), Step("align", "may run")]
    assert set(estimate.of_plan(paper(), steps)) == {"align"}
    assert estimate.in_words(paper(), {}) == []


def test_finished_shards_take_no_time(paper):
    steps = [Step("detect", "runs", shards=shards) for shards in ((0, 16), (8, 16))]
    whole, half = (estimate.of_plan(paper(), [step])["detect"].here for step in steps)
    assert half == pytest.approx(whole / 2)


def test_what_ingest_counted_takes_the_place_of_what_is_published(paper):
    loaded = paper()
    folder = Path("metrics") / loaded.dataset
    folder.mkdir(parents=True)
    published = estimate.counts(loaded)
    rows = {"images": 100, "captions": 500, "sentences": 10}
    (folder / "ingest.json").write_text(json.dumps({"rows": rows}))
    counted = estimate.counts(loaded)
    assert counted.known and not published.known
    assert (counted.images, counted.captions, counted.sentences, counted.phrases) == (100, 500, 10, 1450)
    (folder / "parse.json").write_text(json.dumps({"rows": {"phrases": 7}}))
    assert estimate.counts(loaded).phrases == 7
    step = [Step("parse", "runs")]
    assert estimate.of_plan(loaded, step)["parse"].here < 60


def test_of_an_unknown_collection_nothing_is_claimed(paper):
    loaded = paper().model_copy(update={"dataset": "mine"})
    found = estimate.of_plan(loaded, everything())
    assert {name for name, e in found.items() if e.here is not None} == {"evaluate@mcse-0"}
    said = "\n".join(estimate.in_words(loaded, found))
    assert "nothing is known yet of how much mine holds" in said and "without ingest, parse, detect" in said


def test_a_wrong_setting_of_a_recipe_has_no_estimate(paper):
    loaded = paper()
    wrong = loaded.train.model_copy(update={"settings": {"mcse": {"taus": 1}}})
    found = estimate.of_plan(loaded.model_copy(update={"train": wrong}), [Step("train@mcse-0", "runs")])
    assert found["train@mcse-0"] == estimate.Estimate(None, None)


def test_the_work_follows_the_published_schedule(paper):
    """wiki + flickr at batch 64: 16,091 steps an epoch with one caption an image, 17,952 with five (29,783 images)."""
    loaded = paper()
    whole = loaded.ingest.splits.model_copy(update={"train": 1.0, "dev": 0.0, "test": 0.0})
    loaded = loaded.model_copy(update={"ingest": loaded.ingest.model_copy(update={"splits": whole})})

    def steps(work, share_of_evaluation=64 + 2900 / 6 / 125):
        return work / share_of_evaluation

    assert steps(sentences("mcse", loaded, amount())) == pytest.approx(3 * 16_091, rel=0.001)
    assert steps(sentences("kdmcse", loaded, amount())) == pytest.approx(3 * 17_952, rel=0.001)
    mcse, mcseo, shuffled = (sentences(name, loaded, amount()) for name in ("mcse", "mcseo", "mcseo-shuffled"))
    assert 1 < mcseo / mcse < 1.02 and mcseo == shuffled
    triplets = sentences("simcse-sup", loaded, amount(triplets=275_601))
    assert triplets == pytest.approx(3 * 539 * 512 * 1.5, rel=0.01)
    assert sentences("untrained", loaded, amount()) < 1000
    cached = loaded.model_copy(update={"train": loaded.train.model_copy(update={"cache_chunk": 16})})
    assert sentences("mcse", cached, amount()) > 1.25 * mcse


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "?"), (0.0, "1 s"), (42.4, "42 s"), (95, "1.6 min"), (5_000, "83 min"), (7_200, "2 h"), (90_000, "25 h"),
     (1_000_000, "12 days"), (100_000_000, "1,200 days")],
)  # fmt: skip
def test_times_are_told_in_two_digits(seconds, words):
    assert estimate.told(seconds) == words


def test_the_command_tells_it(tmp_path, monkeypatch, capsys):
    """`plan` in a fresh checkout with a preset whose data and weights are not there."""
    from dvc.repo import Repo

    for name in ("model", "stages", "pipeline", "presets", "requirements.lock"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    Repo.init(no_scm=True).close()
    Path(".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    for arguments in (["preset", "paper-coco", "--data-root", "root"], ["plan"], ["plan", "--json"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert not ended.value.code
        said = capsys.readouterr().out
        if arguments == ["plan"]:
            assert "roughly" in said and "not here: root/coco (ingest.path)" in said
            assert "weights/bert-base-uncased is missing" in said
    stages = json.loads(said)["stages"]
    assert len(stages) == 108 and all(stage["roughly_seconds"] > 0 for stage in stages)
