"""How well the text teachers rank pairs of sentences they never saw, and the model that fills tokens for diffcse."""

from pathlib import Path

from demo.recipes import figures_bert_tiny, text_teacher
from model.recipes import TEACHERS


def figures(folder: Path, seed: int, scenes: int) -> dict[str, float]:
    """`simcse_spearman`, `diffcse_spearman` (as many pairs as `scenes`), `generator_masked_accuracy`."""
    found = {
        f"{name}_spearman": text_teacher.figures(folder / name, seed, scenes)["spearman"]
        for name in TEACHERS
        if (folder / name).is_dir()
    }
    if (folder / "generator").is_dir():
        filled = figures_bert_tiny.figures(folder / "generator", seed, scenes)
        found["generator_masked_accuracy"] = filled["masked_accuracy"]
    return found
