"""Scores of a classifier from its labels and logits, and whether two of its forms agree.

Everything here is NumPy on the host: counts are exact int64, and bad values raise instead of being
dropped, which a compiled scatter would do.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Integer

from kdjax import tree
from kdjax.evaluate.agreement import Agreement, differences
from kdjax.types import PyTree


@dataclasses.dataclass(frozen=True)
class Scores:
    """What one confusion matrix says. All but `confusion` and `examples` are fractions in [0, 1].

    Attributes:
      accuracy: examples predicted right / examples.
      recall_macro: mean recall of the classes that occur among the labels (balanced accuracy).
      f1_macro: mean F1 of the classes that occur among the labels or the predictions.
      confusion: counts, `confusion[label][prediction]`; tuples, so that scores compare and hash.
      examples: number of examples scored.
    """

    accuracy: float
    recall_macro: float
    f1_macro: float
    confusion: tuple[tuple[int, ...], ...]
    examples: int


def check_classes(name: str, values: Integer[np.ndarray, " n"], *, classes: int):
    """Raises ValueError unless all of `values` are in `0 .. classes - 1`."""
    outside = values[(values < 0) | (values >= classes)]
    if outside.size:
        raise ValueError(f"{name}: {outside[0]} is not one of {classes} classes")


def confusion(
    label: Integer[Array | np.ndarray, " n"],
    prediction: Integer[Array | np.ndarray, " n"],
    *,
    classes: int,
) -> Int[np.ndarray, "{classes} {classes}"]:
    """Counts of each (label, prediction) pair: rows are the true label, columns the prediction.

    Args:
      label: true classes, `0 <= label < classes`.
      prediction: predicted classes of the same examples, in the same range.
      classes: number of classes.

    Raises:
      ValueError: the lengths differ, or a class is out of range (a label of -1, "unlabelled",
        included: leave such examples out first).
    """
    label, prediction = np.asarray(label, np.int64), np.asarray(prediction, np.int64)
    if label.shape != prediction.shape:
        raise ValueError(f"{label.size} labels but {prediction.size} predictions")
    check_classes("label", label, classes=classes)
    check_classes("prediction", prediction, classes=classes)
    counts = np.bincount(label * classes + prediction, minlength=classes * classes)
    return counts.reshape(classes, classes)


def scores(confusion: Integer[Array | np.ndarray, "classes classes"]) -> Scores:
    """Accuracy, macro recall and macro F1 of a confusion matrix (rows = true label).

    A class that never occurs has no recall, so macro recall averages over the classes that occur
    among the labels: scikit-learn's `balanced_accuracy_score`. Macro F1 averages over the classes
    that occur among the labels or the predictions: scikit-learn's default for
    `f1_score(average="macro")`. There a class that is predicted but never occurs counts as 0, and
    one that is neither is left out.

    Raises:
      ValueError: the matrix has no examples; there is no score to report then.
    """
    counts = np.asarray(confusion, np.int64)
    examples = int(counts.sum())
    if not examples:
        raise ValueError("no examples to score")
    right, occurs, predicted = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)
    labelled, present = occurs > 0, occurs + predicted > 0
    return Scores(
        accuracy=float(right.sum() / examples),
        recall_macro=float(np.mean(right[labelled] / occurs[labelled])),
        # 2 tp / (2 tp + fp + fn): never 0 / 0 over the classes that are present.
        f1_macro=float(np.mean(2 * right[present] / (occurs + predicted)[present])),
        confusion=tuple(tuple(row) for row in counts.tolist()),
        examples=examples,
    )


def logits_over(
    predict: Callable[[Any], Any],
    inputs: PyTree,
    *,
    batch: int,
) -> Float32[np.ndarray, "n ..."]:
    """Logits of all examples, asked for in batches of one fixed size.

    The last batch is filled up by repeating its last example and the extra rows are dropped, so a
    jitted `predict` never retraces and a runtime with a static batch runs. `predict` must treat
    examples independently (frozen batch statistics).

    Args:
      predict: `inputs of a batch -> [batch, ...]`, anything `np.asarray` can read.
      inputs: an array, or a tree of arrays, with the examples along the first axis; only one batch at
        a time is read (memmaps are fine).
      batch: number of examples in every call.

    Raises:
      ValueError: there are no examples, or `predict` returned not one row for each.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    if not (n := tree.rows(inputs)):
        raise ValueError("no examples to predict")
    logits = []
    for start in range(0, n, batch):
        count = min(batch, n - start)

        def filled(array: np.ndarray, start=start, count=count) -> np.ndarray:
            rows = array[start : start + count]
            return np.concatenate([rows, np.repeat(rows[-1:], batch - count, axis=0)])

        found = np.asarray(predict(jax.tree.map(filled, inputs)))
        if found.ndim < 2 or len(found) != batch:
            raise ValueError(f"predict returned {list(found.shape)}, expected [{batch}, ...]")
        # A copy of the rows asked for: a runtime may reuse the buffer it returned.
        logits.append(np.array(found[:count], np.float32))
    return np.concatenate(logits)


def agreement(
    logits_a: Float[Array | np.ndarray, "*n classes"],
    logits_b: Float[Array | np.ndarray, "*n classes"],
    *,
    where: Bool[np.ndarray, "*n"] | None = None,
) -> Agreement:
    """Compares two sets of logits, say of a live model and of its exported form.

    Differences are those of `differences`. The agreement is the share of rows with the same predicted
    class on both sides; one with a NaN on either side does not agree.

    Args:
      logits_a: of some examples, or of all positions of some.
      logits_b: of the same.
      where: the rows that count for the agreement; all of them by default.

    Raises:
      ValueError: the shapes differ, or there is nothing to compare.
    """
    apart = differences(logits_a, logits_b)
    a, b = np.asarray(logits_a, np.float64), np.asarray(logits_b, np.float64)
    unknown = np.isnan(a) | np.isnan(b)
    agrees = (a.argmax(axis=-1) == b.argmax(axis=-1)) & ~unknown.any(axis=-1)
    return Agreement(
        max_difference=float(apart.max()),
        mean_difference=float(apart.mean()),
        agreement=float((agrees if where is None else agrees[where]).mean()),
    )
