"""Losses between a student's logits or embeddings and a teacher's; others derive them."""

import jax.numpy as jnp
import numpy as np

from kdjax.losses import (
    batch_level_kd,
    class_level_kd,
    compress,
    dist,
    dkd,
    embedding_cosine,
    embedding_mse,
    kd_ce,
    kd_kl,
    kd_mse,
    multi_level_kd,
    seed,
    standardize,
    tf_kd,
)
from tests.losses.laws import Case

QUEUES = jnp.asarray(np.random.default_rng(1).normal(0, 3, (2, 6, 5)), jnp.float32)
LABEL = jnp.array([0, 3, -1, 1, 1, 2])


def _case(loss, *extra, name=None, batch=False, **numbers):
    """`extra` are arrays after the student's and the teacher's."""
    return Case(
        name or loss.__name__,
        lambda s, t, **axis: loss(s, t, *extra, **numbers, **axis),
        lambda random, rows: random.normal(0, 3, (2, rows, 5)),
        batch_axes=(0, 0) if batch else None,
    )


def _standardized(student, teacher):
    return kd_kl(standardize(student), standardize(teacher), temperature=2.0)


def _virtual(student, _):
    return tf_kd(student, LABEL, correct_probability=0.99, temperature=1.0)


CASES = [
    _case(batch_level_kd, batch=True, temperature=1.0),
    _case(class_level_kd, batch=True, temperature=1.0),
    _case(dist, batch=True, beta=2.0, gamma=0.5, temperature=1.0),
    _case(multi_level_kd, batch=True, temperatures=(1.0, 4.0)),
    _case(compress, *QUEUES, temperature=0.04),
    _case(dkd, LABEL, alpha=1.0, beta=8.0, temperature=1.0),
    _case(embedding_cosine),
    _case(embedding_mse),
    _case(kd_ce, temperature=1.0),
    _case(kd_kl, temperature=1.0),
    _case(kd_mse),
    _case(seed, QUEUES[1], student_temperature=0.2, teacher_temperature=1e-4),
    _case(_standardized, name="standardize"),
    _case(_virtual, name="tf_kd"),
]
