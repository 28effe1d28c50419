from pathlib import Path

import pytest
from vision import sam_pth, small_sam

from stages.segment.convert import convert


@pytest.fixture(scope="session")
def pth(tmp_path_factory) -> Path:
    """The official checkpoint of a small SAM."""
    return sam_pth(tmp_path_factory.mktemp("sam") / "sam.pth")


@pytest.fixture(scope="session")
def weights(pth) -> Path:
    """The same as a weights folder."""
    folder = pth.parent / "sam-small"
    convert(pth, folder, "small")
    return folder


@pytest.fixture(scope="session")
def official():
    """segment-anything's own model with the same weights."""
    return small_sam()
