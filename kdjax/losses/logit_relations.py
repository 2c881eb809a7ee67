"""Distillation of how the predictions of a batch relate to one another: scalars of a whole batch.

A class of which both sides say -inf for an example, as in a masked vocabulary, is none of that example:
what is computed is as if the entry were not there. A class that no example of the batch has is none of
the batch: the loss is that of the other columns alone, in value and gradient. A class that one side
alone holds impossible is one of which it says a probability of zero.
"""

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float

from kdjax.losses.distillation import kd_kl
from kdjax.losses.rows import (
    all_rows,
    centred,
    in_some_row,
    is_possible,
    of_those,
    products,
    root,
    row_mean,
    total,
)
from kdjax.types import BadInput


def _softened(
    student_logits: Float[Array, "batch classes"],
    teacher_logits: Float[Array, "batch classes"],
    temperature: float | Float[Array, ""],
) -> tuple[Float[Array, "batch classes"], Float[Array, "batch classes"]]:
    """Both sides' probabilities, in float32; the teacher's without gradient."""
    logits = (student_logits, teacher_logits)
    q, p = (jax.nn.softmax(x.astype(jnp.float32) / temperature) for x in logits)
    return q, lax.stop_gradient(p)


def _counted(
    student_logits: Float[Array, "batch classes"], teacher_logits: Float[Array, "batch classes"]
) -> Bool[Array, "batch classes"]:
    """The entries that are there: those that one side at least holds possible."""
    return is_possible(student_logits) | is_possible(teacher_logits)


def _of_classes(counted: Bool[Array, "batch classes"], axis_name: str | None) -> Float[Array, ""]:
    """What makes a mean over all classes one over those that some example of the batch has."""
    return of_those(in_some_row(counted, axis_name=axis_name), axis=0)[0]


def _correlation(
    x: Float[Array, "batch classes"],
    y: Float[Array, "batch classes"],
    counted: Bool[Array, "batch classes"] | None,
    axis: int,
    axis_name: str | None,
) -> Float[Array, "..."]:
    """Pearson's of what is counted along an axis, which the devices of `axis_name` share."""

    def along(z):
        return total(z.sum(axis), axis_name)

    x, y = (centred(z, axis=axis, axis_name=axis_name, where=counted) for z in (x, y))
    return along(x * y) / (root(along(x * x)) * root(along(y * y)) + 1e-8)


