"""Losses that compare how a student and a teacher relate the examples of a batch to one another.

Each gives a value for each example, what its relations to all others cost, and the mean over the
batch is the loss. An example is a vector, or a map that is taken as one. Both sides may differ in
width. No gradient reaches the teacher.
"""

import math

import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from kdjax.losses.rows import all_rows, contract, flat, is_itself, products, total, unit
from kdjax.types import BadInput


def _gaps(rows: Float[Array, "rows dim"], axis_name: str | None) -> Float[Array, "rows all dim"]:
    """Of every row of the batch to each of these rows."""
    return all_rows(rows, axis_name)[None] - rows[:, None]


def _relative_distances(
    rows: Float[Array, "rows dim"], axis_name: str | None
) -> Float[Array, "rows all"]:
    """Euclidean distances over their mean, that of a row to itself left out of the mean."""
    squared = (_gaps(rows, axis_name) ** 2).sum(-1)
    everyone = squared.shape[1]
    # At the bound the square root has no gradient to send, so that no zero is divided by.
    distances = jnp.where(is_itself(rows, axis_name), 0.0, jnp.sqrt(jnp.maximum(squared, 1e-12)))
    pairs = everyone * (everyone - 1)
    return distances / (total(distances.sum(), axis_name) / pairs if pairs else 1.0)


def rkd_distance(
    student_features: Float[Array, "batch *feature"],
    teacher_features: Float[Array, "batch *teacher_feature"],
    *,
    axis_name: str | None = None,
) -> Float[Array, " batch"]:
    """Per-example mean over `j` of the smooth L1 (beta 1) of relative distances to example `j`.

    Distances are divided by their mean over all pairs of the batch, on each side its own, so that
    scale does not matter. `j` runs over all examples, the example itself included, as in all the
    published code. Equal rows are 1e-6 apart and send each other no gradient.

    Args:
      student_features: any float dtype (float32 inside).
      teacher_features: of any width.
      axis_name: mapped axis to gather rows over. `None` where the batch is already global, as it is
        under `jax.jit`.

    Reference: Park et al. 2019, https://arxiv.org/abs/1904.05068, sec. 3.2.1. The usual weight is
    25, beside 50 of `rkd_angle`.
    """
    found, wanted = (
        _relative_distances(flat(x), axis_name)
        for x in (student_features, lax.stop_gradient(teacher_features))
    )
    return optax.losses.huber_loss(found, wanted, delta=1.0).mean(-1)


def _angles(rows: Float[Array, "rows dim"], axis_name: str | None) -> Float[Array, "rows all all"]:
    """Cosines of the angles at each of these rows between every two of the batch."""
    towards = unit(_gaps(rows, axis_name))
    return contract("ijd,ikd->ijk", towards, towards)


def rkd_angle(
    student_features: Float[Array, "batch *feature"],
    teacher_features: Float[Array, "batch *teacher_feature"],
    *,
    axis_name: str | None = None,
) -> Float[Array, " batch"]:
    """Per-example mean over `(j, k)` of the smooth L1 (beta 1) of cosines at that example.

    The cosine at `i` is between `x_j - x_i` and `x_k - x_i`, zero where one of them is zero: so it
    is where `j` or `k` is `i`, or an equal row. `j` and `k` run over all examples, `i` included, as
    in all the published code. Memory grows with the cube of the batch.

    From an equal row no gradient comes: its direction is unknown. torch divides by 1e-12 there, and
    its gradient reaches 1e10 where a student has equal rows that its teacher tells apart.

    Args:
      student_features: any float dtype (float32 inside).
      teacher_features: of any width.
      axis_name: mapped axis to gather rows over. `None` where the batch is already global, as it is
        under `jax.jit`.

    Reference: Park et al. 2019, https://arxiv.org/abs/1904.05068, sec. 3.2.2. The usual weight is
    50, beside 25 of `rkd_distance`.
    """
    found, wanted = (
        _angles(flat(x), axis_name) for x in (student_features, lax.stop_gradient(teacher_features))
    )
    return optax.losses.huber_loss(found, wanted, delta=1.0).mean((1, 2))


def _gram(rows: Float[Array, "rows dim"], axis_name: str | None) -> Float[Array, "rows all"]:
    """Of each of these rows with every row of the batch."""
    return products(rows, all_rows(rows, axis_name))


