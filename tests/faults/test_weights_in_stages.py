"""Damaged, foreign and hostile weights given to detect and segment: one line, exit code 3, no code of theirs is run."""

import contextlib
import importlib
import io
import json
import os
import pickle
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from faults.nursery import nursery
from safetensors.torch import load_file, save_file
from small import in_process, make_collection, run_stage, write_params
from vision import grounding_dino_pth, sam_pth

from pipeline import entry, process, runner
from stages.detect.convert import convert as convert_detect
from stages.segment.convert import convert as convert_segment

WEIGHTS = "model.safetensors"


class Bomb:
    """Unpickled as usual, it makes a folder named `exploded` where the process stands."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def stage(name: str, folder: str) -> None:
    """A stage as its process runs it, exit code and all."""
    os.chdir(folder)
    made = runner.load_stage(name)
    arguments = entry.parser(name, made.reads, "").parse_args([])
    process.run(name, lambda: runner.run_stage(made, entry.context(name, made.reads, arguments)))


def warm() -> None:
    """Imports what the model backends import, so that a child of the nursery need not."""
    for name in (
        "groundingdino.datasets.transforms",
        "groundingdino.models",
        "segment_anything",
        "transformers.models.bert.modeling_bert",
        "transformers.models.grounding_dino.modeling_grounding_dino",
        "transformers.models.swin.modeling_swin",
    ):
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        for name in ("detect", "segment"):
            with contextlib.chdir(folder), contextlib.suppress(SystemExit):
                stage(name, folder)


@pytest.fixture(scope="module")
def young():
    with nursery("faults.test_weights_in_stages:warm") as made:
        yield made


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder in which everything up to segment has run without a model, and good weights of both stages."""
    folder = tmp_path_factory.mktemp("prepared")
    make_collection(folder / "collection", 2)
    write_params(folder / "params.yaml", folder / "collection", ingest__shards=1)
    for name in ("ingest", "parse", "detect"):
        in_process(name, folder)
    convert_detect(grounding_dino_pth(folder / "dino" / "small.pth"), folder / "detect", "small")
    convert_segment(sam_pth(folder / "sam" / "small.pth"), folder / "segment", "small")
    return folder


@pytest.fixture
def there(prepared, tmp_path) -> Path:
    """A working folder of its own over the same data; `detect` and `segment` in it may be spoilt."""
    for name in ("collection", "data", "detect", "segment"):
        shutil.copytree(prepared / name, tmp_path / name, copy_function=os.link)
    for name in ("detect", "segment"):
        for file in (tmp_path / name).iterdir():  # links, so that what is not spoilt costs nothing; these will be
            content = file.read_bytes()
            file.unlink()
            file.write_bytes(content)
    return tmp_path


BACKENDS = [("detect", "transformers"), ("detect", "groundingdino"), ("segment", "sam")]


def given(folder: Path, name: str, backend: str, path: Path) -> None:
    write_params(
        folder / "params.yaml", folder / "collection", **{f"{name}__backend": backend, f"{name}__path": str(path)}
    )


def refused(young, folder: Path, name: str, *says: str) -> None:
    """The stage ends with exit 3 and one line that says each of these, no traceback, nothing blown up or written."""
    ended = young.run("faults.test_weights_in_stages:stage", name, folder)
    said = ended["said"]
    assert (ended["code"], ended["signal"]) == (3, 0), said
    lines = [line for line in said.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith(f"{name}: ") and "Traceback" not in said, said
    assert all(text in said for text in says), said
    assert json.loads((folder / f".run/{name}.exit.json").read_text())["code"] == 3
    assert not list(folder.rglob("exploded")) and not (folder / f"metrics/small/{name}.json").exists()


def spoil_state(file: Path, change: Callable[[dict], dict]) -> None:
    state = load_file(file)
    file.unlink()
    save_file(change(state), file)


def with_nan(state: dict) -> dict:
    key = next(key for key, value in sorted(state.items()) if value.dim() > 1 and value.is_floating_point())
    state[key].view(-1)[7] = float("nan")
    return state


def without_one(state: dict) -> dict:
    state.pop(next(key for key in sorted(state) if key.endswith("weight")))
    return state


def with_one_more(state: dict) -> dict:
    return state | {"another.head.weight": torch.zeros(3)}


def with_a_shape(state: dict) -> dict:
    key = next(key for key, value in sorted(state.items()) if key.endswith("weight") and value.dim() == 2)
    return state | {key: torch.zeros(3, 5)}


@pytest.mark.fault("F50")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_nan, "NaN"),
        (without_one, "missing"),
        (with_one_more, "another.head.weight"),
        (with_a_shape, "of another shape"),
    ],
)
@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_weights_that_do_not_fit(young, there, name, backend, change, says):
    spoil_state(there / name / WEIGHTS, change)
    given(there, name, backend, there / name)
    refused(young, there, name, f"{name}/{WEIGHTS}", says)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def cut_in_its_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def a_page(file: Path) -> None:
    file.write_text("<!DOCTYPE html><html><body>404</body></html>")


