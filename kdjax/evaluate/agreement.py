"""How near the answers of two models to the same examples are, and values to their targets."""

import dataclasses

import numpy as np
from jaxtyping import Array, Float, Float64


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far two sets of outputs of the same examples are apart.

    Attributes:
      max_difference: largest absolute difference of two outputs; `inf` if either side has a NaN.
      mean_difference: mean absolute difference; `inf` if either side has a NaN.
      agreement: 1 where both say the same, by the measure of their task: of classes the fraction of
        examples with the same predicted class.
    """

    max_difference: float
    mean_difference: float
    agreement: float


def differences(
    a: Float[Array | np.ndarray, "..."], b: Float[Array | np.ndarray, "..."]
) -> Float64[np.ndarray, "..."]:
    """Absolute differences; `inf` where either side is NaN, 0 where both are one infinity.

    So a bound on the difference can never pass by comparing with NaN, and a masked class may be -inf.

    Raises:
      ValueError: the shapes differ, or there is nothing to compare.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"logits of shape {list(a.shape)} and {list(b.shape)}")
    if not a.size:
        raise ValueError("no logits to compare")
    unknown = np.isnan(a) | np.isnan(b)
    same = a == b  # where both are +inf, or -inf, the difference below would be NaN
    apart = np.abs(np.subtract(a, b, out=np.zeros_like(a), where=~(same | unknown)))
    return np.where(unknown, np.inf, apart)


def compared(
    a: Float[Array | np.ndarray, "..."],
    b: Float[Array | np.ndarray, "..."],
    *,
    agreement: float,
) -> Agreement:
    """The differences of two sets of outputs, with an agreement that their task has found.

    An agreement that is no number is none at all, 0.
    """
    apart = differences(a, b)
    return Agreement(
        max_difference=float(apart.max()),
        mean_difference=float(apart.mean()),
        agreement=float(agreement) if np.isfinite(agreement) else 0.0,
    )


def r2(
    answers: Float[Array | np.ndarray, "n dim"], targets: Float[Array | np.ndarray, "n dim"]
) -> float:
    """`1 - sum (answer - target)^2 / sum (target - mean)^2` of each value, the mean over the values.

    A value that is the same in all targets has no variance: 1 where the answers are it, 0 where they are
    not, as in scikit-learn's `r2_score`.

    Args:
      answers: of a model.
      targets: that they are to be: of at least two examples, or the answers of another model.
    """
    answers, targets = np.asarray(answers, np.float64), np.asarray(targets, np.float64)
    left = ((answers - targets) ** 2).sum(0)
    whole = ((targets - targets.mean(0)) ** 2).sum(0)
    varies = whole > 0
    each = np.where(varies, 1.0 - left / np.where(varies, whole, 1.0), left == 0)
    return float(each.mean())


def cosines(
    a: Float[Array | np.ndarray, "n dim"], b: Float[Array | np.ndarray, "n dim"]
) -> Float64[np.ndarray, " n"]:
    """Of each pair of rows; 0 where one of them is zero."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    found = (a * b).sum(-1) / np.where(lengths > 0, lengths, 1.0)
    return np.clip(found, -1.0, 1.0)
