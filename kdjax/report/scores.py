"""One score of a model, and how pages show it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

from kdjax.report import units


@dataclasses.dataclass(frozen=True)
class Score:
    """What a model has reached on the test examples.

    Attributes:
      value: the mean over the seeds.
      ci95: its 95 % interval: over seeds (`aggregate`) if there are several; of one seed over test sets
        of this size, where that is known.
      per_seed: the values behind the mean, in the order of the seeds; None of one seed.
      higher_is_better: False of an error.
      fraction: of 1, and shown in %.
    """

    value: float
    ci95: tuple[float, float] | None = None
    per_seed: tuple[float, ...] | None = None
    higher_is_better: bool = True
    fraction: bool = True

    @property
    def limits(self) -> tuple[float, float]:
        """Between which it lies: a fraction is one of 1, but an error rate may be above it."""
        if not self.fraction:
            return -math.inf, math.inf
        return 0.0, 1.0 if self.higher_is_better else math.inf

    @property
    def worth(self) -> float:
        """The value, or of an error its negative: the higher, the better."""
        return self.value if self.higher_is_better else -self.value

    @property
    def each(self) -> tuple[float, ...]:
        """The values of all seeds."""
        return self.per_seed or (self.value,)

    @property
    def shown(self) -> str:
        """`97.1 %`, or a number of three digits."""
        if self.fraction:
            return units.share(self.value)
        return units.fixed(self.value, units.decimals([self.value], most=4))

    @property
    def interval(self) -> str:
        """`96.2–97.9`, or a dash."""
        if self.fraction:
            return units.interval(self.ci95)
        if self.ci95 is None:
            return units.DASH
        places = units.decimals(self.ci95, most=4)
        return "–".join(units.fixed(end, places) for end in self.ci95)

    def change(self, difference: float) -> str:
        """A difference of two such scores: `+1.2 points`, or with the sign alone."""
        if self.fraction:
            return units.points(difference)
        places = units.decimals([self.value], most=4)
        return f"{difference:+,.{places}f}".replace("-", "−")


class Known(NamedTuple):
    """A score that pages explain: what it is called, and how it is found."""

    title: str
    meaning: str


KNOWN: Mapping[str, Known] = {
    "accuracy": Known(
        "accuracy",
        "Share of the test examples whose highest score is the right class. Below it the 95 %"
        " interval: Wilson's for the size of the test set where there is one seed, Student's t over"
        " the seeds where there are several. In the drawing, all rows share one scale; small upright"
        " lines are single seeds.",
    ),
    "recall_macro": Known(
        "recall", "Recall of each class, averaged over the classes with equal weight."
    ),
    "f1_macro": Known(
        "F1",
        "Harmonic mean of precision and recall of each class, averaged with equal weight.",
    ),
    "f1_micro": Known(
        "F1, micro", "Harmonic mean of precision and recall of all decisions, whatever their class."
    ),
    "f1_positive": Known(
        "F1, positive", "Harmonic mean of precision and recall of the second class."
    ),
    "matthews": Known(
        "Matthews",
        "Correlation of the predicted classes with the right ones: 0 is what chance gives, 1 the best.",
    ),
    "exact": Known("exact", "Share of the test examples that are right in every class."),
    "agreement": Known(
        "agreement",
        "How far a model says of the test examples what the run's reference says, another model: of"
        " classes the share of the examples that get the same one, of vectors the mean cosine, of"
        " transcripts 1 less the edits between them. No label is needed. The reference agrees with"
        " itself.",
    ),
    "wer": Known(
        "WER",
        "Word error rate: words that were inserted, left out or replaced, over the words that were said;"
        " the lower, the better. It may be above 100 %.",
    ),
    "cer": Known("CER", "Character error rate: the same of the characters; the lower, the better."),
    "insertions": Known("inserted", "Words that were not said, over the words that were."),
    "deletions": Known("left out", "Words that are missing, over the words that were said."),
    "substitutions": Known("replaced", "Words that are others, over the words that were said."),
    "mse": Known("MSE", "Mean squared error; the lower, the better."),
    "cosine": Known("cosine", "Mean cosine of the answer and the target; 1 is the same direction."),
    "rmse": Known("RMSE", "Root of the mean squared error; the lower, the better."),
    "mae": Known("MAE", "Mean absolute error; the lower, the better."),
    "r2": Known("R²", "Share of the variance of the targets that the predictions explain."),
    "pearson": Known("Pearson", "Linear correlation of the predictions with the targets."),
    "spearman": Known(
        "Spearman", "Correlation of the ranks of the predictions and of the targets."
    ),
}


def title(name: str) -> str:
    """What a page calls a score."""
    return KNOWN[name].title if name in KNOWN else name.replace("_", " ")


def meaning(name: str) -> str:
    """What a page says of it; nothing of one that a user has made."""
    return KNOWN[name].meaning if name in KNOWN else "A score of this run's own."
