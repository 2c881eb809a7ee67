"""What holds of every loss between a student's arrays and a teacher's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.losses import (
    batch_level_kd,
    class_level_kd,
    compress,
    dist,
    dkd,
    embedding_mse,
    kd_ce,
    kd_kl,
    kd_mse,
    multi_level_kd,
    seed,
    standardize,
    tf_kd,
)

RNG = np.random.default_rng(0)
STUDENT, TEACHER, *QUEUES = jnp.asarray(RNG.normal(0, 3, (4, 6, 5)), jnp.float32)
LABEL = jnp.array([0, 3, -1, 1, 1, 2])

LOSSES = {
    "batch_level_kd": lambda s, t: batch_level_kd(s, t, temperature=1.0),
    "class_level_kd": lambda s, t: class_level_kd(s, t, temperature=1.0),
    "compress": lambda s, t: compress(s, t, *QUEUES, temperature=0.04),
    "dist": lambda s, t: dist(s, t, beta=1.0, gamma=1.0, temperature=1.0),
    "dkd": lambda s, t: dkd(s, t, LABEL, alpha=1.0, beta=8.0, temperature=1.0),
    "embedding_mse": embedding_mse,
    "kd_ce": lambda s, t: kd_ce(s, t, temperature=1.0),
    "kd_mse": kd_mse,
    "multi_level_kd": lambda s, t: multi_level_kd(s, t, temperatures=(1.0, 4.0)),
    "seed": lambda s, t: seed(s, t, QUEUES[1], student_temperature=0.2, teacher_temperature=1e-4),
    "standardize": lambda s, t: kd_kl(standardize(s), standardize(t), temperature=2.0),
    "tf_kd": lambda s, _: tf_kd(s, LABEL, correct_probability=0.99, temperature=1.0),
}
ALONE = {"batch_level_kd", "class_level_kd", "dist", "multi_level_kd"}
EACH = pytest.mark.parametrize("name", LOSSES)


def _extremes(size):
    return jnp.asarray(size * RNG.choice([-1.0, 1.0], (6, 5)), jnp.float32)


HARD = {
    "30": (_extremes(30), _extremes(30)),
    "90": (_extremes(90), _extremes(90)),
    "10000": (_extremes(1e4), _extremes(1e4)),
    "opposed": (_extremes(90), -_extremes(90)),
    "zero student": (jnp.zeros((6, 5)), TEACHER),
    "zero teacher": (STUDENT, jnp.zeros((6, 5))),
    "both zero": (jnp.zeros((6, 5)), jnp.zeros((6, 5))),
    "constant": (jnp.full((6, 5), 0.1, "f"), jnp.full((6, 5), -3.0, "f")),
    "constant columns": (jnp.tile(STUDENT[:1], (6, 1)), jnp.tile(TEACHER[:1], (6, 1))),
    "duplicate rows": (STUDENT.at[1].set(STUDENT[0]), TEACHER.at[1].set(TEACHER[0])),
    "a row of each": (
        STUDENT.at[0].set(0.0).at[1].set(7.0).at[2].set(QUEUES[0][2]),
        TEACHER.at[0].set(0.0).at[3].set(7.0).at[4].set(QUEUES[1][4]),
    ),
    "the same": (TEACHER, TEACHER),
}


@EACH
def test_hard_inputs_stay_finite_and_no_gradient_reaches_the_teacher(name):
    traces = []

    @jax.jit
    def losses_and_grads(student, teacher):
        traces.append(name)

        def total(student, teacher):
            losses = LOSSES[name](student, teacher)
            return losses.sum(), losses

        grads, losses = jax.grad(total, argnums=(0, 1), has_aux=True)(student, teacher)
        return losses, *grads

    losses, grad, _ = losses_and_grads(STUDENT, TEACHER)
    assert losses.shape == (() if name in ALONE else (6,))
    assert losses.dtype == jnp.float32
    assert np.abs(grad).max() > 1e-3
    for kind, pair in HARD.items():
        losses, grad, teacher_grad = losses_and_grads(*pair)
        assert np.isfinite(losses).all(), kind
        assert np.isfinite(grad).all(), kind
        assert (np.asarray(teacher_grad) == 0).all(), kind
    assert len(traces) == 1  # and no call after the first compiles


@EACH
def test_low_precision_is_computed_in_float32(name):
    low = [x.astype(jnp.bfloat16) for x in (STUDENT, TEACHER)]
    loss = jax.jit(LOSSES[name])
    found = loss(*low)
    assert found.dtype == jnp.float32
    wide = loss(*(x.astype(jnp.float32) for x in low))
    np.testing.assert_allclose(found, wide, rtol=1e-6, atol=1e-6)
