"""Losses between what a student and what a teacher say of the same view of the same example."""

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Integer

from kdjax.losses.rows import expected, is_possible, log_sum, root
from kdjax.types import BadInput


def kd_kl(
    student_logits: Float[Array, "*batch classes"],
    teacher_logits: Float[Array, "*batch classes"],
    *,
    temperature: float | Float[Array, ""] = 1.0,
) -> Float[Array, "*batch"]:
    """Per-example `temperature^2 * KL(teacher || student)` of the softened softmaxes, in nats.

    The factor keeps the gradient's scale as the temperature changes. No gradient reaches the
    teacher. Here and in what follows a class of which both sides say -inf is impossible, as in a
    masked vocabulary: the loss is that of the other classes alone, and it gets no gradient. One
    that only the student holds impossible costs infinitely much.

    Args:
      student_logits: pre-softmax scores, any float dtype (float32 inside).
      teacher_logits: the teacher's scores of the same view of the same example.
      temperature: divisor of both logits, > 0. It may be traced: a sweep can vmap over it.

    Reference: Hinton et al. 2015, https://arxiv.org/abs/1503.02531, sec. 2.
    """
    log_q = jax.nn.log_softmax(student_logits.astype(jnp.float32) / temperature)
    log_p = jax.nn.log_softmax(teacher_logits.astype(jnp.float32) / temperature)
    return temperature**2 * _kl(log_q, lax.stop_gradient(log_p))


@jax.custom_jvp
def _kl(
    log_q: Float[Array, "*batch outcomes"], log_p: Float[Array, "*batch outcomes"]
) -> Float[Array, "*batch"]:
    """`KL(p || q)` of log-probabilities; what `p` holds impossible counts nothing, and gets no gradient.

    Its own derivative, `-p`, needs no mask: 0 is 0 whatever the other factor, which is finite.
    """
    return expected(jnp.exp(log_p), log_p - log_q)


@_kl.defjvp
def _kl_jvp(primals, tangents):
    (log_q, log_p), (log_q_dot, _) = primals, tangents
    return _kl(log_q, log_p), -(jnp.exp(log_p) * log_q_dot).sum(-1)


def kd_ce(
    student_logits: Float[Array, "*batch classes"],
    teacher_logits: Float[Array, "*batch classes"],
    *,
    temperature: float | Float[Array, ""],
) -> Float[Array, "*batch"]:
    """Per-example `-temperature^2 * sum_c p_c log q_c` of the softened softmaxes, in nats.

    `kd_kl` plus `temperature^2` times the entropy of the teacher's `p`: the same gradient, but an
    optimum that is above zero. No gradient reaches the teacher.

    Args:
      student_logits: pre-softmax scores, any float dtype (float32 inside).
      teacher_logits: the teacher's scores of the same view of the same example.
      temperature: divisor of both logits, > 0. It may be traced.

    Reference: Hinton et al. 2015, https://arxiv.org/abs/1503.02531, sec. 2.
    """
    q, p = (x.astype(jnp.float32) / temperature for x in (student_logits, teacher_logits))
    p = lax.stop_gradient(jax.nn.softmax(p))
    return temperature**2 * -expected(p, jax.nn.log_softmax(q))


def kd_mse(
    student_logits: Float[Array, "*batch classes"], teacher_logits: Float[Array, "*batch classes"]
) -> Float[Array, "*batch"]:
    """Per-example mean over classes of `(student - teacher)^2`, of the logits.

    Unlike `kd_kl` it minds a shift of all classes. Of centred logits, half of it is what `kd_kl`
    tends to as the temperature grows. A class of which both say -inf is no part of the mean. No
    gradient reaches the teacher.

    Args:
      student_logits: pre-softmax scores, any float dtype (float32 inside).
      teacher_logits: the teacher's scores of the same view of the same example.

    Reference: Ba & Caruana 2014, https://arxiv.org/abs/1312.6184, sec. 2.2; Kim et al. 2021,
    https://arxiv.org/abs/2105.08919, sec. 3. Both write a sum over classes; the latter's code has
    this mean.
    """
    student, teacher = (x.astype(jnp.float32) for x in (student_logits, teacher_logits))
    counted = is_possible(student) | is_possible(teacher)
    student, teacher = (jnp.where(counted, x, 0.0) for x in (student, teacher))
    squared = optax.losses.squared_error(student, lax.stop_gradient(teacher))
    return squared.sum(-1) / jnp.maximum(counted.sum(-1), 1)


