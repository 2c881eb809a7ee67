"""Contrastive representation distillation (CRD), and the memory that its negatives come from."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from kdjax.losses.rows import all_rows, contract, unit
from kdjax.types import BadInput


class CRDState(NamedTuple):
    """What `crd` keeps from step to step, the same on every device.

    Attributes:
      student_memory: the last embeddings of each example of the training set by the student.
      teacher_memory: those by the teacher.
      student_log_z: log of the constant that makes probabilities of the student's scores, -inf until
        the first batch sets it for good.
      teacher_log_z: the same of the teacher's scores.
    """

    student_memory: Float[Array, "examples dim"]
    teacher_memory: Float[Array, "examples dim"]
    student_log_z: Float[Array, ""]
    teacher_log_z: Float[Array, ""]


def crd_state(key: Key[Array, ""], *, examples: int, dim: int) -> CRDState:
    """Random memories of `examples` embeddings, and no constants yet.

    Drawn as in the authors' code, each element from `[-sqrt(3 / dim), sqrt(3 / dim)]`: of unit
    length on average.
    """
    bound = math.sqrt(3 / dim)
    student, teacher = jax.random.uniform(key, (2, examples, dim), minval=-bound, maxval=bound)
    # Two buffers: a step may take both.
    return CRDState(student, teacher, *jnp.full((2,), -jnp.inf, jnp.float32))


def _contrast(scores: Float[Array, "batch outcomes"], examples: int) -> Float[Array, " batch"]:
    """Noise-contrastive cost of log probabilities, the positive first, against uniform noise."""
    noise = (scores.shape[1] - 1) / examples
    log_both = jnp.logaddexp(scores, math.log(noise + 1e-7))
    right = log_both[:, 0] - scores[:, 0]
    return right + (log_both[:, 1:] - math.log(noise)).sum(-1)


def crd(
    student_embedding: Float[Array, "batch dim"],
    teacher_embedding: Float[Array, "batch dim"],
    state: CRDState,
    index: Int[Array, " batch"],
    negatives: Int[Array, "batch negatives"],
    *,
    temperature: float | Float[Array, ""],
    momentum: float = 0.5,
    axis_name: str | None = None,
) -> tuple[Float[Array, " batch"], CRDState]:
    """Per-example CRD loss, both directions added, in nats, and the state after this batch.

    The student's embedding of an example is scored against the teacher's memory of that example
    and of its negatives, and the teacher's against the student's memory. A score is
    `exp(cosine / temperature) / Z`, taken as the probability of the outcome, and each of the
    `K + 1` is told from uniform noise: `-log(P / (P + K/n + 1e-7))` for the positive,
    `-log((K/n) / (P + K/n + 1e-7))` for each negative, `n` examples in the memory. `Z` is `n` times
    the mean of the first batch's scores and stays.

    After the scoring the batch's rows of both memories become `momentum` times the old row plus
    `1 - momentum` times the new one, of unit length. Of an example that occurs twice in a batch one
    occurrence is remembered.

    Here a gradient does reach the second argument: the embedding of the teacher is learned together
    with that of the student. Stop it where the teacher's features enter that embedding. None reaches
    the state.

    Args:
      student_embedding: any scale: rows are normalised here, in float32.
      teacher_embedding: of the same width, normalised here as well.
      state: from `crd_state`, then from the call before.
      index: places of the batch's examples in the memory. One that is not there makes its row NaN.
      negatives: places of other examples, drawn for each anew. The authors take those of
        another class.
      temperature: divisor of the cosines, > 0. 0.07 in the paper.
      momentum: share of the old row.
      axis_name: mapped axis to gather rows over; each device has the whole state. `None` where the
        batch is already global, as it is under `jax.jit`.

    Raises:
      BadInput: there are no negatives.

    Reference: Tian et al. 2019, https://arxiv.org/abs/1910.10699, sec. 3, as published in
    https://github.com/HobbitLong/RepDistiller; the paper weighs the loss by 0.8.
    """
    if negatives.shape[1] == 0:
        raise BadInput("negatives", "none", "give at least one for each example")
    student, teacher = unit(student_embedding), unit(teacher_embedding)
    state = lax.stop_gradient(state)
    examples = len(state.student_memory)
    outcomes = jnp.concatenate([index[:, None], negatives], axis=1)

    def score(anchor, memory, log_z):
        others = memory.at[outcomes].get(mode="fill", fill_value=jnp.nan)
        scores = contract("bd,bkd->bk", anchor, others) / temperature
        each = all_rows(jax.nn.logsumexp(scores, axis=1), axis_name)
        fresh = jax.nn.logsumexp(each) + math.log(examples / (len(each) * scores.shape[1]))
        log_z = jnp.where(jnp.isneginf(log_z), lax.stop_gradient(fresh), log_z)
        return _contrast(scores - log_z, examples), log_z

    of_student, student_log_z = score(student, state.teacher_memory, state.student_log_z)
    of_teacher, teacher_log_z = score(teacher, state.student_memory, state.teacher_log_z)

    def remember(memory, rows):
        rows = unit(momentum * memory[index] + (1.0 - momentum) * lax.stop_gradient(rows))
        return memory.at[all_rows(index, axis_name)].set(all_rows(rows, axis_name))

    state = CRDState(
        remember(state.student_memory, student),
        remember(state.teacher_memory, teacher),
        student_log_z,
        teacher_log_z,
    )
    return of_student + of_teacher, state
