"""Checkpoints: read whole and without running their code, loaded strictly, written whole or not at all."""

import argparse
import ast
import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from small import ROOT
from torch import nn

from pipeline.errors import InputError, ResourceError
from stages.common import checkpoints
from stages.common.checkpoints import check_finite, load_strict, read_config, read_state, write_folder


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# read_state


@pytest.mark.parametrize("kind", ["plain", "model", "state_dict", "nested", "old form", "with its command line"])
def test_every_usual_form_is_read(tmp_path, net, kind):
    state, path = net.state_dict(), tmp_path / "weights.pth"
    prefixed = {f"module.{key}": tensor for key, tensor in state.items()}
    whole = {
        "plain": state,
        "model": {"model": prefixed},
        "state_dict": {"state_dict": state, "epoch": 3, "lr": 0.1},
        "nested": {"state_dict": {"model": prefixed}},
        "old form": prefixed,
        "with its command line": {"model": state, "args": argparse.Namespace(lr=1.0, name="x")},
    }[kind]
    torch.save(whole, path, _use_new_zipfile_serialization=kind != "old form")
    assert equal(read_state(path), state)


def test_safetensors_are_read_whatever_they_are_called(tmp_path, net):
    for name in ("model.safetensors", "model.bin"):
        save_file(net.state_dict(), tmp_path / name)
        assert equal(read_state(tmp_path / name), net.state_dict())


