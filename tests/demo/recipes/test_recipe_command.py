"""What every recipe's command line does."""

import importlib
from pathlib import Path

import pytest

from demo.recipes.command import options, run
from pipeline.errors import InputError


def failing(error):
    def main():
        raise error

    return main


def test_bad_input_is_one_line_and_its_exit_code(capsys):
    with pytest.raises(SystemExit) as ended:
        run(failing(InputError("states/sam-1.pt: no state of this training; delete it to start anew")))
    assert ended.value.code == InputError.code
    assert capsys.readouterr().err.splitlines() == [
        "states/sam-1.pt: no state of this training; delete it to start anew"
    ]


def test_ctrl_c_says_how_to_go_on(capsys):
    with pytest.raises(SystemExit) as ended:
        run(failing(KeyboardInterrupt()))
    assert ended.value.code == 130 and "go on" in capsys.readouterr().err


def test_an_error_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run(failing(ZeroDivisionError()))


@pytest.mark.parametrize("name", ["bert_tiny", "clip", "sam", "grounding_dino"])
def test_a_recipe_has_the_shared_options(name):
    module = importlib.import_module(f"demo.recipes.{name}")
    given = options(module.__doc__, module.OUT, module.STEPS).parse_args(["--seed", "3", "--out", "there"])
    assert (given.seed, given.out, given.steps, given.device) == (3, Path("there"), module.STEPS, "cpu")
    assert options(module.__doc__, module.OUT, module.STEPS).parse_args([]).out.name == name
