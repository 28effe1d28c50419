"""What lies beside the weights of a checkpoint: `figures.json` for programs, `card.md` for people.

figures = Figures("sam", seed=1, steps=6000, minutes=31.5, machine=machine("cpu"), figures={"box_iou": 0.9})
write_figures(folder, figures)
write_card(folder, "sam: a small Segment Anything", "What it is, in a paragraph.", {"Architecture": "..."}, figures)
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demo.recipes.aims import rows
from demo.recipes.heldout import FIGURES_SEED
from pipeline.errors import InputError
from pipeline.files import sha256_file

WEIGHTS = (".safetensors", ".pt", ".pth")
LICENCES = {"cc0-1.0": "CC0 1.0", "cc-by-sa-4.0": "CC BY-SA 4.0"}  # as Hugging Face names them: as people do
TAGS = ("mcseo-demo", "rendered-world")


@dataclass(frozen=True)
class Figures:
    """How a checkpoint was made and what it reached on scenes it never saw.

    `minutes` is wall time, `figures_seed` the seed of the fresh scenes that `figures` were measured on.
    """

    recipe: str
    seed: int
    steps: int
    minutes: float
    machine: str
    figures: dict[str, float]
    figures_seed: int | None = None


def machine(device: str) -> str:
    """The device a recipe ran on, in words: as many CPU cores as torch uses, or the accelerator's name."""
    import torch

    if str(device).startswith("cuda"):
        return torch.cuda.get_device_name(str(device))
    cores = torch.get_num_threads()
    return f"{cores} CPU cores" if cores != 1 else "1 CPU core"


def write_figures(folder: Path, figures: Figures) -> None:
    """`figures.json`; figures are rounded to four decimals."""
    stated = asdict(figures) | {
        "minutes": round(figures.minutes, 1),
        "figures": {name: round(float(value), 4) for name, value in figures.figures.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")


def finish_folder(
    recipe: str,
    args: argparse.Namespace,
    minutes: float,
    measured: dict[str, float],
    title: str,
    about: str,
    facts: dict[str, str],
    **card: Any,
) -> None:
    """Writes `figures.json` and `card.md` beside the weights in `args.out`, and prints the figures.

    Args:
        args: the recipe's options (`demo.recipes.command.options`).
        measured: on scenes of FIGURES_SEED.
        card: what else `write_card` takes.
    """
    made = Figures(recipe, args.seed, args.steps, minutes, machine(args.device), measured, FIGURES_SEED)
    write_figures(args.out, made)
    write_card(args.out, title, about, facts, made, **card)
    print(", ".join(f"{name} {value:.3f}" for name, value in measured.items()))


def read_figures(folder: Path) -> Figures | None:
    """What `write_figures` wrote; None where there is no `figures.json`.

    Raises:
        InputError: the file is damaged or lacks something.
    """
    path = folder / "figures.json"
    if not path.exists():
        return None
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        known = {name: stated[name] for name in Figures.__dataclass_fields__ if name != "figures_seed"}
        known["figures"] = {name: float(value) for name, value in known["figures"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not the figures of a recipe ({error!r}); write it again with the recipe") from error
    return Figures(**known, figures_seed=stated.get("figures_seed"))


def write_card(
    folder: Path,
    title: str,
    about: str,
    facts: dict[str, str],
    figures: Figures,
    *,
    licence: str = "cc0-1.0",
    library: str = "transformers",
    tags: Sequence[str] = (),
    command: str | None = None,
    more: str = "",
) -> None:
    """`card.md`: what the checkpoint is, how it was made, what it reaches. To be called when the weights are written.

    Args:
        about: Markdown, a paragraph or two.
        facts: name -> one line of Markdown, told as a list.
        licence: an identifier of Hugging Face's, one of LICENCES.
        library: what loads the weights (`library_name` of the card's head).
        command: what makes it again; `python -m demo.recipes.RECIPE --seed SEED --steps STEPS` unless given.
        more: Markdown to follow the figures.

    Raises:
        KeyError: `licence` is none of LICENCES.
    """
    command = command or f"python -m demo.recipes.{figures.recipe} --seed {figures.seed} --steps {figures.steps}"
    made = (
        f"Seed {figures.seed}, {figures.steps} steps, {figures.minutes:.0f} minutes on {figures.machine}. "
        "Trained on nothing but what `demo/` renders and writes, unless it is said above."
    )
    parts = [
        _head(licence, library, [*TAGS, *tags]),
        f"# {title}",
        about.strip(),
        _facts(facts, licence, folder),
        f"## Made by\n\n    {command}\n\n{made}",
        f"## Figures on unseen scenes\n\n{_table(figures)}",
        more.strip(),
    ]
    (folder / "card.md").write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def _head(licence: str, library: str, tags: Sequence[str]) -> str:
    """The YAML head of a Hugging Face model card."""
    listed = "".join(f"- {json.dumps(tag)}\n" for tag in dict.fromkeys(tags))
    return f"---\nlicense: {licence}\nlibrary_name: {json.dumps(library)}\nlanguage: en\ntags:\n{listed}---"


def _facts(facts: dict[str, str], licence: str, folder: Path) -> str:
    """A list: what is told, the licence, each file of weights, and their size in all."""
    lines = [f"- {name}: {text}" for name, text in facts.items()] + [f"- Licence: {LICENCES[licence]}."]
    files = sorted(path for path in folder.iterdir() if path.suffix in WEIGHTS)
    for path in files:
        lines.append(f"- `{path.name}`: {path.stat().st_size / 1e6:.2f} MB, SHA-256 `{sha256_file(path)}`.")
    if len(files) > 1:
        lines.append(f"- Weights in all: {sum(path.stat().st_size for path in files) / 1e6:.2f} MB.")
    return "\n".join(lines)


def _table(figures: Figures) -> str:
    lines = ["| figure | reached | aim | what it means |", "|---|---|---|---|"]
    for aim in rows(figures.recipe, figures.figures):
        value = aim.value(figures.figures)
        if value is None:
            reached = "not measured"
        else:
            reached = f"{value:.3f}" + (" (not met)" if aim.bounded and not aim.met(value) else "")
        lines.append(f"| {aim.label} | {reached} | {aim.bound} | {aim.means} |")
    seed = "" if figures.figures_seed is None else f" Scenes of seed {figures.figures_seed}."
    return "\n".join(lines) + f"\n\n`python -m demo.recipes.check` measures them again.{seed}"
