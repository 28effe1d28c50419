"""weights convert, and get where it converts: pickles become safetensors once, or are refused; none runs its code."""

import hashlib
import json
import random
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from web import PAGE

STORE = Path("weights/.store")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def call(tmp_path, monkeypatch, command):
    """Runs `weights ...` in an empty folder; gives its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: command(tmp_path, "weights", *arguments)


class Bomb:
    """Leaves a file behind when it is unpickled by a reader that runs code."""

    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


@pytest.fixture
def clip(tmp_path) -> Path:
    """A tiny CLIP as old checkpoints are: pickled, with the counters that no model of today stores."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=tower | {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1},
        vision_config=tower | {"image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    folder = tmp_path / "clip"
    config.save_pretrained(folder)
    state = CLIPModel(config).state_dict() | {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "vocab.json").write_text("{}")
    return folder


CONVERTER = ("stages.common.repack", "CLIPModel")


def test_pickled_weights_become_safetensors_once(call, enter, site, clip):
    files = {path.name.replace(".", "__"): path.read_bytes() for path in sorted(clip.iterdir(), reverse=True)}
    enter(converter=CONVERTER, **{"pytorch_model__bin": files.pop("pytorch_model__bin")}, **files)
    assert call("get", "tiny")[:2] == (0, "tiny: in weights/tiny\n")
    made = Path("weights/tiny")
    assert {path.name for path in made.iterdir()} == {"config.json", "model.safetensors", "vocab.json"}
    stated, now = torch.load(clip / "pytorch_model.bin", weights_only=True), load_file(made / "model.safetensors")
    assert set(stated) - set(now) == {"text_model.embeddings.position_ids"}
    assert all(torch.equal(stated[key], tensor) for key, tensor in now.items())
    from transformers import AutoModel

    _, info = AutoModel.from_pretrained(made, local_files_only=True, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert call("verify")[:2] == (0, "tiny: ok, 3 files\n")
    original = STORE / digest((clip / "pytorch_model.bin").read_bytes())
    original.write_bytes(original.read_bytes()[:-1])
    code, out, _ = call("verify")
    assert code == 3 and f"{original} (pytorch_model.bin) is damaged" in out


def test_a_checkpoint_of_ones_own_is_converted_and_said_to_be_so(call, enter, clip):
    official = (clip / "pytorch_model.bin").read_bytes()
    enter(converter=CONVERTER, pytorch_model__bin=official, config__json=(clip / "config.json").read_bytes())
    state = torch.load(clip / "pytorch_model.bin", weights_only=True)
    state["logit_scale"] = torch.tensor(1.5)
    torch.save(
        {"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}, "epoch": 3}, clip / "tuned.pth"
    )
    code, out, _ = call("convert", "clip/tuned.pth", "--as", "tiny", "--to", "mine/tuned")
    assert (code, out) == (0, "tiny: in mine/tuned; clip/tuned.pth is not the official file of that name\n")
    assert load_file("mine/tuned/model.safetensors")["logit_scale"] == 1.5
    assert call("convert", "clip/tuned.pth", "--as", "tiny")[0] == 0
    assert "note: made of tuned.pth, which is not the official file" in call("verify")[1]
    code, _, err = call("convert", "clip/tuned.pth", "--as", "tiny")
    assert code == 3 and "weights/tiny: is there; delete it" in err
    call("convert", "clip/pytorch_model.bin", "--as", "tiny", "--to", "official")
    assert json.loads(Path("weights/pins.json").read_text())["folders"]["official"]["from"]["official"] is True
    torch.save(state, clip / "pytorch_model.bin")
    code, _, err = call("convert", "clip/pytorch_model.bin", "--as", "tiny", "--to", "third")
    assert code == 3 and "rename it if it is your own" in err and not Path("third").exists()
    assert call("convert", "clip/tuned.pth", "--as", "minilm")[0] == 2
    assert call("convert", "nowhere.pth", "--as", "tiny")[0] == 3


def broken(clip: Path, how: str) -> bytes | dict:
    state = torch.load(clip / "pytorch_model.bin", weights_only=True)
    match how:
        case "truncated":
            return (clip / "pytorch_model.bin").read_bytes()[:-2000]
        case "web page":
            return PAGE
        case "pickle bomb":
            return {"model": Bomb()}
        case "bomb among tensors":
            return state | {"args": Bomb()}
        case "not tensors":
            return state | {"name": "clip"}
        case "wrong architecture":
            return {"layer.weight": torch.ones(2, 2)}
        case "other shape":
            return state | {"logit_scale": torch.ones(3)}
        case "missing":
            return {key: tensor for key, tensor in state.items() if "visual_projection" not in key}
        case "unexpected":
            return state | {"head.weight": torch.ones(2)}
        case "NaN":
            return state | {"logit_scale": torch.tensor(float("nan"))}


FAULTS = {
    "truncated": "is cut short or damaged",
    "web page": "is a text or web page",
    "pickle bomb": r"wants to run code \(pathlib.Path.touch\) and is refused|wants to run code",
    "bomb among tensors": "wants to run code",
    "not tensors": r"holds what is not a tensor: name \(str\)",
    "wrong architecture": r"\d+ missing \(.* and \d+ more\); 1 unexpected \(layer.weight\)",
    "other shape": r"1 of another shape \(logit_scale \[3\] for \[\]\)",
    "missing": r"1 missing \(visual_projection.weight\)",
    "unexpected": r"1 unexpected \(head.weight\)",
    "NaN": "NaN or infinity in the weights: logit_scale",
}


@pytest.mark.fault("F50")
@pytest.mark.parametrize("how", FAULTS)
def test_a_checkpoint_that_is_not_one_is_refused_in_one_line(call, enter, clip, how, tmp_path):
    enter(converter=CONVERTER, pytorch_model__bin=b"x", config__json=(clip / "config.json").read_bytes())
    made = broken(clip, how)
    file = clip / "got.pth"
    file.write_bytes(made) if isinstance(made, bytes) else torch.save(made, file)
    code, out, err = call("convert", "clip/got.pth", "--as", "tiny")
    assert (code, out) == (3, "")
    assert err.count("\n") == 1 and err.startswith("clip/got.pth: ")
    assert re.search(FAULTS[how], err), err
    assert not list(tmp_path.rglob("exploded")), "code of the file ran"
    assert not Path("weights/tiny").exists() and not Path("weights/.work").exists()


def test_the_bomb_would_go_off_where_code_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Bomb(), "bomb.pth")
    torch.load("bomb.pth", weights_only=False)  # what the test above would not see otherwise
    assert Path("exploded").exists()


def test_what_a_conversion_lacks_is_got_or_asked_for(call, enter, site, clip):
    entry = enter(converter=CONVERTER, pytorch_model__bin=b"x", config__json=(clip / "config.json").read_bytes())
    (clip / "pytorch_model.bin").rename("own.bin")
    assert call("convert", "own.bin", "--as", "tiny", "--to", "fetched")[0] == 0
    assert [path for path, *_ in site.asked] == ["/tiny/config.json"]
    for path in STORE.glob("?" * 64):
        path.unlink()
    site.close()
    code, _, err = call("convert", "own.bin", "--as", "tiny", "--to", "other")
    assert code == 3 and f"fetch {entry.files[1].urls[0]}" in err and "then run this again" in err
    Path("config.json").write_bytes((clip / "config.json").read_bytes())
    assert call("convert", "own.bin", "--as", "tiny", "--to", "other")[0] == 0, "what lies beside the file is taken"


def test_get_names_the_file_that_does_not_fit(call, enter, clip):
    data = b"PK" + random.Random(0).randbytes(500)
    enter(converter=CONVERTER, pytorch_model__bin=data, config__json=(clip / "config.json").read_bytes())
    code, _, err = call("get", "tiny")
    assert code == 3 and err.splitlines()[-1].startswith(f"pytorch_model.bin (weights/.store/{digest(data)}): is ")
    assert not Path("weights/tiny").exists() and not Path("weights/.work").exists()
