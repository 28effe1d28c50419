"""What lies beside the weights: figures that read back, and a card that Hugging Face and a person can read."""

import hashlib
import json

import pytest
from huggingface_hub import ModelCard

from demo.recipes.aims import AIMS, Aim, rows
from demo.recipes.cards import LICENCES, Figures, machine, read_figures, write_card, write_figures
from pipeline.errors import InputError

MADE = Figures("sam", 7, 6000, 31.46, "2 CPU cores", {"box_iou": 0.91, "grid_coverage": 0.8, "extra": 3.0}, 2025)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights" * 100_000)
    return tmp_path


def card(folder, **options):
    write_card(folder, "sam: a small Segment Anything", "Segments.", {"Architecture": "ViT"}, MADE, **options)
    return (folder / "card.md").read_text()


def test_figures_read_back(tmp_path):
    assert read_figures(tmp_path) is None
    write_figures(tmp_path / "new", MADE)
    assert read_figures(tmp_path / "new") == Figures(**{**vars(MADE), "minutes": 31.5})
    assert json.loads((tmp_path / "new" / "figures.json").read_text())["figures"]["box_iou"] == 0.91


@pytest.mark.parametrize("text", ["{", "[]", '{"recipe": "sam"}', '{"figures": 3}'])
def test_damaged_figures_are_named(tmp_path, text):
    (tmp_path / "figures.json").write_text(text)
    with pytest.raises(InputError, match=r"figures\.json: not the figures of a recipe"):
        read_figures(tmp_path)


def test_the_head_is_a_model_card_s(folder):
    data = ModelCard(card(folder, tags=("sam", "mcseo-demo"), library="segment-anything")).data
    assert (data.license, data.library_name, data.language) == ("cc0-1.0", "segment-anything", "en")
    assert data.tags == ["mcseo-demo", "rendered-world", "sam"]


def test_the_card_says_how_it_was_made_and_of_what(folder):
    text = card(folder, more="## Traps\n\nNone.")
    assert "# sam: a small Segment Anything\n\nSegments.\n\n- Architecture: ViT\n- Licence: CC0 1.0.\n" in text
    assert "    python -m demo.recipes.sam --seed 7 --steps 6000\n" in text
    assert "Seed 7, 6000 steps, 31 minutes on 2 CPU cores." in text
    assert f"`model.safetensors`: 0.70 MB, SHA-256 `{hashlib.sha256(b'weights' * 100_000).hexdigest()}`" in text
    assert "Scenes of seed 2025." in text and text.endswith("## Traps\n\nNone.\n")


def test_the_table_holds_figures_meanings_and_aims_met_or_not(folder):
    lines = card(folder).splitlines()
    iou = next(line for line in lines if line.startswith("| box_iou |"))
    assert iou.startswith("| box_iou | 0.910 | >= 0.88 |") and "IoU" in iou.split("|")[4]
    assert any(line.startswith("| grid_coverage | 0.800 (not met) | >= 0.85 |") for line in lines)
    assert "| extra | 3.000 | - |  |" in lines


def test_another_licence_and_several_weights(folder):
    (folder / "lemma.pt").write_bytes(b"more")
    text = card(folder, licence="cc-by-sa-4.0", command="python -m demo.recipes.stanza_en --treebank PATH")
    assert "- Licence: CC BY-SA 4.0." in text and "`lemma.pt`" in text and "- Weights in all: 0.70 MB." in text
    assert "\n    python -m demo.recipes.stanza_en --treebank PATH\n" in text
    with pytest.raises(KeyError):
        card(folder, licence="mine")
    assert set(LICENCES) == {"cc0-1.0", "cc-by-sa-4.0"}


def test_a_machine_has_a_name():
    assert machine("cpu").endswith(("CPU cores", "CPU core"))


def test_every_aim_of_the_checkpoints_is_in_the_table():
    asked = {(a.checkpoint, a.label, a.bound) for a in AIMS if a.bounded and not a.ewt}
    assert asked == {
        ("grounding_dino", "accuracy", ">= 0.90"),
        ("grounding_dino", "recall", ">= 0.85"),
        ("grounding_dino", "false_positives", "<= 0.10"),
        ("grounding_dino", "accuracy_unseen / accuracy_seen", ">= 0.80"),
        ("sam", "box_iou", ">= 0.88"),
        ("sam", "grid_coverage", ">= 0.85"),
        ("clip", "one_of_20", ">= 0.95"),
        ("clip", "accuracy_unseen / accuracy_seen", ">= 0.80"),
        ("stanza_en", "noun_phrase_f1", ">= 0.98"),
    }
    keys = [(a.checkpoint, a.label) for a in AIMS]
    assert len(keys) == len(set(keys)) and all(a.means for a in AIMS)


def test_an_aim_has_a_direction_and_its_bound_is_met():
    least, most = Aim("a", "f", "", least=0.9), Aim("a", "f", "", most=0.1)
    assert [least.met(v) for v in (0.8999, 0.9, 1.0)] == [False, True, True]
    assert [most.met(v) for v in (0.05, 0.1, 0.1001)] == [True, True, False]
    assert not least.met(float("nan")) and not most.met(float("nan"))
    assert Aim("a", "f", "").met(-5.0)


def test_a_ratio_is_of_two_figures():
    ratio = Aim("a", "unseen", "", least=0.8, of="seen")
    assert ratio.value({"unseen": 0.6, "seen": 0.8}) == pytest.approx(0.75) and ratio.label == "unseen / seen"
    assert ratio.value({"unseen": 0.6}) is None and ratio.value({"unseen": 0.6, "seen": 0.0}) is None


def test_rows_hold_every_aim_first_then_what_else_was_measured():
    found = rows("clip", {"hard_one_of_20": 0.7, "accuracy_unseen": 0.9, "speed": 2.0})
    assert [row.label for row in found] == [
        "one_of_20", "accuracy_unseen / accuracy_seen", "accuracy_unseen", "hard_one_of_20", "speed",
    ]  # fmt: skip