def standardize(logits: Float[Array, "*batch classes"]) -> Float[Array, "*batch classes"]:
    """`(x - mean) / (1e-7 + std)` of each row, in float32: the std of a sample, by `classes - 1`.

    Before any loss on logits, of the student's and the teacher's alike, it has the two agree on the
    order and the ratios of the gaps, not on the size: `kd_kl(standardize(student),
    standardize(teacher), temperature=2.0)`. The gradient goes through the mean and the std; in a
    row of equal logits it is finite, the std's share of it zero, as in torch. A logit of -inf stays
    one, and is no part of mean and std.

    Args:
      logits: pre-softmax scores of at least two classes, any float dtype.

    Reference: Sun et al. 2024, https://arxiv.org/abs/2403.01427, sec. 4, algorithm 1; the epsilon
    and the std of a sample are those of the authors' code.
    """
    logits = logits.astype(jnp.float32)
    possible = is_possible(logits)
    classes = possible.sum(-1, keepdims=True)
    # Less the largest first, which leaves exact zeros of equal logits: see `rows.centred`.
    most = lax.stop_gradient(logits).max(-1, keepdims=True)
    above = jnp.where(possible, logits - jnp.where(possible.any(-1, keepdims=True), most, 0.0), 0.0)
    centred = jnp.where(
        possible, above - above.sum(-1, keepdims=True) / jnp.maximum(classes, 1), 0.0
    )
    variance = (centred * centred).sum(-1, keepdims=True) / jnp.maximum(classes - 1, 1)
    return jnp.where(possible, centred / (1e-7 + root(variance)), -jnp.inf)


def dkd(
    student_logits: Float[Array, "*batch classes"],
    teacher_logits: Float[Array, "*batch classes"],
    label: Int[Array, "*batch"],
    *,
    alpha: float | Float[Array, ""],
    beta: float | Float[Array, ""],
    temperature: float | Float[Array, ""],
) -> Float[Array, "*batch"]:
    """Per-example `temperature^2 * (alpha * TCKD + beta * NCKD)`, in nats.

    `TCKD` is the `KL(teacher || student)` of two outcomes, the label and all other classes; `NCKD`
    that of the softmaxes over the other classes alone. All of it is in log space. `kd_kl` is
    `alpha = 1` with a `beta` of each example's own, what the teacher gives the other classes. No
    gradient reaches the teacher.

    The authors' code takes logs of probabilities, which in float32 is no longer finite from a gap
    of about 104 between softened logits on, and leaves the label out of `NCKD` by subtracting 1000.
    Its defaults are 1, 8 and 4; its weight of all this rises over the first 20 epochs.

    Args:
      student_logits: pre-softmax scores, any float dtype (float32 inside).
      teacher_logits: the teacher's scores of the same view of the same example.
      label: integer classes. A negative label means "unlabelled": its row is zero and sends no
        gradient.
      alpha: weight of the label against the rest.
      beta: weight of the classes that are not the label.
      temperature: divisor of both logits, > 0. It may be traced.

    Reference: Zhao et al. 2022, https://arxiv.org/abs/2203.08679, eq. 7.
    """
    is_target = jax.nn.one_hot(label, student_logits.shape[-1], dtype=bool)

    def split(logits):
        scores = logits.astype(jnp.float32) / temperature
        log_p = jax.nn.log_softmax(scores)
        log_target = jnp.where(is_target, log_p, 0.0).sum(-1)
        log_rest = log_sum(log_p, ~is_target)
        # Their own softmax, not `log_p - log_rest`, which loses digits where both are large.
        exist = (is_possible(scores) & ~is_target).any(-1, keepdims=True)
        log_others = jax.nn.log_softmax(jnp.where(exist, scores, 0.0), where=~is_target)
        return jnp.stack([log_target, log_rest], axis=-1), jnp.where(exist, log_others, -jnp.inf)

    target, others = split(student_logits)
    teacher_target, teacher_others = lax.stop_gradient(split(teacher_logits))
    tckd, nckd = _kl(target, teacher_target), _kl(others, teacher_others)
    return jnp.where(label >= 0, temperature**2 * (alpha * tckd + beta * nckd), 0.0)


def _log_tail(
    scores: Float[Array, "*batch classes"], indices: Int[Array, "*batch k"]
) -> Float[Array, "*batch"]:
    """`logsumexp` over the classes that `indices` leaves out; -inf where it leaves out none."""
    # The scatter writes a constant mask, so the gradient is a plain select, with no scatter in it.
    kept = jnp.put_along_axis(jnp.zeros(scores.shape, bool), indices, True, axis=-1, inplace=False)
    return log_sum(scores, ~kept)


