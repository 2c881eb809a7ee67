"""An exported file against the model it was made from."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from kdjax import evaluate, tree
from kdjax.types import PyTree


class StageFailed(RuntimeError):
    """A stage ran, and its result is beyond the tolerance that the config states."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """How a file compares with its live model on the test examples.

    Attributes:
      artifact: name of the file.
      runtime: what ran it.
      max_logit_difference: over all examples and classes.
      mean_logit_difference: likewise the mean.
      largest_logit: of the live model, absolute: what a difference is to be seen against.
      label_agreement: share of examples with one label from both.
      accuracy_drop: by which its accuracy is below the live model's.
      tolerance: largest difference allowed, None where something else decides.
      required_agreement: smallest label agreement allowed, likewise.
      allowed_drop: largest drop of the accuracy allowed, likewise.
    """

    artifact: str
    runtime: str
    max_logit_difference: float
    mean_logit_difference: float
    largest_logit: float
    label_agreement: float
    accuracy_drop: float
    tolerance: float | None
    required_agreement: float | None
    allowed_drop: float | None


def compare(
    path: epath.Path,
    run: Callable[[Any], Any],
    inputs: PyTree,
    live: np.ndarray,
    labels: np.ndarray,
    *,
    runtime: str,
    difference: float | None = None,
    agreement: float | None = None,
    drop: float | None = None,
) -> tuple[np.ndarray, Parity]:
    """Runs a file over `inputs` and holds its logits against the live model's.

    Args:
      path: of the file, for messages.
      run: the file in its runtime.
      inputs: raw, of all examples.
      live: logits of the live model, [examples, classes].
      labels: of the examples.
      runtime: its name.
      difference: largest difference allowed, relative to the largest live logit; None for any.
      agreement: smallest label agreement allowed; None for any.
      drop: largest drop of the accuracy allowed; None for any.

    Raises:
      StageFailed: one of them is not kept.
    """
    logits = evaluate.logits_over(run, inputs, batch=min(512, tree.rows(inputs)))
    found = evaluate.agreement(logits, live)
    largest = float(np.abs(live).max())
    within = np.isfinite(largest) and found.max_difference <= (difference or 0.0) * largest
    if difference is not None and not within:
        raise StageFailed(
            f"{path}: a logit differs by {found.max_difference:.3g} from the live model's, more "
            f"than {difference:g} x the largest logit ({largest:.3g})"
        )
    if agreement is not None and found.label_agreement < agreement:
        raise StageFailed(
            f"{path}: {found.label_agreement:.1%} of the labels agree with the live model's, "
            f"less than {agreement:.1%}"
        )
    right, right_live = ((x.argmax(-1) == labels).mean() for x in (logits, live))
    fall = float(right_live - right)
    if drop is not None and fall > drop:
        raise StageFailed(
            f"{path}: {right:.1%} of the labels are right, of the live model {right_live:.1%}: more "
            f"than {drop:.1%} less"
        )
    return logits, Parity(
        artifact=path.name,
        runtime=runtime,
        max_logit_difference=found.max_difference,
        mean_logit_difference=found.mean_difference,
        largest_logit=largest,
        label_agreement=found.label_agreement,
        accuracy_drop=fall,
        tolerance=None if difference is None else difference * largest,
        required_agreement=agreement,
        allowed_drop=drop,
    )
