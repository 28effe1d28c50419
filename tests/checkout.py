"""A temporary checkout: the project's own code and dvc.yaml over a small collection, under git and DVC."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from small import ROOT, environment, make_collection, write_params

COPIED = ("pipeline", "stages", "model", "dvc.yaml", "requirements.lock", ".dvcignore", "presets")
SHARDED = ("ingest", "parse", "detect", "segment", "embed", "align")


def make_checkout(folder: Path, images: int = 16, **changes: object) -> Path:
    """A git and DVC working tree in `folder` with a small collection inside; nothing has run yet."""
    folder.mkdir(parents=True, exist_ok=True)
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=skip)
        else:
            shutil.copyfile(source, folder / name)
    for name in ("vision_random", "bert_tiny"):
        shutil.copytree(ROOT / "demo/checkpoints" / name, folder / "demo/checkpoints" / name)
    shutil.copytree(ROOT / "demo/world/sts", folder / "sts")
    (folder / ".dvc").mkdir()
    shutil.copyfile(ROOT / ".dvc/config", folder / ".dvc/config")
    shutil.copyfile(ROOT / ".gitignore", folder / ".gitignore")
    make_collection(folder / "collection", images)
    defaults = {
        "grid__recipes": ["untrained", "mcseo"],
        "train__max_steps": 4,
        "train__eval_every": 2,
        "train__batch_size": 8,
        "evaluate__path": "sts",
        "report__gallery": 5,
        "quality__gold_path": "presets/no_gold.json",
    }
    write_params(folder / "params.yaml", Path("collection"), base=folder, **(defaults | changes))
    run(folder, "git", "init", "-q")
    run(folder, "git", "add", "-A")
    commit(folder, "start")
    return folder


def run(folder: Path, *command: str, check: bool = True, env: dict | None = None) -> subprocess.CompletedProcess:
    """Runs a command in a checkout; its own code comes first on the path. Output is text, stderr merged into stdout."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=checkout_environment(folder, env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert not check or done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-3000:]}"
    return done


def dvc(folder: Path, *arguments: str, **kwargs) -> str:
    return run(folder, sys.executable, "-m", "dvc", *arguments, **kwargs).stdout


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "-A")
    run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", message, "--allow-empty")


def clone(source: Path, target: Path) -> Path:
    run(source, "git", "clone", "-q", str(source), str(target))
    return target


def checkout_environment(folder: Path, extra: dict | None = None) -> dict:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return environment({"PYTHONPATH": str(folder), "PATH": path, "DVC_NO_ANALYTICS": "1", **(extra or {})})
