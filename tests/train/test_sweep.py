import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import data, tasks, teacher, train
from kdjax.stages import distill
from kdjax.train.parallel import mapped, single
from tests import runs

SETTINGS = {
    "temperature": np.array([1.0, 2.0, 8.0], np.float32),
    "kd_weight": np.array([0.9, 0.5, 0.0], np.float32),
    "ce_weight": np.array([0.5, 0.1, 1.0], np.float32),
}
STEPS = 4


def _objective(axis_name):
    model = runs.distillation_model(axis_name)

    def of_one(mine):
        return distill.objective(
            model,
            tasks.Classification(classes=10),
            signal=teacher.Logits(classes=10),
            axis_name=axis_name,
            **mine,
        )

    return of_one


def _run(parallel, step, state):
    method = runs.distillation()

    def prepare(resident, feed, key):
        return method.views(data.take(resident, feed), resident, key)

    run_steps = parallel.compile(train.make_run_steps(prepare, step))
    resident, key = (parallel.replicate(x) for x in (method.resident, jax.random.key(3)))
    state, metrics = parallel.replicate(state), []
    for _, feed in runs.feeds(0, STEPS):
        state, found = run_steps(state, resident, parallel.feed(feed), key)
        metrics.append(jax.device_get(found))
    merged = jax.tree.map(lambda *parts: np.concatenate(parts), *metrics)
    return jax.device_get(state), merged


def _sweep(parallel, *, unroll):
    method = runs.distillation()
    tx, axis_name = runs.sgd(method), parallel.axis_name
    sweep = train.Sweep(_objective(axis_name), SETTINGS, unroll)
    step = train.make_sweep_step(
        sweep, lambda o: train.make_train_step(o, tx, ema=0.9, axis_name=axis_name)
    )
    variables = jax.tree.map(jnp.copy, method.variables)
    return _run(parallel, step, train.start_sweep(variables, tx, students=3, ema=True))


@functools.cache
def _alone(i):
    method = runs.distillation()
    tx = runs.sgd(method)
    objective = _objective(None)({name: float(values[i]) for name, values in SETTINGS.items()})
    step = train.make_train_step(objective, tx, ema=0.9)
    variables = jax.tree.map(jnp.copy, method.variables)
    return _run(single(), step, train.TrainState.start(variables, tx, ema=True))


@pytest.mark.parametrize(
    ("way", "unroll"),
    [
        (single, False),
        (single, True),
        (mapped, False),
        pytest.param(mapped, True, marks=pytest.mark.thorough),  # one step after the other
    ],
)
def test_each_student_is_as_it_would_be_alone(way, unroll):
    state, metrics = _sweep(way(), unroll=unroll)
    assert int(state.step) == STEPS
    for i in range(3):
        wanted, said = _alone(i)
        chex.assert_trees_all_close(train.student(state, i), wanted, rtol=1e-5, atol=1e-5)
        for name, values in said.items():
            np.testing.assert_allclose(metrics[f"{name}[{i}]"], values, rtol=1e-5, atol=1e-5)
    losses = [metrics[f"loss[{i}]"] for i in range(3)]
    np.testing.assert_allclose(metrics["loss"], np.mean(losses, axis=0), rtol=1e-6)
    assert len({float(loss[-1]) for loss in losses}) == 3


def test_all_begin_with_the_same():
    method = runs.distillation()
    state = train.start_sweep(method.variables, runs.sgd(method), students=2, ema=False)
    assert state.ema_params is None
    chex.assert_trees_all_equal(train.student(state, 0), train.student(state, 1))
    chex.assert_trees_all_equal(train.student(state, 1).params, method.variables["params"])
