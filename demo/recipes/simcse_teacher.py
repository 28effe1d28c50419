"""The SimCSE teacher of the recipe dalr: `python -m demo.recipes.simcse_teacher` (after bert_tiny)."""

from demo.recipes.command import run
from demo.recipes.text_teacher import make

SETTINGS = {"batch_size": 64, "learning_rate": 5e-4, "max_length": 48, "eval_every": 100}
STEPS = 1500

if __name__ == "__main__":
    run(lambda: make(__doc__, "simcse", SETTINGS, STEPS))
