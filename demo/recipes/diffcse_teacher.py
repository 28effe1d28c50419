"""The DiffCSE teacher of the recipe dalr: `python -m demo.recipes.diffcse_teacher` (after bert_tiny).

Also writes `generator` beside it: the masked language model that fills tokens for the recipe diffcse, here and in runs
of one's own.
"""

from demo.recipes.command import run
from demo.recipes.text_teacher import make, write_generator

SETTINGS = {"batch_size": 64, "learning_rate": 5e-4, "max_length": 48, "eval_every": 100}
STEPS = 600


def main() -> None:
    made = make(__doc__, "diffcse", SETTINGS, STEPS)
    write_generator(made.start, made.out.parent / "generator")


if __name__ == "__main__":
    run(main)