class Bomb:
    """Leaves a file behind when it is unpickled by a reader that runs code."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def header(text: bytes, length: int | None = None, body: bytes = b"") -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


LONG = b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
SHORT = b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'
OVERLAP = (
    b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[2,10]}}'
)
REFUSED = {
    "nothing there": (None, "no such file"),
    "empty": (b"", "is empty"),
    "web page": (b"<!DOCTYPE html><html></html>", "is a text or web page"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a text or web page"),
    "noise": (bytes(range(1, 200)), "is not a checkpoint"),
    "zip of noise": (b"PK\x03\x04" + bytes(300), "is cut short or damaged"),
    "bomb": (Bomb(), r"wants to run code \(posix.mkdir\)"),
    "bomb under model": ({"model": {"w": torch.ones(2), "x": Bomb()}}, "wants to run code"),
    "bomb by pickle": (pickle.dumps(Bomb()), "is not a checkpoint"),
    "bomb by old pickle": (pickle.dumps({"model": Bomb()}, protocol=2), "wants to run code"),
    "whole module": (nn.Linear(2, 2), "wants to run code"),
    "not by name": ([torch.ones(2)], "holds a list, not tensors by name"),
    "one tensor": (torch.ones(2), "holds a Tensor, not tensors by name"),
    "numbers": ({"w": torch.ones(2), "steps": 7}, r"holds what is not a tensor: steps \(int\)"),
    "numbered": ({1: torch.ones(2)}, "holds what is not a tensor: a key 1"),
    "no tensors": ({}, "holds no tensors"),
    "one tensor twice": ({"w": torch.ones(2), "module.w": torch.zeros(2)}, "with and without `module.`"),
    "header too long": (header(b"{}", 2**60), "is cut short or damaged"),
    "header over the end": (header(LONG, 10**6), "is cut short or damaged"),
    "tensor over the end": (header(LONG, body=bytes(8)), "is cut short or damaged"),
    "shape is not size": (header(SHORT, body=bytes(4)), "is cut short or damaged"),
    "tensors overlap": (header(OVERLAP, body=bytes(10)), "is cut short or damaged"),
    "header is no JSON": (header(b"{]", body=bytes(8)), "is cut short or damaged"),
}


@pytest.mark.fault("F50")
@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_what_is_no_checkpoint_is_refused_in_one_line_and_nothing_runs(tmp_path, monkeypatch, what, name):
    monkeypatch.chdir(tmp_path)
    contents, says = REFUSED[what]
    path = tmp_path / name
    if isinstance(contents, bytes):
        path.write_bytes(contents)
    elif contents is not None:
        torch.save(contents, path)
    with pytest.raises(InputError, match=says if name.endswith("pth") else None) as raised:
        read_state(path)
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)
    assert "weights_only" not in str(raised.value), "how to read it unsafely is no advice"
    assert not (tmp_path / "exploded").exists()


def test_the_bomb_would_go_off_where_code_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Bomb(), "bomb.pth")
    torch.load("bomb.pth", weights_only=False)  # what the test above would not see otherwise
    assert (tmp_path / "exploded").is_dir()


def test_what_torch_refuses_stays_refused_after_a_good_file(tmp_path):
    """What is allowed while a file is read is allowed no longer afterwards."""
    torch.save({"model": {"w": torch.ones(1)}, "args": argparse.Namespace(x=1)}, tmp_path / "good.pth")
    read_state(tmp_path / "good.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "good.pth", weights_only=True)


@pytest.mark.fault("F50")
@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_a_file_cut_anywhere_is_refused(tmp_path, net, form):
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        path.write_bytes(save(net.state_dict()))
    else:
        torch.save(net.state_dict(), path, _use_new_zipfile_serialization=form == "zip")
    data = path.read_bytes()
    for end in range(0, len(data), max(len(data) // 40, 1)):
        path.write_bytes(data[:end])
        with pytest.raises(InputError):
            read_state(path)


# load_strict


def test_strict_loading_takes_all_and_keeps_dtype(net, tmp_path):
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(torch.bfloat16)
    load_strict(other, net.state_dict(), tmp_path)
    assert other[0].weight.dtype == torch.bfloat16
    assert torch.equal(other[0].weight, net[0].weight.bfloat16())
    with torch.device("meta"):
        built = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    load_strict(built, net.state_dict(), tmp_path)
    assert equal(built.state_dict(), net.state_dict())


@pytest.mark.fault("F50")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("0.bias"), r"1 missing \(0.bias\);"),
        (lambda s: s.update(extra=torch.ones(1)), r"1 unexpected \(extra\);"),
        (lambda s: s.update({"0.bias": torch.ones(7)}), r"1 of another shape \(0.bias \[7\] for \[4\]\);"),
        (lambda s: [s.pop(key) for key in list(s)], r"7 missing \(0.weight, 0.bias, 1.weight and 4 more\);"),
        (lambda s: s["0.weight"].fill_(float("nan")), "NaN or infinity in the weights: 0.weight;"),
        (lambda s: s["1.running_var"].fill_(float("inf")), "NaN or infinity in the weights: 1.running_var;"),
    ],
)
def test_what_does_not_fit_is_an_error_and_changes_nothing(net, tmp_path, change, says):
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    before = {key: tensor.clone() for key, tensor in state.items()}
    change(state)
    with pytest.raises(InputError, match=says) as raised:
        load_strict(net, state, tmp_path / "w.pth")
    assert str(raised.value).startswith(f"{tmp_path / 'w.pth'}: ") and "\n" not in str(raised.value)
    assert equal(net.state_dict(), before)


def test_whole_numbers_have_no_nan(tmp_path):
    check_finite({"steps": torch.tensor(3), "mask": torch.tensor([True])}, tmp_path)


# write_folder, read_config


def test_a_folder_is_written_and_read_back(tmp_path, net):
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    shared = torch.arange(6.0).view(2, 3)
    state = net.state_dict() | {"tied": net[0].weight, "turned": shared.T, "row": shared[1], "half": shared.half()}
    folder = tmp_path / "made/weights"
    write_folder(folder, state, {"b": 1, "a": "é"}, {"note": b"x", "vocab.txt": tmp_path / "vocab.txt"})
    assert equal(load_file(folder / "model.safetensors"), {k: v.detach().contiguous() for k, v in state.items()})
    assert equal(read_state(folder / "model.safetensors"), state)
    assert read_config(folder, "a test") == {"a": "é", "b": 1}
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in ("", ".txt")} == {
        "note": b"x",
        "vocab.txt": b"[PAD]\n",
    }
    assert [path.name for path in folder.parent.iterdir()] == ["weights"]
    with pytest.raises(InputError, match="is there already"):
        write_folder(folder, state, {}, {})


def test_equal_weights_make_equal_bytes(tmp_path, net):
    for name in ("one", "two"):
        write_folder(tmp_path / name, net.state_dict(), {"x": 1}, {})
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_an_empty_folder_is_filled(tmp_path, net):
    (tmp_path / "weights").mkdir()
    write_folder(tmp_path / "weights", net.state_dict(), {}, {})
    assert read_config(tmp_path / "weights", "a test") == {}


@pytest.mark.parametrize("failing", ["save_file", "_flush"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_half_a_folder_never_stays(tmp_path, net, monkeypatch, failing, error):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(checkpoints, failing, fail)
    kind = ResourceError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(kind):
        write_folder(tmp_path / "weights", net.state_dict(), {}, {})
    assert not list(tmp_path.iterdir())


def test_a_real_shortage_is_one_line(tmp_path):
    """A limit on the size of files stops the writer of the weights in the middle, as a full disk does."""
    code = f"""
