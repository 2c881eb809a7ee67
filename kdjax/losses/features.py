"""Losses between two feature maps, or vectors, of the same view of the same example.

Learned layers that bring a student's features to the teacher's shape are in `kdjax.models`.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kdjax.losses.pooling import to_smaller
from kdjax.losses.rows import contract, flat, mean_square, unit


def hint_mse(
    student_features: Float[Array, "batch *feature"],
    teacher_features: Float[Array, "batch *feature"],
) -> Float[Array, " batch"]:
    """Per-example mean over all elements of `(student - teacher)^2`.

    Args:
      student_features: after the learned regressor (`kdjax.models.regressor`), any float dtype
        (float32 inside).
      teacher_features: the hint, of the same shape. No gradient reaches it.

    Reference: Romero et al. 2014, https://arxiv.org/abs/1412.6550, eq. 3, which has half of the sum
    for the mean. mdistiller multiplies by 100.
    """
    return mean_square(flat(student_features), flat(teacher_features))


def _attention(maps: Float[Array, "batch height width channel"]) -> Float[Array, "batch place"]:
    return unit(flat((maps**2).mean(-1)))


def attention_transfer(
    student_features: Float[Array, "batch height width channel"],
    teacher_features: Float[Array, "batch teacher_height teacher_width teacher_channel"],
) -> Float[Array, " batch"]:
    """Per-example mean over positions of `(a_student - a_teacher)^2`.

    `a` is the map of the mean squares of the channels, flat and of unit length. This is what the
    authors' code and its descendants compute; the paper's eq. 2 has the length of the difference
    for its mean square. Several stages add up. mdistiller multiplies by 1000.

    Args:
      student_features: any float dtype (float32 inside). A map of zeros has no attention anywhere.
      teacher_features: with any number of channels. If the sizes differ the larger map is pooled to the
        smaller, see `adaptive_average_pool`. No gradient reaches it.

    Reference: Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1612.03928, sec. 3.1.
    """
    student, teacher = to_smaller(student_features, lax.stop_gradient(teacher_features))
    return ((_attention(student) - _attention(teacher)) ** 2).mean(-1)


def nst(
    student_features: Float[Array, "batch height width channel"],
    teacher_features: Float[Array, "batch teacher_height teacher_width teacher_channel"],
) -> Float[Array, " batch"]:
    """Per-example squared MMD between the channels of the student and of the teacher.

    A channel is a vector over positions, of unit length; the kernel is `(x . y)^2`. The loss is
    the mean kernel within the student, plus that within the teacher, minus twice that between them.
    mdistiller multiplies by 50.

    Args:
      student_features: any float dtype (float32 inside).
      teacher_features: with any number of channels. If the sizes differ the larger map is pooled to the
        smaller, see `adaptive_average_pool`. No gradient reaches it.

    Reference: Huang & Wang 2017, https://arxiv.org/abs/1707.01219, sec. 4, with the polynomial kernel of
    d = 2 and c = 0.
    """
    student, teacher = to_smaller(student_features, lax.stop_gradient(teacher_features))
    student, teacher = (unit(lax.collapse(maps, 1, 3), axis=1) for maps in (student, teacher))

    def kernel(a, b):
        return (contract("bpc,bpd->bcd", a, b) ** 2).mean((1, 2))

    return kernel(student, student) + kernel(teacher, teacher) - 2 * kernel(student, teacher)


def vid(
    student_mean: Float[Array, "batch *space channel"],
    teacher_features: Float[Array, "batch *space channel"],
    log_scale: Float[Array, " channel"],
) -> Float[Array, " batch"]:
    """Per-example mean over elements of `((student_mean - teacher)^2 / var + log var) / 2`, in nats.

    `var = softplus(log_scale) + 1e-5`, one for each channel: the negative log-likelihood of the
    teacher's features under a Gaussian, without the constant `log(2 pi) / 2`.

    Args:
      student_mean: what `kdjax.models.VariationalRegressor` makes of the student's features, any
        float dtype (float32 inside).
      teacher_features: of the same shape: pool the larger first, the student's before its regressor. No
        gradient reaches it.
      log_scale: a parameter of that regressor. mdistiller never trains its own: it is in a plain
        list there.

    Reference: Ahn et al. 2019, https://arxiv.org/abs/1904.05835, sec. 2.
    """
    student_mean, teacher = (
        x.astype(jnp.float32) for x in (student_mean, lax.stop_gradient(teacher_features))
    )
    var = jax.nn.softplus(log_scale.astype(jnp.float32)) + 1e-5
    var = jnp.expand_dims(var, range(teacher.ndim - 1))
    return flat(0.5 * ((student_mean - teacher) ** 2 / var + jnp.log(var))).mean(-1)


def _flow(
    lower: Float[Array, "batch height width lower"], upper: Float[Array, "batch h w upper"]
) -> Float[Array, "batch upper lower"]:
    """Mean over positions of the outer products of the channels of two maps."""
    lower, upper = to_smaller(lower, upper)
    positions = lower.shape[1] * lower.shape[2]
    return contract("bhwi,bhwj->bji", lower, upper) / positions


def fsp(
    student_pair: tuple[
        Float[Array, "batch height1 width1 channel1"], Float[Array, "batch height2 width2 channel2"]
    ],
    teacher_pair: tuple[
        Float[Array, "batch height3 width3 channel1"], Float[Array, "batch height4 width4 channel2"]
    ],
) -> Float[Array, " batch"]:
    """Per-example mean of `(G_student - G_teacher)^2` over the pairs of channels.

    `G` of two maps is the mean over positions of the outer product of their channels: how the
    network gets from the first to the second. Several pairs add up. The larger map of a pair is
    average-pooled to the other, as in RepDistiller; torchdistill takes maxima, and lengths of the
    columns for their squares, and its values are 40 to 120 times as large.

    Args:
      student_pair: two maps, in the order of the flow, any float dtype (float32 inside).
      teacher_pair: two maps of as many channels, of any size. No gradient reaches them.

    Reference: Yim et al. 2017, "A Gift from Knowledge Distillation", CVPR, eq. 1 and 2,
    https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html.
    """
    difference = _flow(*student_pair) - lax.stop_gradient(_flow(*teacher_pair))
    return (difference**2).mean((1, 2))
