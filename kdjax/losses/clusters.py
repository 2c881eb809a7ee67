"""Losses that predict, from one view, the soft assignment that another view was given.

A score of -inf on all sides is a class or prototype that cannot be: the loss is that of the others.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kdjax.losses.rows import all_rows, expected, is_possible, row_mean
from kdjax.types import BadInput


def _across_views(
    target: Float[Array, "targets batch dim"], log_q: Float[Array, "views batch dim"]
) -> Float[Array, " batch"]:
    """Mean of `-sum target log q` over all pairs of a target and another view."""
    if not 1 <= len(target) <= len(log_q) or len(log_q) == 1:
        raise BadInput(
            "views",
            f"{len(target)} with a target, {len(log_q)} in all",
            "give at least two, of which the first have a target",
        )
    pairs = [(t, v) for t in range(len(target)) for v in range(len(log_q)) if t != v]
    return -jnp.stack([expected(target[t], log_q[v]) for t, v in pairs]).mean(0)


def dino(
    student_logits: Float[Array, "views batch dim"],
    teacher_logits: Float[Array, "teacher_views batch dim"],
    center: Float[Array, " dim"],
    *,
    student_temperature: float | Float[Array, ""],
    teacher_temperature: float | Float[Array, ""],
) -> Float[Array, " batch"]:
    """Per-example cross-entropy of the student's views with the teacher's of other views, in nats.

    The target is `softmax((teacher_logits - center) / teacher_temperature)`. Averaged over all pairs
    of a teacher's view and a student's view of another crop. No gradient reaches the teacher or the
    center. `dino_center` moves the center after the loss.

    Args:
      student_logits: scores of all crops, any float dtype (float32 inside).
      teacher_logits: scores of the first of these crops, in the same order: the global ones.
      center: running mean of the teacher's scores.
      student_temperature: divisor of the student's scores, > 0; 0.1 in the paper.
      teacher_temperature: divisor of the teacher's, > 0. It may be traced: the paper warms it up
        from 0.04 to 0.07.

    Raises:
      BadInput: the student has fewer than two views, or fewer than the teacher.

    Reference: Caron et al. 2021, https://arxiv.org/abs/2104.14294, eq. 3 and algorithm 1.
    """
    scores = (teacher_logits.astype(jnp.float32) - center[None, None, :]) / teacher_temperature
    log_q = jax.nn.log_softmax(student_logits.astype(jnp.float32) / student_temperature)
    return _across_views(lax.stop_gradient(jax.nn.softmax(scores)), log_q)


def dino_center(
    center: Float[Array, " dim"],
    teacher_logits: Float[Array, "teacher_views batch dim"],
    *,
    momentum: float,
    axis_name: str | None = None,
) -> Float[Array, " dim"]:
    """`momentum * center + (1 - momentum) * mean of teacher_logits`: the center of the next step.

    Args:
      center: that of this step, float32; zero at the first.
      teacher_logits: scores of this step, averaged over views, batch and devices, in float32.
      momentum: share of the old center, in [0, 1]; 0.9 in the paper.
      axis_name: mapped axis to average over. `None` where the batch is already global, as it is
        under `jax.jit`.

    Reference: Caron et al. 2021, https://arxiv.org/abs/2104.14294, eq. 4.
    """
    scores = lax.stop_gradient(teacher_logits.astype(jnp.float32))
    mean = row_mean(lax.collapse(scores, 0, 2), axis_name)
    return momentum * center + (1.0 - momentum) * mean


def sinkhorn(
    scores: Float[Array, "*views batch prototypes"],
    *,
    epsilon: float,
    iterations: int,
    axis_name: str | None = None,
) -> Float[Array, "*views batch prototypes"]:
    """Soft assignments of the rows to prototypes that use all prototypes about alike.

    `exp(scores / epsilon)`, scaled in turn so that each prototype gets an equal share of the rows and
    each row sums to 1, rows last. All of it is done in logs, which gives what SwAV's code, lightly and
    solo-learn do where theirs is finite: they exponentiate first, which in float32 overflows at
    scores above 4.4 for an epsilon of 0.05 and loses small ones long before. No gradient passes.

    Args:
      scores: cosines of rows and prototypes in the paper; at any scale here (float32 inside).
      epsilon: divisor of the scores, > 0: the larger, the more even; 0.05 in the paper.
      iterations: how often both are scaled; 3 in the paper. At 0 each row is a softmax.
      axis_name: mapped axis to gather the shares of prototypes over. `None` where the batch is
        already global, as it is under `jax.jit`.

    Reference: Caron et al. 2020, https://arxiv.org/abs/2006.09882, eq. 3 to 5; Cuturi 2013,
    https://arxiv.org/abs/1306.0895.
    """

    def scale_both(_, log_q):
        log_share = jax.nn.logsumexp(log_q, axis=-2, keepdims=True)
        log_share = jax.nn.logsumexp(all_rows(log_share[None], axis_name), axis=0)
        # A prototype that no row can have gets no share of them.
        return jax.nn.log_softmax(log_q - jnp.where(is_possible(log_share), log_share, 0.0))

    log_q = lax.stop_gradient(scores.astype(jnp.float32)) / epsilon
    return jax.nn.softmax(lax.fori_loop(0, iterations, scale_both, log_q))


def swav(
    scores: Float[Array, "views batch prototypes"],
    *,
    assigned: int = 2,
    epsilon: float = 0.05,
    iterations: int = 3,
    temperature: float | Float[Array, ""] = 0.1,
    axis_name: str | None = None,
) -> Float[Array, " batch"]:
    """Per-example cross-entropy of a view's prototypes with the codes of another view, in nats.

    The codes of the first `assigned` views are their `sinkhorn` assignments. For each, the loss of
    `softmax(scores / temperature)` of every other view is averaged, then the averages are. No
    gradient passes through the codes. solo-learn does the same with the large crops alone.

    Args:
      scores: products of unit rows and unit prototypes, all crops, the large ones first.
      assigned: how many of the views get codes.
      epsilon: see `sinkhorn`.
      iterations: see `sinkhorn`.
      temperature: divisor of the scores in the prediction, > 0.
      axis_name: mapped axis to gather the shares of prototypes over. `None` where the batch is
        already global, as it is under `jax.jit`.

    Raises:
      BadInput: there are fewer than two views, or `assigned` is not one of 1 to their number.

    Reference: Caron et al. 2020, https://arxiv.org/abs/2006.09882, eq. 1, 2 and 6.
    """
    if not 1 <= assigned <= len(scores):
        raise BadInput("assigned", f"{assigned} of {len(scores)} views cannot get codes")
    codes = sinkhorn(scores[:assigned], epsilon=epsilon, iterations=iterations, axis_name=axis_name)
    log_q = jax.nn.log_softmax(scores.astype(jnp.float32) / temperature)
    return _across_views(codes, log_q)