import resource, torch
from pathlib import Path
from stages.common import checkpoints
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try: checkpoints.write_folder(Path({str(tmp_path / "w")!r}), {{"a": torch.ones(3000)}}, {{}}, {{}})
except checkpoints.ResourceError as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith(f"{tmp_path / 'w'}: cannot be written"), done.stderr
    assert done.stdout.count("\n") == 1 and not list(tmp_path.iterdir())


def test_whoever_reads_the_config_may_read_the_weights(tmp_path, net):
    write_folder(tmp_path / "weights", net.state_dict(), {}, {})
    modes = {path.stat().st_mode for path in (tmp_path / "weights").iterdir()}
    assert len(modes) == 1


def test_a_folder_that_lacks_its_config_says_what_to_do(tmp_path, net):
    with pytest.raises(InputError, match=r"no config.json of segment.path \(SAM\) here; .*weights list.*weights get"):
        read_config(tmp_path / "nowhere", "segment.path (SAM)")
    torch.save(net.state_dict(), tmp_path / "sam.pth")
    for given in (tmp_path, tmp_path / "sam.pth"):
        with pytest.raises(InputError, match=f"`python -m pipeline weights convert {tmp_path}/sam.pth --as NAME`"):
            read_config(given, "segment.path (SAM)")
    for text in ("{", "[1]", "\udcff"):
        (tmp_path / "config.json").write_text(text, errors="surrogateescape")
        with pytest.raises(InputError, match="config.json: (cannot be read|is not a JSON object)"):
            read_config(tmp_path, "segment.path (SAM)")
    (tmp_path / "config.json").write_text(json.dumps({"a": 1}))
    assert read_config(tmp_path, "segment.path (SAM)") == {"a": 1}


# The project


def calls(folder: str):
    """(file, the call, its dotted name) of every call in a folder's Python files."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield file.relative_to(ROOT).as_posix(), node, ast.unparse(node.func)


def test_pickles_are_opened_in_one_place_only():
    loads = [(file, call) for part in ("pipeline", "stages", "model") for file, call, name in calls(part)
             if name == "torch.load"]  # fmt: skip
    assert [file for file, _ in loads] == ["stages/common/checkpoints.py"]
    for part in ("pipeline", "stages", "model", "demo", "benchmarks"):
        for file, call, name in calls(part):
            assert not name.endswith(("torch.hub.load", "torch.jit.load", "load_state_dict_from_url")), file
            if name == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                assert given.get("weights_only") == "True", file
        for file in (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                taken = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
                assert not {"pickle", "dill", "joblib", "cloudpickle"} & {*names}, f"{file} imports {names}"
                assert not ("torch" in names and "load" in taken), file


def test_remote_code_is_never_trusted():
    for part in ("pipeline", "stages", "model", "demo", "benchmarks"):
        for file, call, _ in calls(part):
            for keyword in call.keywords:
                assert keyword.arg != "trust_remote_code" or ast.unparse(keyword.value) == "False", file
    for file in ROOT.glob("p*/**/*.yaml"):
        assert "trust_remote_code" not in file.read_text(encoding="utf-8"), file
