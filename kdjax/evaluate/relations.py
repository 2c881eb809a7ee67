"""How decisions and rankings go with what is right: F1, Matthews, Pearson, Spearman, in float64."""

import numpy as np
from etils import epy
from jaxtyping import Array, Bool, Float, Integer

with epy.lazy_imports():  # slow to import, and few tasks have such scores
    from scipy import stats


def f1(said: Bool[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> float:
    """`2 tp / (2 tp + fp + fn)`; 0 where nothing is said and nothing is right, as in scikit-learn."""
    both, either = int((said & right).sum()), int(said.sum()) + int(right.sum())
    return 2 * both / either if either else 0.0


def matthews(confusion: Integer[Array | np.ndarray, "classes classes"]) -> float:
    """Matthews' correlation of labels (rows) and predictions (columns); 0 where one of them is constant.

    Of several classes as scikit-learn's `matthews_corrcoef`.

    Reference: Gorodkin 2004, https://doi.org/10.1016/j.compbiolchem.2004.09.006, eq. 8.
    """
    counts = np.asarray(confusion, np.float64)
    n, right = counts.sum(), np.trace(counts)
    occurs, predicted = counts.sum(1), counts.sum(0)
    spread = np.sqrt((n**2 - occurs @ occurs) * (n**2 - predicted @ predicted))
    return float((right * n - occurs @ predicted) / spread) if spread > 0 else 0.0


def pearson(
    answers: Float[np.ndarray, "n dim"], targets: Float[np.ndarray, "n dim"]
) -> float | None:
    """Linear correlation of answers and targets, the mean over the values.

    Returns:
      0 for a value whose answers are all one; None where a value's targets are, to which nothing can be
      in relation.
    """
    found = []
    for own, right in zip(answers.T.astype(np.float64), targets.T.astype(np.float64), strict=True):
        if np.ptp(right) == 0:
            return None
        a, b = own - own.mean(), right - right.mean()
        spread = np.sqrt((a @ a) * (b @ b))
        found.append(float(a @ b / spread) if spread > 0 and np.ptp(own) > 0 else 0.0)
    return float(np.clip(np.mean(found), -1.0, 1.0))


def spearman(
    answers: Float[np.ndarray, "n dim"], targets: Float[np.ndarray, "n dim"]
) -> float | None:
    """Pearson's correlation of the ranks, equal ones sharing theirs; see `pearson`."""
    return pearson(stats.rankdata(answers, axis=0), stats.rankdata(targets, axis=0))
