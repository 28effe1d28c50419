"""The backend `transformers`: batches, several prompts an image, what goes wrong, and the stage around it."""

import io
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from small import ROOT, digests, environment, in_process, make_collection, write_params
from vision import grounding_dino_pth

from pipeline.errors import InputError, ResourceError, StageError
from pipeline.sections import Detect, Runtime
from pipeline.shards import read_all
from stages.detect.backends import Miss, open_detector
from stages.detect.convert import convert
from stages.detect.network import Network
from stages.detect.transformers_backend import TransformersDetector

CLOSE = 1e-5
WORDS = ("a dog", "two men", "red ball", "st. bernard?", "the [SEP] thing", "a cup", "an old bicycle", "the grass")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    source = grounding_dino_pth(root / "small.pth")
    shape = json.loads(source.with_suffix(".json").read_text())
    source.with_suffix(".json").write_text(json.dumps(shape | {"size": {"shortest_edge": 96, "longest_edge": 160}}))
    convert(source, root / "weights", "small")
    return root / "weights"


def picture(number: int) -> dict:
    """A smooth random image, one in three of them upright."""
    draw = np.random.default_rng(number)
    height, width = (64, 48) if number % 3 == 2 else (48, 64)
    image = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"id": f"i{number}", "bytes": buffer.getvalue(), "height": height, "width": width}


@pytest.fixture(scope="module")
def shard() -> tuple[pa.Table, pa.Table]:
    """9 images, the last without phrases; two captions of three phrases each."""
    draw = random.Random(0)
    rows = [
        {"id": f"i{i}/{c}/{p}", "image_id": f"i{i}", "caption_id": f"i{i}/{c}", "text": text, "count": None}
        for i in range(8)
        for c in range(2)
        for p, text in enumerate(draw.sample(WORDS, 3))
    ]
    return pa.Table.from_pylist([picture(i) for i in range(9)]), pa.Table.from_pylist(rows)


def detector_of(weights: Path, batch: int = 4, compiled: bool = False, **changes: object) -> TransformersDetector:
    given = {"backend": "transformers", "path": str(weights), "top_k": 4, "box_threshold": 0.0} | changes
    runtime = Runtime(devices=["cpu"], batch_images=batch, compile=compiled, threads=1)
    return open_detector(Detect(**given), runtime, "cpu")


def found_by(detector: TransformersDetector, images: pa.Table, phrases: pa.Table) -> dict:
    found = list(detector.detect(images, phrases))
    assert sorted(name for name, _ in found) == sorted(phrases.column("id").to_pylist())
    return dict(found)


def assert_same(one: dict, other: dict, sides: float = 64.0) -> None:
    assert set(one) == set(other)
    for name, boxes in one.items():
        if isinstance(boxes, Miss):
            assert boxes == other[name]
            continue
        assert len(boxes) == len(other[name]) > 0
        for a, b in zip(boxes, other[name], strict=True):
            assert a.label == b.label and abs(a.score - b.score) <= CLOSE
            assert max(abs(p - q) for p, q in zip(a.box, b.box, strict=True)) <= CLOSE * sides


@pytest.fixture(scope="module")
def detector(weights) -> TransformersDetector:
    return detector_of(weights)


@pytest.fixture(scope="module")
def found(detector, shard) -> dict:
    return found_by(detector, *shard)


# Batches


@pytest.mark.fault("F52")
@pytest.mark.parametrize("prompting", ["per_image", "per_caption", "per_phrase"])
def test_batches_and_the_order_of_rows_do_not_matter(weights, shard, found, prompting):
    images, phrases = shard
    first = found if prompting == "per_image" else found_by(detector_of(weights, prompting=prompting), *shard)
    for batch in (1, 16):
        assert_same(first, found_by(detector_of(weights, batch, prompting=prompting), *shard))
    order = np.random.default_rng(0).permutation(9), np.random.default_rng(1).permutation(phrases.num_rows)
    assert_same(
        first, found_by(detector_of(weights, prompting=prompting), images.take(order[0]), phrases.take(order[1]))
    )


def test_what_shares_a_prompt_makes_a_difference(weights, shard, found):
    alone = found_by(detector_of(weights, prompting="per_phrase"), *shard)
    assert max(abs(found[name][0].score - alone[name][0].score) for name in found) > 1e-3


def test_several_prompts_an_image_are_as_if_asked_alone(weights, shard):
    """All phrases in prompts of one phrase each, in one go; and each phrase in a run of its own."""
    images, phrases = shard
    detector = detector_of(weights, prompting="per_phrase")
    together = found_by(detector, images, phrases)
    alone = {}
    for row in range(0, phrases.num_rows, 9):
        alone |= found_by(detector, images, phrases.slice(row, 1))
    assert_same(alone, {name: together[name] for name in alone})