def dist(
    student_logits: Float[Array, "batch classes"],
    teacher_logits: Float[Array, "batch classes"],
    *,
    beta: float | Float[Array, ""],
    gamma: float | Float[Array, ""],
    temperature: float | Float[Array, ""],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """`temperature^2 * (beta * (1 - inter) + gamma * (1 - intra))`: DIST, of a whole batch.

    `inter` is the mean over examples of Pearson's correlation, over classes, between the student's
    and the teacher's softened probabilities; `intra` is the mean over classes of that over
    examples. The second has no value of an example, so this is a scalar, in
    [0, 2 temperature^2 (beta + gamma)]. No gradient reaches the teacher.

    1e-8 is added to the product of the two norms, as in the authors' code (torchdistill holds each
    norm above 1e-8 instead); that code has the factor of a squared temperature, the paper no
    temperature at all. A row or a class without any spread correlates with nothing, 0, and its
    gradient is finite but large: it is divided by that 1e-8 alone.

    Where a class is impossible for some examples alone, by -inf on both sides, the paper says nothing.
    Here the correlation within an example is over the classes that it has, and that within a class
    over the examples that have it; a class of one example has no spread. The mean over classes is over
    those that some example of the batch has.

    Args:
      student_logits: pre-softmax scores, any float dtype (float32 inside). Of a map of them, each
        place is an example: flatten it to [batch * height * width, classes].
      teacher_logits: the teacher's scores of the same views of the same examples.
      beta: weight of the relations within an example.
      gamma: weight of the relations within a class. The authors take 1 and 1, times 2.
      temperature: divisor of both logits, > 0; theirs is 1 for ImageNet and 4 for CIFAR-100.
      axis_name: mapped axis to sum over. `None` where the batch is already global, as it is under
        `jax.jit`.

    Reference: Huang et al. 2022, https://arxiv.org/abs/2205.10536, sec. 4.
    """
    counted = _counted(student_logits, teacher_logits)

    def value(logits, where):
        student, teacher = logits
        q, p = _softened(student, teacher, temperature)
        inter = row_mean(_correlation(q, p, where, 1, None), axis_name)
        intra = _correlation(q, p, where, 0, axis_name).mean()
        if where is not None:
            intra = intra * _of_classes(where, axis_name)
        return temperature**2 * (beta * (1.0 - inter) + gamma * (1.0 - intra))

    # Where no class is missing, a program of its own: to the last digit what it is without any mask.
    logits = student_logits, teacher_logits
    missing = in_some_row(~counted, axis_name=axis_name).any()
    return jnp.where(missing, value(lax.optimization_barrier(logits), counted), value(logits, None))


def batch_level_kd(
    student_logits: Float[Array, "batch classes"],
    teacher_logits: Float[Array, "batch classes"],
    *,
    temperature: float | Float[Array, ""],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """`|Q Q^T - P P^T|_F^2 / batch`: which examples are predicted alike. A scalar.

    `Q` and `P` [batch, classes] are the student's and the teacher's softened probabilities. It
    grows as the batch does: a sum over all pairs, divided by the examples. There is no factor of a
    squared temperature. No gradient reaches the teacher.

    Args:
      student_logits: pre-softmax scores, any float dtype (float32 inside).
      teacher_logits: the teacher's scores of the same views of the same examples.
      temperature: divisor of both logits, > 0.
      axis_name: mapped axis to gather rows over. `None` where the batch is already global, as it is
        under `jax.jit`.

    Reference: see `multi_level_kd`.
    """
    q, p = _softened(student_logits, teacher_logits, temperature)
    all_q, all_p = all_rows(q, axis_name), all_rows(p, axis_name)
    # Each device has its own examples against those of all.
    error = optax.losses.squared_error(products(q, all_q), products(p, all_p)).sum()
    return total(error, axis_name) / all_q.shape[0]


def class_level_kd(
    student_logits: Float[Array, "batch classes"],
    teacher_logits: Float[Array, "batch classes"],
    *,
    temperature: float | Float[Array, ""],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """`|Q^T Q - P^T P|_F^2 / classes`: which classes are predicted together. A scalar.

    `Q` and `P` [batch, classes] are the student's and the teacher's softened probabilities. It
    grows with the square of the batch: both matrices are sums over it. `classes` are those that some
    example of the batch has. There is no factor of a squared temperature. No gradient reaches the
    teacher.

    Args:
      student_logits: pre-softmax scores, any float dtype (float32 inside).
      teacher_logits: the teacher's scores of the same views of the same examples.
      temperature: divisor of both logits, > 0.
      axis_name: mapped axis to sum the matrices over. `None` where the batch is already global, as
        it is under `jax.jit`.

    Reference: see `multi_level_kd`.
    """
    q, p = _softened(student_logits, teacher_logits, temperature)
    of_student, of_teacher = (total(products(x.T, x.T), axis_name) for x in (q, p))
    mean = optax.losses.squared_error(of_student, of_teacher).sum() / q.shape[-1]
    return mean * _of_classes(_counted(student_logits, teacher_logits), axis_name)


def multi_level_kd(
    student_logits: Float[Array, "batch classes"],
    teacher_logits: Float[Array, "batch classes"],
    *,
    temperatures: tuple[float, ...],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """`kd_kl`, `batch_level_kd` and `class_level_kd`, summed over temperatures. A scalar.

    For each temperature: the mean over examples of `temperature^2 * KL(teacher || student)`, plus
    `|Q Q^T - P P^T|_F^2 / batch`, plus `|Q^T Q - P^T P|_F^2 / classes`, with equal weights. To
    weigh the three, or to have the first per example, use them on their own.

    The authors' temperatures are 2 to 6 in ones. Their code sees two augmentations of each image
    and multiplies some terms by the share of examples, or classes, that the teacher is less sure of
    than of the median one; that is no part of this formula. No gradient reaches the teacher.

    Args:
      student_logits: pre-softmax scores, any float dtype (float32 inside).
      teacher_logits: the teacher's scores of the same views of the same examples.
      temperatures: divisors of both logits, each > 0.
      axis_name: mapped axis to gather rows over. `None` where the batch is already global, as it is
        under `jax.jit`.

    Raises:
      BadInput: `temperatures` is empty or has one that is not above zero.

    Reference: Jin et al. 2023, Multi-Level Logit Distillation, CVPR, sec. 3,
    https://openaccess.thecvf.com/content/CVPR2023/html/Jin_Multi-Level_Logit_Distillation_CVPR_2023_paper.html
    """
    if not temperatures or not all(temperature > 0 for temperature in temperatures):
        raise BadInput("temperatures", f"{temperatures}", "give at least one, each above zero")
    logits = student_logits, teacher_logits
    terms = []
    for temperature in temperatures:
        terms.append(row_mean(kd_kl(*logits, temperature=temperature), axis_name))
        for level in (batch_level_kd, class_level_kd):
            terms.append(level(*logits, temperature=temperature, axis_name=axis_name))
    return jnp.stack(terms).sum()