def similarity_preserving(
    student_features: Float[Array, "batch *feature"],
    teacher_features: Float[Array, "batch *teacher_feature"],
    *,
    axis_name: str | None = None,
) -> Float[Array, " batch"]:
    """Per-example `||g_student - g_teacher||^2 / batch`.

    `g` is the example's row of the Gram matrix of the batch, of unit length. Several layers add up.
    mdistiller multiplies by 3000; torchdistill's rows have a unit sum of absolute values.

    Args:
      student_features: any float dtype (float32 inside). An example of zeros is like no other.
      teacher_features: of any shape.
      axis_name: mapped axis to gather rows over. `None` where the batch is already global, as it is
        under `jax.jit`.

    Reference: Tung & Mori 2019, https://arxiv.org/abs/1907.09682, sec. 3.
    """
    found, wanted = (
        unit(_gram(flat(x), axis_name))
        for x in (student_features, lax.stop_gradient(teacher_features))
    )
    return ((found - wanted) ** 2).mean(-1)


def correlation_congruence(
    student_features: Float[Array, "batch *feature"],
    teacher_features: Float[Array, "batch *teacher_feature"],
    *,
    gamma: float | Float[Array, ""] = 0.4,
    order: int = 2,
    axis_name: str | None = None,
) -> Float[Array, " batch"]:
    """Per-example `||k_student - k_teacher||^2 / batch`, squared Frobenius over `batch^2` on average.

    `k` is the example's row of the matrix of `exp(-gamma ||x_i - x_j||^2)` between rows of unit
    length, by its Taylor series in their cosine: `exp(-2 gamma) sum_p (2 gamma cos)^p / p!`, with
    `p` from 0 to `order`.

    torchdistill takes the root of the sum over the whole batch, and rows as they come; RepDistiller
    has another loss by this name, products of the differences of consecutive examples, which
    depends on the order of the batch.

    Args:
      student_features: at any scale: rows are normalised here, in float32. A row of zeros has a cosine of
        zero with all.
      teacher_features: of any width.
      gamma: of the Gaussian, > 0.
      order: last power of the series, at least 1.
      axis_name: mapped axis to gather rows over. `None` where the batch is already global, as it is
        under `jax.jit`.

    Raises:
      BadInput: `order` is below 1.

    Reference: Peng et al. 2019, https://arxiv.org/abs/1904.01802, sec. 3.
    """
    if order < 1:
        raise BadInput("order", f"{order} leaves no term that sees the examples", "give 1 or more")

    def kernel(x):
        cosines = _gram(unit(flat(x)), axis_name)
        terms = ((2 * gamma) ** p / math.factorial(p) * cosines**p for p in range(1, order + 1))
        return jnp.exp(-2.0 * gamma) * sum(terms, jnp.ones_like(cosines))

    return ((kernel(student_features) - kernel(lax.stop_gradient(teacher_features))) ** 2).mean(-1)


def _affinities(rows: Float[Array, "rows dim"], axis_name: str | None) -> Float[Array, "rows all"]:
    """Probabilities of each of the batch given one of these rows."""
    # Rounding may take a cosine below -1.
    similarities = jnp.maximum(0.5 * (_gram(unit(rows), axis_name) + 1.0), 0.0)
    return similarities / similarities.sum(-1, keepdims=True)


def pkt(
    student_features: Float[Array, "batch *feature"],
    teacher_features: Float[Array, "batch *teacher_feature"],
    *,
    axis_name: str | None = None,
) -> Float[Array, " batch"]:
    """Per-example `KL(p_teacher || p_student) / batch`, in nats.

    `p` gives each example of the batch, itself included, a probability in proportion to
    `(cos + 1) / 2`. The KL is over `batch` outcomes and is divided by them once more, as in all the
    published code, whose mean is over all entries; the paper sums,
    over the other examples alone. 1e-7 is added to each
    probability. mdistiller multiplies by 30,000.

    Args:
      student_features: at any scale: rows are normalised here, in float32. A row of zeros has a cosine of
        zero with all, itself included, and a finite gradient; in the published code it is NaN.
      teacher_features: of any width.
      axis_name: mapped axis to gather rows over. `None` where the batch is already global, as it is
        under `jax.jit`.

    Reference: Passalis & Tefas 2018, https://arxiv.org/abs/1803.10837, sec. 3.
    """
    q, p = (
        _affinities(flat(x), axis_name)
        for x in (student_features, lax.stop_gradient(teacher_features))
    )
    return (p * jnp.log((p + 1e-7) / (q + 1e-7))).mean(-1)
