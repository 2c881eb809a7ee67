"""The loss of the comprehensive overhaul of feature distillation (OFD)."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def ofd_margin(
    scale: Float[Array, " channel"], bias: Float[Array, " channel"]
) -> Float[Array, " channel"]:
    """For each channel the mean of what a ReLU will remove: `E[x | x < 0]`.

    BatchNorm gives `x ~ N(bias, scale^2)`, so it is `bias - g phi(-bias / g) / Phi(-bias / g)` with
    `g = |scale|`. Where less than a thousandth of `x` is negative it is `-3 g`, as in the authors'
    code; the two do not meet there. A channel of scale 0 has the limit, `min(bias, 0)`. No gradient.

    Args:
      scale: of the teacher's BatchNorm before the ReLU; its sign does not matter.
      bias: of the same BatchNorm.

    Reference: Heo et al. 2019, https://arxiv.org/abs/1904.01866, sec. 3.
    """
    g, bias = jnp.abs(scale.astype(jnp.float32)), bias.astype(jnp.float32)
    # Beyond 40 deviations phi is 0 in float32, and Phi 0 or 1.
    z = jnp.clip(-bias / jnp.maximum(g, 1e-30), -40.0, 40.0)
    log_density, log_mass = jax.scipy.stats.norm.logpdf(z), jax.scipy.stats.norm.logcdf(z)
    mean = bias - g * jnp.exp(log_density - log_mass)
    return lax.stop_gradient(jnp.where(jax.scipy.stats.norm.cdf(z) > 1e-3, mean, -3 * g))


def ofd(
    student_features: Float[Array, "batch height width channel"],
    teacher_features: Float[Array, "batch height width channel"],
    margin: Float[Array, " channel"],
) -> Float[Array, " batch"]:
    """Per-example sum of `(student - target)^2` where it counts, with `target = max(teacher, margin)`.

    It counts where the teacher is positive or the student exceeds the target: what a ReLU will
    remove of both costs nothing. Of several stages each weighs twice the one before it. The mean
    over the batch is mdistiller's value, which it multiplies by 0.001; the authors sum over the
    batch and divide the whole by its size and 10,000.

    Args:
      student_features: before the ReLU, brought to the teacher's shape by a learned connector
        (`kdjax.models.ofd_connector`), any float dtype (float32 inside).
      teacher_features: before the ReLU. No gradient reaches it.
      margin: below which the teacher is not followed, see `ofd_margin`.

    Reference: Heo et al. 2019, https://arxiv.org/abs/1904.01866, sec. 3.
    """
    student, teacher, margin = (
        x.astype(jnp.float32) for x in (student_features, teacher_features, margin)
    )
    target = lax.stop_gradient(jnp.maximum(teacher, margin.reshape(1, 1, 1, -1)))
    counts = (student > target) | (teacher > 0)
    return jnp.where(counts, (student - target) ** 2, 0.0).sum((1, 2, 3))
