"""Losses that keep the dimensions of an embedding alive and apart, without negatives.

They are about the dimensions of a batch, not about its examples: each is one number for all of it.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kdjax.losses.rows import centred, products, row_count, row_mean, total
from kdjax.types import BadInput


def _second_moments(
    a: Float[Array, "batch dim"], b: Float[Array, "batch dim"], axis_name: str | None
) -> Float[Array, "dim dim"]:
    """`a^T b / N` over all rows. Each device multiplies its own rows alone."""
    return total(products(a.T, b.T), axis_name) / row_count(a, axis_name)


def _off_diagonal(matrix: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    return jnp.where(jnp.eye(len(matrix), dtype=bool), 0.0, matrix)


def barlow_twins(
    za: Float[Array, "batch dim"],
    zb: Float[Array, "batch dim"],
    *,
    off_diagonal_weight: float | Float[Array, ""],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Barlow Twins: `sum_i (1 - c_ii)^2 + off_diagonal_weight * sum_(i != j) c_ij^2`, a scalar.

    `c` is the cross-correlation of the dimensions of the two views over the `N` rows of all devices,
    `c = ya^T yb / N`, where `y` is `z` less its mean and over the root of its variance (biased, plus
    1e-5): a BatchNorm without parameters, as in the authors' code, where the paper has no epsilon. A
    dimension that is constant counts as uncorrelated. solo-learn multiplies the loss by 0.025.

    Args:
      za: projections of view a, any float dtype (float32 inside), not normalised.
      zb: projections of view b.
      off_diagonal_weight: the paper's lambda; 0.005 there, 0.0051 in the authors' code.
      axis_name: mapped axis to average over. `None` where the batch is already global, as it is
        under `jax.jit`.

    Reference: Zbontar et al. 2021, https://arxiv.org/abs/2103.03230, eq. 1 and 2.
    """

    def standard(z):
        z = centred(z.astype(jnp.float32), axis=0, axis_name=axis_name)
        return z * lax.rsqrt(row_mean(z * z, axis_name) + 1e-5)[None, :]

    c = _second_moments(standard(za), standard(zb), axis_name)
    redundancy = jnp.square(_off_diagonal(c)).sum()
    return jnp.square(1.0 - jnp.diagonal(c)).sum() + off_diagonal_weight * redundancy


def vicreg(
    za: Float[Array, "batch dim"],
    zb: Float[Array, "batch dim"],
    *,
    invariance: float | Float[Array, ""] = 25.0,
    variance: float | Float[Array, ""] = 25.0,
    covariance: float | Float[Array, ""] = 1.0,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """VICReg: `invariance * S + variance * (Va + Vb) / 2 + covariance * (Ca + Cb)`, a scalar.

    `S` is the mean squared difference of the views over rows and dimensions; `V` the mean over the
    dimensions of `max(0, 1 - sqrt(var + 1e-4))`; `C` the sum of the squared covariances of different
    dimensions, over their number. Variances and covariances are unbiased (`N - 1`), over the rows of
    all devices. So far the authors' code and lightly; the paper does not halve the variance term and
    sums `S` over the dimensions, and solo-learn follows it in the former.

    Args:
      za: projections of view a, any float dtype (float32 inside), not normalised.
      zb: projections of view b.
      invariance: weight of `S`.
      variance: weight of the variance term.
      covariance: weight of the covariance term.
      axis_name: mapped axis to average over. `None` where the batch is already global, as it is
        under `jax.jit`.

    Raises:
      BadInput: there is one row in all, which has no variance.

    Reference: Bardes et al. 2021, https://arxiv.org/abs/2105.04906, eq. 1 to 6.
    """
    rows = row_count(za, axis_name)
    if rows < 2:
        raise BadInput("batch", "one row has no variance", "give at least two")
    distance = row_mean(jnp.square(za.astype(jnp.float32) - zb.astype(jnp.float32)), axis_name)

    def spread(z):
        z = centred(z.astype(jnp.float32), axis=0, axis_name=axis_name)
        moments = _second_moments(z, z, axis_name) * (rows / (rows - 1))
        std = jnp.sqrt(jnp.diagonal(moments) + 1e-4)
        return jax.nn.relu(1.0 - std).mean(), jnp.square(_off_diagonal(moments)).sum() / len(
            moments
        )

    (hinge_a, off_a), (hinge_b, off_b) = spread(za), spread(zb)
    return (
        invariance * distance.mean()
        + variance * 0.5 * (hinge_a + hinge_b)
        + covariance * (off_a + off_b)
    )
