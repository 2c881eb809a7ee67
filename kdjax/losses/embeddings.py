"""Losses between a student's and a teacher's embeddings of the same view, without labels."""

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from kdjax.losses.distillation import kd_kl
from kdjax.losses.rows import cosine, mean_square, products, unit


def embedding_cosine(
    student_embedding: Float[Array, "*batch dim"], teacher_embedding: Float[Array, "*batch dim"]
) -> Float[Array, "*batch"]:
    """Per-example `1 - cos(student, teacher)`, in [0, 2].

    Half of `byol`, which is the squared distance of the two unit rows; `negative_cosine` plus one. As
    there, no gradient reaches the target. It compares a row with its own target alone; `compress` and
    `seed` compare how the two sides see other examples.

    Args:
      student_embedding: any scale: rows are normalised here, in float32. A row of zeros stays
        zero: its loss is 1 and its gradient finite.
      teacher_embedding: the teacher's row for the same view of the same example. A student of
        another width needs a projection first.

    Reference: Grill et al. 2020, https://arxiv.org/abs/2006.07733, eq. 2 (BYOL); Chen & He 2020,
    https://arxiv.org/abs/2011.10566, eq. 1 (SimSiam).
    """
    return 1.0 - cosine(student_embedding, teacher_embedding)


def embedding_mse(
    student_embedding: Float[Array, "*batch dim"], teacher_embedding: Float[Array, "*batch dim"]
) -> Float[Array, "*batch"]:
    """Per-example mean over dimensions of `(student - teacher)^2`, of the rows as they are.

    Unlike `embedding_cosine` it asks for the teacher's length as well as its direction. There is no
    normalising form: between unit rows, the squared distance is `2 * embedding_cosine`. No
    gradient reaches the teacher.

    Args:
      student_embedding: any float dtype (float32 inside).
      teacher_embedding: the teacher's row for the same view of the same example. A student of
        another width needs a projection first.

    Reference: Romero et al. 2014, https://arxiv.org/abs/1412.6550, eq. 3 (half of the sum there),
    of vectors.
    """
    return mean_square(student_embedding, teacher_embedding)


def seed(
    student_embedding: Float[Array, "batch dim"],
    teacher_embedding: Float[Array, "batch dim"],
    queue: Float[Array, "size dim"],
    *,
    student_temperature: float | Float[Array, ""],
    teacher_temperature: float | Float[Array, ""],
) -> Float[Array, " batch"]:
    """Per-example cross-entropy of how student and teacher see a queue of others, in nats.

    `-sum_j p_j log q_j` over `size + 1` embeddings, all the teacher's: its own of this example
    (column 0, for both sides), then the queue. `p` is the softmax of the teacher's cosines over
    `teacher_temperature`, `q` that of the student's over `student_temperature`. The teacher is
    nearest to itself, so at the authors' 1e-4 `p` is one-hot and this is InfoNCE against the
    teacher (their student's temperature is 0.2). There is no factor of a squared temperature, and
    the entropy of `p` is left in: the optimum is above zero. No gradient reaches teacher or queue.

    Args:
      student_embedding: any scale: rows are normalised here, in float32. A row of zeros stays zero and
        its gradient finite.
      teacher_embedding: the teacher's rows for the same views of the same examples. A student of another
        width needs a projection first.
      queue: the teacher's embeddings of earlier examples, at any scale; `enqueue` keeps it. Every
        device has the same one, so no axis needs to be gathered over.
      student_temperature: divisor of the student's cosines, > 0.
      teacher_temperature: divisor of the teacher's cosines, > 0.

    Reference: Fang et al. 2021, https://arxiv.org/abs/2101.04731, sec. 3.2.
    """
    student = unit(student_embedding)
    teacher, others = lax.stop_gradient((unit(teacher_embedding), unit(queue)))

    def cosines(rows):
        itself = (rows * teacher).sum(-1, keepdims=True)
        return jnp.concatenate([itself, products(rows, others)], axis=-1)

    p = jax.nn.softmax(cosines(teacher) / teacher_temperature)
    return optax.losses.softmax_cross_entropy(cosines(student) / student_temperature, p)


def compress(
    student_embedding: Float[Array, "batch student_dim"],
    teacher_embedding: Float[Array, "batch teacher_dim"],
    student_queue: Float[Array, "size student_dim"],
    teacher_queue: Float[Array, "size teacher_dim"],
    *,
    temperature: float | Float[Array, ""],
) -> Float[Array, " batch"]:
    """Per-example `KL(teacher || student)` over which anchors an example is near to, in nats.

    Each side compares its embedding with its own embeddings of the same anchors: a softmax of
    cosines over `temperature` (the authors': 0.04). So the two widths may differ and no projection
    is needed. With the teacher's queue for both, and a student of its width, this is the authors'
    form with one queue. There is no factor of a squared temperature. No gradient reaches the
    teacher or a queue.

    Args:
      student_embedding: any scale: rows are normalised here, in float32. A row of zeros stays zero and
        its gradient finite.
      teacher_embedding: the teacher's rows for the same views of the same examples.
      student_queue: the student's embeddings of the anchors, at any scale, from earlier steps or of
        its moving average; `enqueue` keeps it.
      teacher_queue: the teacher's embeddings of the same anchors, in the same order.
      temperature: divisor of both sides' cosines, > 0.

    Reference: Abbasi Koohpayegani et al. 2020, https://arxiv.org/abs/2010.14713, sec. 3.
    """
    student_queue = lax.stop_gradient(student_queue)
    near_student = products(unit(student_embedding), unit(student_queue))
    near_teacher = products(unit(teacher_embedding), unit(teacher_queue))
    return kd_kl(near_student / temperature, near_teacher / temperature)