def test_a_prompt_cut_at_the_limit_is_as_its_parts(weights, shard, monkeypatch):
    images, phrases = shard
    monkeypatch.setattr(TransformersDetector, "limit", 14)
    cut = found_by(detector_of(weights), images, phrases)
    detector = detector_of(weights)
    monkeypatch.setattr(TransformersDetector, "limit", 256)
    whole = found_by(detector, images, phrases)
    assert max(abs(cut[name][0].score - whole[name][0].score) for name in cut) > 1e-3
    monkeypatch.setattr(TransformersDetector, "limit", 14)
    rows = [row for row in phrases.to_pylist() if row["image_id"] == "i3"]
    from stages.detect.prompts import write_prompts

    prompts, _ = write_prompts(rows, "per_image", detector.tokenizer, 14, 4)
    assert len(prompts) > 1
    for prompt in prompts:
        names = {name for asked in prompt.asked for name in asked.ids}
        part = pa.Table.from_pylist([row for row in rows if row["id"] in names])
        assert_same(found_by(detector, images, part), {name: cut[name] for name in names})


def test_an_image_is_looked_at_once_however_many_prompts_it_has(weights, shard, monkeypatch):
    looked, read = [], []
    look, ask = Network.look, Network.read
    monkeypatch.setattr(Network, "look", lambda self, pixels: looked.append(len(pixels)) or look(self, pixels))
    monkeypatch.setattr(
        Network,
        "read",
        lambda self, states, shapes, texts: read.append(len(states)) or ask(self, states, shapes, texts),
    )
    detector = detector_of(weights, prompting="per_phrase")
    found_by(detector, *shard)
    assert sum(looked) == 8 and max(looked) == 4
    rows = shard[1].to_pylist()
    assert max(read) == 4 and sum(read) == len({(row["image_id"], row["text"]) for row in rows}) > 30
    assert detector.meter.speed()["images"] == 8


