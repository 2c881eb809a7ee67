"""Losses between what a student's and a teacher's transformer have at the positions of an example.

Each example counts alike, whatever its length: its loss is a mean over its own positions. Publications
average over all positions of a batch, where a longer text counts for more. `where` is True at the
positions that are no padding, None where there is none; no padding changes a loss or a gradient.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from kdjax.losses.predictive import byol
from kdjax.losses.rows import contract, cosine, expected, mean_square

Where = Bool[Array, "batch position"] | None
"""Which positions are no padding; None for all."""


def _mean(losses: Float[Array, "batch position"], where: Where) -> Float[Array, " batch"]:
    """Over the positions that count, of which each example has one."""
    if where is None:
        return losses.mean(-1)
    count = jnp.maximum(where.sum(-1).astype(jnp.float32), 1.0)
    return jnp.where(where, losses, 0.0).sum(-1) / count


def hidden_mse(
    student_hidden: Float[Array, "batch position dim"],
    teacher_hidden: Float[Array, "batch position dim"],
    where: Where = None,
) -> Float[Array, " batch"]:
    """Per-example mean over positions and dimensions of `(student - teacher)^2`.

    `hint_mse` of what has no padding.

    Args:
      student_hidden: after a learned linear map, any float dtype (float32 inside).
      teacher_hidden: of the same shape. No gradient reaches it.
      where: see above.

    Reference: Jiao et al. 2019, https://arxiv.org/abs/1909.10351, eq. 8 and 9 (TinyBERT).
    """
    return _mean(mean_square(student_hidden, teacher_hidden), where)


def hidden_cosine(
    student_hidden: Float[Array, "batch position dim"],
    teacher_hidden: Float[Array, "batch position dim"],
    where: Where = None,
) -> Float[Array, " batch"]:
    """Per-example mean over positions of `1 - cos(student, teacher)`, in [0, 2].

    Args:
      student_hidden: any scale and float dtype (float32 inside). A row of zeros has the loss 1.
      teacher_hidden: of the same shape. No gradient reaches it.
      where: see above.

    Reference: Sanh et al. 2019, https://arxiv.org/abs/1910.01108, sec. 3 (DistilBERT).
    """
    return _mean(1.0 - cosine(student_hidden, teacher_hidden), where)


def distilhubert(
    student_hidden: Float[Array, "batch position dim"],
    teacher_hidden: Float[Array, "batch position dim"],
    where: Where = None,
    *,
    cosine_weight: float | Float[Array, ""] = 1.0,
) -> Float[Array, " batch"]:
    """Per-example mean over positions of `mean |student - teacher| - cosine_weight log sigmoid(cos)`.

    The first mean is over dimensions. Less its least value, so that it is zero where the two are equal:
    the paper's is `cosine_weight log(1 + 1/e)` larger, and a sum over positions.

    Args:
      student_hidden: of a prediction head, any float dtype (float32 inside).
      teacher_hidden: of the same shape. No gradient reaches it.
      where: see above.
      cosine_weight: of the second part.

    Reference: Chang et al. 2021, https://arxiv.org/abs/2110.01900, eq. 1.
    """
    student = student_hidden.astype(jnp.float32)
    teacher = lax.stop_gradient(teacher_hidden.astype(jnp.float32))
    apart = student - teacher
    apart = (jnp.sign(apart) * apart).mean(-1)  # flat where it is zero, unlike `jnp.abs`
    least = jax.nn.log_sigmoid(jnp.float32(1.0))
    direction = least - jax.nn.log_sigmoid(cosine(student, teacher))
    return _mean(apart + cosine_weight * direction, where)


def pkd(
    student_hidden: Float[Array, "batch position dim"],
    teacher_hidden: Float[Array, "batch position dim"],
) -> Float[Array, " batch"]:
    """Per-example squared distance of the two first positions, each of unit length, in [0, 4].

    Several layers add up. The authors' code has the mean over dimensions for the sum.

    Args:
      student_hidden: any scale and float dtype (float32 inside).
      teacher_hidden: of the same shape. No gradient reaches it.

    Reference: Sun et al. 2019, https://arxiv.org/abs/1908.09355, eq. 7.
    """
    return byol(student_hidden[:, 0], teacher_hidden[:, 0])


def _scores(
    query: Float[Array, "batch position head dim"], key: Float[Array, "batch position head dim"]
) -> Float[Array, "batch head query key"]:
    """Scaled products of each query with each key, before any softmax."""
    query, key = (x.astype(jnp.float32) for x in (query, key))
    return contract("bqhd,bkhd->bhqk", query, key) / jnp.sqrt(jnp.float32(query.shape[-1]))


def attention_mse(
    student_query: Float[Array, "batch position head student_dim"],
    student_key: Float[Array, "batch position head student_dim"],
    teacher_query: Float[Array, "batch position head teacher_dim"],
    teacher_key: Float[Array, "batch position head teacher_dim"],
    where: Where = None,
) -> Float[Array, " batch"]:
    """Per-example mean over heads, queries and keys of `(student - teacher)^2` of attention scores.

    A score is `query . key / sqrt(dim)`, before the softmax, as in the paper. The authors' code averages
    over padding as well, where both are zero.

    Args:
      student_query: any float dtype (float32 inside).
      student_key: likewise.
      teacher_query: of as many heads. No gradient reaches it.
      teacher_key: likewise.
      where: see above.

    Reference: Jiao et al. 2019, https://arxiv.org/abs/1909.10351, eq. 7 (TinyBERT).
    """
    student = _scores(student_query, student_key)
    apart = (student - lax.stop_gradient(_scores(teacher_query, teacher_key))) ** 2
    if where is None:
        return apart.mean((1, 2, 3))
    both = where[:, :, None] & where[:, None, :]
    count = jnp.maximum(both.sum((1, 2)).astype(jnp.float32), 1.0)
    return jnp.where(both, apart.mean(1), 0.0).sum((1, 2)) / count


def relation_kl(
    student_query: Float[Array, "batch position head student_dim"],
    student_key: Float[Array, "batch position head student_dim"],
    teacher_query: Float[Array, "batch position head teacher_dim"],
    teacher_key: Float[Array, "batch position head teacher_dim"],
    where: Where = None,
) -> Float[Array, " batch"]:
    """Per-example mean over heads and positions of `KL(teacher || student)` of relations, in nats.

    A relation is the softmax over positions of `query . key / sqrt(dim)`. Of queries and keys it is the
    attention itself (MiniLM); of queries and queries, keys and keys, values and values it is how these
    see each other, in any number of relation heads (MiniLMv2). A key that is padding has no share.

    Args:
      student_query: one side of the relation, any float dtype (float32 inside).
      student_key: the other side, maybe the same.
      teacher_query: of as many heads, of any width. No gradient reaches it.
      teacher_key: likewise.
      where: see above.

    References: Wang et al. 2020, https://arxiv.org/abs/2002.10957, eq. 5 to 7; Wang et al. 2020,
    https://arxiv.org/abs/2012.15828, eq. 4 to 6.
    """
    sides = (student_query, student_key), lax.stop_gradient((teacher_query, teacher_key))
    scores = [_scores(query, key) for query, key in sides]
    if where is not None:
        keys = jnp.expand_dims(where, (1, 2))
        scores = [jnp.where(keys, x, -jnp.inf) for x in scores]
    log_q, log_p = (jax.nn.log_softmax(x) for x in scores)
    return _mean(expected(jnp.exp(log_p), log_p - log_q).mean(1), where)
