"""What every checkpoint's held-out figures mean, and what they are to reach: the one table of it.

Figures are shares between 0 and 1 unless `means` says otherwise. `python -m demo.recipes.check` measures them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Aim:
    """What a figure of a checkpoint means, and its bound: `least`, `most`, or neither (told, but nothing is asked).

    With `of`, the bound is for this figure divided by that one. `ewt` marks what only the treebank can tell.
    """

    checkpoint: str
    figure: str
    means: str
    least: float | None = None
    most: float | None = None
    of: str | None = None
    ewt: bool = False

    @property
    def bounded(self) -> bool:
        return self.least is not None or self.most is not None

    @property
    def label(self) -> str:
        """The figure's name; a ratio names both."""
        return f"{self.figure} / {self.of}" if self.of else self.figure

    @property
    def bound(self) -> str:
        """The aim as it is printed; "-" where nothing is asked."""
        if self.least is not None:
            return f">= {self.least:.2f}"
        return f"<= {self.most:.2f}" if self.most is not None else "-"

    def value(self, figures: dict[str, float]) -> float | None:
        """The figure, or the ratio, out of a checkpoint's figures; None if it is not there (or divides by zero)."""
        if self.figure not in figures or (self.of is not None and not figures.get(self.of)):
            return None
        return figures[self.figure] / (figures[self.of] if self.of else 1)

    def met(self, value: float) -> bool:
        """Whether a value reaches the aim; what is not a number reaches none."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


_ACCURACY = "phrases of one object whose best box has IoU >= .5 with it"
_AMONG_20 = "crops whose own phrase scores highest among 20"
_UNSEEN = "what is left of the accuracy on colour-thing combinations that no vision recipe trained on"

AIMS: tuple[Aim, ...] = (
    Aim("grounding_dino", "accuracy", _ACCURACY, least=0.90),
    Aim("grounding_dino", "recall", "phrases of one object found (IoU >= .5) at the threshold", least=0.85),
    Aim("grounding_dino", "false_positives", "phrases of nothing shown that get a box at the threshold", most=0.10),
    Aim("grounding_dino", "accuracy_unseen", _UNSEEN, least=0.80, of="accuracy_seen"),
    Aim("grounding_dino", "accuracy_seen", "accuracy on combinations seen in training"),
    Aim("grounding_dino", "accuracy_unseen", "accuracy on combinations held out of training"),
    Aim("grounding_dino", "threshold", "score from which a box counts"),
    Aim("grounding_dino", "recall_several", "phrases of several objects whose best box is one of these"),
    Aim("grounding_dino", "false_things", "false_positives of phrases that name another thing"),
    Aim("grounding_dino", "false_attributes", "false_positives of phrases wrong in one attribute alone"),
    Aim("grounding_dino", "false_idle", "places, pictures and sides that get a box at the threshold"),
    Aim("sam", "box_iou", "mean IoU of the mask that a gold box prompts with the gold mask", least=0.88),
    Aim("sam", "grid_coverage", "objects that a mask of the automatic grid covers at IoU >= .75", least=0.85),
    Aim("sam", "box_iou_off", "the same for boxes that are somewhat off, as a detector's are"),
    Aim("sam", "box_iou_unseen", "box_iou of colour-thing combinations held out of training"),
    Aim("sam", "grid_masks", "masks that the automatic grid leaves of an image, a number"),
    Aim("sam", "min_predicted_iou", "the grid's threshold of the predicted IoU that was chosen"),
    Aim("sam", "min_stability", "the grid's threshold of stability that was chosen"),
    Aim("clip", "one_of_20", _AMONG_20, least=0.95),
    Aim("clip", "accuracy_unseen", _UNSEEN, least=0.80, of="accuracy_seen"),
    Aim("clip", "accuracy_seen", "one_of_20 of combinations seen in training"),
    Aim("clip", "accuracy_unseen", "one_of_20 of combinations held out of training"),
    Aim("clip", "hard_one_of_20", _AMONG_20 + ", the others differing in one attribute"),
    Aim("clip", "caption_one_of_20", "images whose own caption scores highest among 20"),
    Aim("stanza_en", "noun_phrase_f1", "exact spans of the noun phrases of world captions, F1", least=0.98),
    # What the parser reached on the treebank before the world's trees were added, less what another seed costs.
    Aim("stanza_en", "ewt_upos", "UPOS on the dev part of EWT, gold words", least=0.93, ewt=True),
    Aim("stanza_en", "ewt_las", "labelled attachment on the dev part of EWT, gold words", least=0.80, ewt=True),
    Aim("stanza_en", "noun_phrase_precision", "spans found that are exactly right"),
    Aim("stanza_en", "noun_phrase_recall", "spans of the gold trees that are found exactly"),
    Aim("stanza_en", "ewt_xpos", "XPOS on the dev part of EWT, gold words", ewt=True),
    Aim("stanza_en", "ewt_lemmas", "lemmas on the dev part of EWT, gold words", ewt=True),
    Aim("stanza_en", "ewt_uas", "unlabelled attachment on the dev part of EWT, gold words", ewt=True),
    Aim("bert_tiny", "masked_accuracy", "masked words of captions that are found; many cannot be known"),
    Aim("bert_tiny", "perplexity", "of masked words, not a share: 1 is certain and right"),
    Aim("simcse_teacher", "spearman", "rank correlation of cosines with the grades of fresh pairs of sentences"),
    Aim("diffcse_teacher", "spearman", "rank correlation of cosines with the grades of fresh pairs of sentences"),
)


def aims_of(checkpoint: str) -> list[Aim]:
    """The rows of a checkpoint, in the order of the table."""
    return [aim for aim in AIMS if aim.checkpoint == checkpoint]


def rows(checkpoint: str, figures: dict[str, float]) -> list[Aim]:
    """The rows of a checkpoint as `figures` fills them: those with an aim first, whether measured or not; then what
    else was measured, known or not."""
    known = aims_of(checkpoint)
    asked = [aim for aim in known if aim.bounded]
    told = [aim for aim in known if not aim.bounded and aim.figure in figures]
    named = {aim.figure for aim in known if aim.of is None}
    return asked + told + [Aim(checkpoint, name, "") for name in figures if name not in named]