def test_a_stricter_threshold_leaves_phrases_without_a_box(weights, shard, found):
    scores = sorted(boxes[0].score for boxes in found.values())
    middle = scores[len(scores) // 2]
    strict = found_by(detector_of(weights, box_threshold=middle), *shard)
    for name, boxes in found.items():
        if boxes[0].score < middle:
            assert strict[name] == Miss("no_box", f"best score {boxes[0].score:.2f}")
        else:
            assert strict[name] == [box for box in boxes if box.score >= middle]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_finds_much_the_same(weights, shard, found, dtype):
    """Random weights rank many boxes nearly alike, so the scores are compared, not which box comes first."""
    half = found_by(detector_of(weights, dtype=dtype), *shard)
    moved = [abs(boxes[0].score - half[name][0].score) for name, boxes in found.items()]
    assert 0 < np.mean(moved) < 0.06


def test_compiled_layers_find_the_same(weights, shard, found, monkeypatch):
    """Captured as graphs of fixed shapes; run by torch's own operators, for a C++ compiler would take minutes."""
    compile_block, captured = torch.nn.Module.compile, []

    def eagerly(block, dynamic):
        captured.append(dynamic)
        compile_block(block, dynamic=dynamic, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", eagerly)
    images, phrases = shard[0].take([0, 3, 6]), shard[1].to_pylist()
    phrases = pa.Table.from_pylist([row for row in phrases if row["image_id"] in ("i0", "i3", "i6")])
    detector = detector_of(weights, batch=2, compiled=True)
    assert captured == [False] * 12
    for warm_up in (True, False):
        result = found_by(detector, images, phrases)
        assert_same({name: found[name] for name in result}, result)
        speed = detector.meter.speed()
        assert speed["images"] == 3 and (speed["warm_up_s"] > 0) is warm_up
    # The second batch is one image short: it was filled up to the shape that was traced.
    assert len(detector._warm) == 2


# What goes wrong


@pytest.mark.fault("F47")
def test_memory_that_runs_out_changes_nothing(weights, shard, found, monkeypatch, capsys):
    look, ask = Network.look, Network.read

    def short_look(self, pixels):
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return look(self, pixels)

    def short_read(self, states, shapes, texts):
        if len(states) > 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return ask(self, states, shapes, texts)

    monkeypatch.setattr(Network, "look", short_look)
    monkeypatch.setattr(Network, "read", short_read)
    assert_same(found, found_by(detector_of(weights), *shard))
    said = capsys.readouterr().err
    assert "out of memory with 4 images at a time; going on with 2" in said
    assert "out of memory with 4 prompts at a time; going on with 2" in said
    assert "out of memory with 2 prompts at a time; going on with 1" in said


@pytest.mark.fault("F47")
def test_an_image_that_does_not_fit_alone_ends_in_one_line(weights, shard, monkeypatch):
    def full(self, pixels):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Network, "look", full)
    with pytest.raises(ResourceError, match="out of memory with one of the images at a time"):
        found_by(detector_of(weights), *shard)


@pytest.mark.fault("F48")
def test_nan_from_the_network_names_the_image(weights, shard, monkeypatch):
    ask = Network.read

    def broken(self, states, shapes, texts):
        logits, boxes = (made.clone() for made in ask(self, states, shapes, texts))
        logits[-1, 0, 1] = torch.nan
        return logits, boxes

    monkeypatch.setattr(Network, "read", broken)
    with pytest.raises(StageError, match=r"image i\d+: the detector gave NaN or infinity"):
        found_by(detector_of(weights), *shard)


def test_a_damaged_image_is_rejected_and_the_others_are_not(detector, shard, found):
    images, phrases = shard
    data = images.column("bytes").to_pylist()
    data[4] = data[4][:60]
    images = images.set_column(1, "bytes", pa.array(data, pa.binary()))
    result = found_by(detector, images, phrases)
    lost = {name: result.pop(name) for name in list(result) if name.startswith("i4/")}
    assert {(miss.reason, miss.outcome) for miss in lost.values()} == {("unreadable", "rejected")} and len(lost) == 6
    assert_same({name: found[name] for name in result}, result)


@pytest.mark.parametrize("gone", ["config.json", "model.safetensors", "vocab.txt", "preprocessor_config.json"])
def test_a_folder_that_lacks_a_file_is_refused(weights, tmp_path, gone):
    shutil.copytree(weights, tmp_path / "weights")
    (tmp_path / "weights" / gone).unlink()
    if gone == "vocab.txt":
        (tmp_path / "weights" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=str(tmp_path)) as error:
        detector_of(tmp_path / "weights")
    assert "\n" not in str(error.value)


# The stage


@pytest.fixture(scope="module")
def collected(weights, tmp_path_factory) -> Path:
    """A small collection, its phrases found by the model on one CPU."""
    folder = tmp_path_factory.mktemp("collected")
    make_collection(folder / "collection", 12)
    write(folder, weights)
    for stage in ("ingest", "parse", "detect"):
        in_process(stage, folder)
    return folder


def write(folder: Path, weights: Path, *devices: str, **changes: object) -> None:
    changes = {"backend": "transformers", "path": str(weights), "box_threshold": 0.0, "top_k": 2} | changes
    write_params(
        folder / "params.yaml",
        folder / "collection",
        runtime__devices=list(devices or ["cpu"]),
        **{f"detect__{name}": value for name, value in changes.items()},
    )


@pytest.fixture
def folder(collected, tmp_path) -> Path:
    """The same collection, nothing detected yet."""
    shutil.copytree(collected, tmp_path / "copy", symlinks=True)
    for part in ("data/small/detect", ".scratch/small/detect"):
        shutil.rmtree(tmp_path / "copy" / part)
    return tmp_path / "copy"


def test_boxes_of_the_stage(collected):
    boxes = read_all(collected / "data/small/detect/boxes").to_pylist()
    phrases = read_all(collected / "data/small/parse/phrases")
    texts = dict(zip(phrases.column("id").to_pylist(), phrases.column("text").to_pylist(), strict=True))
    assert {row["phrase_id"] for row in boxes} == set(texts) and len(boxes) > len(texts)
    for row in boxes:
        assert row["label"] == texts[row["phrase_id"]].lower() and row["object_id"] is None
        assert 0 <= row["x0"] < row["x1"] <= 64 and 0 <= row["y0"] < row["y1"] <= 48 and 0 < row["score"] < 1


@pytest.mark.fault("F53")
def test_two_devices_write_the_bytes_of_one(folder, collected, weights):
    write(folder, weights, "cpu", "cpu")
    said = in_process("detect", folder).splitlines()[-1]
    assert "images/s" in said and "device busy" in said
    assert digests(folder / "data/small/detect") == digests(collected / "data/small/detect")


@pytest.mark.fault("F48")
def test_nan_fails_the_shard_and_nothing_of_it_is_written(folder, weights):
    """In a process of its own: the network gives NaN for the images of all shards but the first."""
    write(folder, weights)
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import torch\n"
        "from stages.detect import grounding\n"
        "scores, calls = grounding.phrase_scores, []\n"
        "def broken(logits, prompts):\n"
        "    calls.append(1)\n"
        "    return scores(logits * (torch.nan if len(calls) > 2 else 1), prompts)\n"
        "grounding.phrase_scores = broken\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "stages.detect"],
        cwd=folder,
        env=environment({"PYTHONPATH": f"{folder / 'site'}:{ROOT}"}),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 3 and "Traceback" not in ended.stderr, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("detect: image ") and "NaN or infinity" in ended.stderr
    for file in (folder / ".scratch/small/detect").rglob("*.parquet"):
        assert "score" not in pq.read_schema(file).names or pq.read_table(file).column("score").null_count == 0
    assert not (folder / "data/small/detect/boxes").exists() or not list((folder / "data/small/detect/boxes").iterdir())


def test_annotations_need_no_torch():
    code = (
        "import sys; from pipeline.sections import Detect; from stages.detect import stage, backends; "
        "assert stage.columns(Detect(backend='annotations', path='x')) == {'images': ['id']}; "
        "assert not {'torch', 'transformers', 'groundingdino'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