def top_k_signal(
    teacher_logits: Float[Array, "*batch classes"], *, k: int, temperatures: tuple[float, ...]
) -> tuple[Int[Array, "*batch k"], Float[Array, "*batch k"], Float[Array, "*batch temperatures"]]:
    """What `kd_kl_top_k` needs of a teacher: `(indices, log_probs, log_tail)`.

    `log_probs` are the `k` greatest of `log p = log_softmax(teacher_logits)`, at temperature 1 and
    in falling order; `indices` are their classes, the lower one first where two are equal.
    `log_tail` is, for each temperature, `logsumexp(log p / temperature)` over all other classes:
    exact, whatever `k`, and -inf where there are no others. It cannot be had from `log_probs`
    unless the temperature is 1, hence the list.

    Args:
      teacher_logits: pre-softmax scores, any float dtype (float32 inside).
      k: how many classes to keep, from 1 to all.
      temperatures: those of the losses to come, each > 0; the last axis of `log_tail`.

    Raises:
      BadInput: `k` or `temperatures` is out of range.
    """
    classes = teacher_logits.shape[-1]
    if not 1 <= k <= classes:
        raise BadInput("k", f"{k} of {classes} classes cannot be kept", f"give 1 to {classes}")
    if not temperatures or not all(temperature > 0 for temperature in temperatures):
        raise BadInput("temperatures", f"{temperatures}", "give at least one, each above zero")

    log_p = jax.nn.log_softmax(teacher_logits.astype(jnp.float32))
    log_probs, indices = lax.top_k(log_p, k)
    log_tail = [_log_tail(log_p / temperature, indices) for temperature in temperatures]
    return indices, log_probs, jnp.stack(log_tail, axis=-1)


def kd_kl_top_k(
    student_logits: Float[Array, "*batch classes"],
    indices: Integer[Array, "*batch k"],
    log_probs: Float[Array, "*batch k"],
    log_tail: Float[Array, "*batch"],
    *,
    temperature: float | Float[Array, ""],
) -> Float[Array, "*batch"]:
    """Per-example `temperature^2 * KL(teacher || student)` over `k + 1` outcomes, in nats.

    The outcomes are the `k` kept classes and, on both sides, one bucket for all others. By the
    chain rule of KL, `kd_kl` is this plus `temperature^2 * p_tail * KL(teacher || student)` within
    the bucket. So this never exceeds `kd_kl`, equals it at `k = classes`, and is zero where the
    student gives each kept class the teacher's probability. A softmax over the kept classes alone
    is another loss, and biased: it is blind to what the student gives the others.

    No gradient reaches the teacher. A class or a bucket that the teacher holds impossible costs
    nothing: a log of -inf, as float16 makes of what it cannot hold.

    Args:
      student_logits: pre-softmax scores, any float dtype (float32 inside).
      indices: the kept classes, distinct within a row, in any order. One that is no class makes
        its row NaN.
      log_probs: the teacher's log-softmax at those classes, at temperature 1.
      log_tail: `logsumexp` of the teacher's `log p / temperature` over the other classes, at the
        very temperature of this loss: `top_k_signal` gives it. Not looked at if `k = classes`.
      temperature: divisor of the student's logits and of `log_probs`, > 0. It may be traced; a
        sweep vmaps over it and over the last axis of `log_tail` together.

    Reference: Hinton et al. 2015, https://arxiv.org/abs/1503.02531, sec. 2, for the loss;
    Anshumann et al. 2025, https://arxiv.org/abs/2503.16870, for the bias of the top k alone.
    """
    indices = indices.astype(jnp.int32)
    scores = student_logits.astype(jnp.float32) / temperature
    log_q = jnp.take_along_axis(scores, indices, axis=-1)
    log_p = log_probs.astype(jnp.float32) / temperature
    if indices.shape[-1] < student_logits.shape[-1]:
        log_q = jnp.concatenate([log_q, _log_tail(scores, indices)[..., None]], axis=-1)
        log_p = jnp.concatenate([log_p, log_tail.astype(jnp.float32)[..., None]], axis=-1)

    log_q = jax.nn.log_softmax(log_q)
    log_p = lax.stop_gradient(jax.nn.log_softmax(log_p))
    return temperature**2 * _kl(log_q, log_p)
