"""An exported file against the model it was made from."""

import dataclasses

import numpy as np
from etils import epath

from kdjax import tasks


class StageFailed(RuntimeError):
    """A stage ran, and its result is beyond the tolerance that the config states."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """How a file compares with its live model on the test examples.

    Attributes:
      artifact: name of the file.
      runtime: what ran it.
      max_difference: over all examples and outputs.
      mean_difference: likewise the mean.
      largest_output: of the live model, absolute: what a difference is to be seen against.
      agreement: by the measure of their task, 1 being the same: of classes, the share of examples with
        one label from both.
      accuracy_drop: by which its accuracy is below the live model's, None of a task that has none.
      tolerance: largest difference allowed, None where something else decides.
      required_agreement: smallest agreement allowed, likewise.
      allowed_drop: largest drop of the accuracy allowed, likewise.
    """

    artifact: str
    runtime: str
    max_difference: float
    mean_difference: float
    largest_output: float
    agreement: float
    accuracy_drop: float | None
    tolerance: float | None
    required_agreement: float | None
    allowed_drop: float | None


def compare(
    path: epath.Path,
    answers: np.ndarray,
    live: np.ndarray,
    labels: np.ndarray | None,
    *,
    task: tasks.Task,
    runtime: str,
    difference: float | None = None,
    agreement: float | None = None,
    drop: float | None = None,
) -> Parity:
    """Holds what a file answers against what the live model does.

    Args:
      path: of the file, for messages.
      answers: of the file in its runtime, [examples, ...].
      live: likewise of the live model.
      labels: of the examples; None where there are none, and so no accuracy.
      task: that both answer.
      runtime: its name.
      difference: largest difference allowed, relative to the largest live output; None for any.
      agreement: smallest agreement allowed; None for any.
      drop: largest drop of the accuracy allowed; None for any.

    Raises:
      StageFailed: one of them is not kept.
    """
    found = task.agreement(answers, live, labels)
    largest = float(np.abs(live).max())
    within = np.isfinite(largest) and found.max_difference <= (difference or 0.0) * largest
    if difference is not None and not within:
        raise StageFailed(
            f"{path}: an output differs by {found.max_difference:.3g} from the live model's, more "
            f"than {difference:g} x the largest one ({largest:.3g})"
        )
    if agreement is not None and found.agreement < agreement:
        raise StageFailed(
            f"{path}: {task.agreed(found.agreement)} with the live model's, less than {agreement:g}"
        )
    fall = right = right_live = None
    if labels is not None:
        right, right_live = (task.accuracy(x, labels) for x in (answers, live))
    if right is not None and right_live is not None:
        fall = right_live - right
        if drop is not None and fall > drop:
            raise StageFailed(
                f"{path}: {right:.1%} of the labels are right, of the live model {right_live:.1%}: "
                f"more than {drop:.1%} less"
            )
    return Parity(
        artifact=path.name,
        runtime=runtime,
        max_difference=found.max_difference,
        mean_difference=found.mean_difference,
        largest_output=largest,
        agreement=found.agreement,
        accuracy_drop=fall,
        tolerance=None if difference is None else difference * largest,
        required_agreement=agreement,
        allowed_drop=drop,
    )
