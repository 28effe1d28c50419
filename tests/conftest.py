import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

# Hooks: `fault` marks are collected here, and `--faults-table FILE` writes what came of them.
from faults.table import (  # noqa: E402, F401
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_runtest_logreport,
    pytest_sessionfinish,
)

# A shell that starts the tests in the background has SIGINT ignored in them, and in every process they start.
with contextlib.suppress(ValueError):
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real reference data beside the checkout (or MCSEO_SHARED); tests that need it skip without it."""
    folder = Path(os.environ.get("MCSEO_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no reference data at {folder}; set MCSEO_SHARED to the folder that holds data/ and golden/")
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A working folder with a small collection (24 images) and its params.yaml."""
    from small import make_collection, write_params

    make_collection(tmp_path / "collection", 24)
    write_params(
        tmp_path / "params.yaml", tmp_path / "collection", embed__path=str(ROOT / "demo/checkpoints/vision_random")
    )
    return tmp_path