def lying_header(file: Path) -> None:
    """A header that says the first tensor lies a petabyte into the file."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    name = next(key for key in header if key != "__metadata__")
    header[name]["data_offsets"] = [1 << 50, (1 << 50) + 4]
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def endless_header(file: Path) -> None:
    file.write_bytes(struct.pack("<Q", 1 << 62) + file.read_bytes()[8:])


def a_bomb(file: Path) -> None:
    with file.open("wb") as handle:
        pickle.dump({"model": Bomb()}, handle)


def a_zipped_bomb(file: Path) -> None:
    torch.save({"model": Bomb()}, file)


@pytest.mark.fault("F50")
@pytest.mark.parametrize(
    "damage", [cut, cut_in_its_header, emptied, a_page, lying_header, endless_header, a_bomb, a_zipped_bomb]
)
@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_a_weights_file_that_is_damaged_or_none(young, there, name, backend, damage):
    damage(there / name / WEIGHTS)
    given(there, name, backend, there / name)
    refused(young, there, name, f"{name}/{WEIGHTS}")


@pytest.mark.fault("F50")
@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_the_weights_of_another_model(young, there, name, backend):
    other = {"detect": "segment", "segment": "detect"}[name]
    given(there, name, backend, there / other)
    refused(young, there, name, f"{other}/config.json", "weights list")
    # With a config that hides it, the tensors tell.
    shutil.copyfile(there / other / WEIGHTS, there / name / WEIGHTS)
    given(there, name, backend, there / name)
    refused(young, there, name, f"{name}/{WEIGHTS}")


@pytest.mark.fault("F50")
@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_the_config_of_another_shape(young, there, name, backend):
    file = there / name / "config.json"
    config = json.loads(file.read_text())
    if name == "detect":
        config["encoder_layers"] += 1
    else:
        config["encoder"]["depth"] += 1
    file.write_text(json.dumps(config))
    given(there, name, backend, there / name)
    refused(young, there, name, f"{name}/{WEIGHTS}", "missing")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_type": "bert"}', '{"model_type": 7}'])
@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_a_config_that_is_none(young, there, name, backend, text):
    (there / name / "config.json").write_text(text)
    given(there, name, backend, there / name)
    refused(young, there, name, f"{name}/config.json")


@pytest.mark.fault("F50")
@pytest.mark.parametrize("damage", [a_bomb, a_zipped_bomb])
@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_a_pickle_in_place_of_a_folder(young, there, name, backend, damage):
    """A .pth is converted once, never loaded by a stage: alone in its folder or as the path itself."""
    (there / "raw").mkdir()
    damage(there / "raw" / "official.pth")
    for path in (there / "raw", there / "raw" / "official.pth"):
        given(there, name, backend, path)
        refused(young, there, name, "config.json", "weights convert")


@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_no_folder_and_an_empty_one(young, there, name, backend):
    (there / "empty").mkdir()
    given(there, name, backend, there / "empty")
    refused(young, there, name, "empty: no config.json", "weights list")
    given(there, name, backend, there / "none")
    refused(young, there, name, "none: no such file or folder")


@pytest.mark.parametrize("backend", ["transformers", "groundingdino"])
@pytest.mark.parametrize("text", [None, "", "[CLS]\n[SEP]\n.\n?\n", "\xff\xfe"])
def test_a_vocabulary_that_is_not_the_models(young, there, backend, text):
    for file in (there / "detect").glob("*tok*"):
        file.unlink()
    vocabulary = there / "detect" / "vocab.txt"
    vocabulary.unlink()
    if text is not None:
        vocabulary.write_bytes(text.encode("latin-1"))
    given(there, "detect", backend, there / "detect")
    refused(young, there, "detect", "vocab")


@pytest.mark.fault("F50")
@pytest.mark.parametrize(("name", "backend"), [BACKENDS[0], BACKENDS[2]])
def test_as_processes_of_their_own(there, name, backend):
    """Once without the nursery: what a user sees."""
    cut(there / name / WEIGHTS)
    given(there, name, backend, there / name)
    ended = run_stage(name, there)
    assert ended.returncode == 3 and "cut short or damaged" in ended.stderr, ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1 and not ended.stdout
