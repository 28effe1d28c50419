from pathlib import Path

import pytest
from tiny_world import World, make


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make(tmp_path)


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the tiny dataset as it is."""
    from stages.report.stage import build

    made = make(tmp_path_factory.mktemp("tiny"))
    return build(made.params, made.places)
