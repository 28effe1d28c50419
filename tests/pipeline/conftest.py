"""A finished dataset for the tests of the commands, and a way to call them; a server that weights are got from."""

import hashlib
import shutil
from pathlib import Path

import pytest
from checkout import SHARDED, dvc, make_checkout
from ruamel.yaml import YAML
from small import in_process
from web import Site

from pipeline import cli
from pipeline.weights import download, manifest
from pipeline.weights.manifest import File, Weights


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A checkout with dataset `small` up to align, in DVC's cache too. Not to be changed: see `mine`.

    A caption keeps one pair, so that there are drops.
    """
    folder = make_checkout(tmp_path_factory.mktemp("finished") / "checkout", align__max_per_caption=1)
    file = folder / "dvc.yaml"
    graph = YAML(typ="safe").load(file.read_text())
    file.write_text("")
    graph = {"stages": {name: graph["stages"][name] for name in SHARDED}}
    with file.open("w") as handle:
        YAML().dump(graph, handle)
    for name in SHARDED:
        in_process(name, folder)
    dvc(folder, "commit", "-f", "-q")
    return folder


@pytest.fixture
def mine(finished, tmp_path) -> Path:
    """A copy of `finished` to damage."""
    return Path(shutil.copytree(finished, tmp_path / "mine", symlinks=True))


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command line in a folder; gives its exit code, stdout and stderr."""

    def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return ended.value.code or 0, said.out, said.err

    return run


@pytest.fixture
def site(monkeypatch):
    """A server of files on loopback; downloads do not pause between tries."""
    monkeypatch.setattr(download, "_PAUSE_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(download.MIRROR, raising=False)
    made = Site()
    yield made
    made.close()


@pytest.fixture
def enter(site, monkeypatch):
    """Puts files on the server and an entry `tiny` for them into the manifest; hashes and sizes are known."""

    def make(name: str = "tiny", known: bool = True, converter=None, **files: bytes) -> Weights:
        contents = {key.replace("__", "."): data for key, data in files.items()}
        listed = tuple(
            File(
                file,
                (site.put(f"/{name}/{file}", data),),
                len(data) if known else None,
                hashlib.sha256(data).hexdigest() if known else None,
            )
            for file, data in contents.items()
        )
        entry = Weights(
            "a test", "MIT", "train.path", "here", Path("weights") / name, files=listed, converter=converter
        )
        monkeypatch.setitem(manifest.MANIFEST, name, entry)
        return entry

    return make
