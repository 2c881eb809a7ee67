"""An average of parameters has statistics of its own: read on one device, on eight, in a sweep."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import data, train
from kdjax.train import TrainState, make_reading_step, readings_of, with_statistics
from tests import runs
from tests.train.test_recalibrate import BATCHES, VARIABLES, Net, _by_hand, _close

TX = optax.sgd(0.1)


def _objective(scale=1.0):
    def loss(outputs, batch):
        return scale * (outputs**2).sum(-1)

    return train.weigh(train.forward_of(Net()), {"size": (1.0, loss)})


def _state():
    """With an average that is far from the parameters."""
    state = TrainState.start(VARIABLES, TX, ema=True)
    moved = jax.tree.map(lambda p: 0.5 * p + 0.3, state.params)
    return dataclasses.replace(state, ema_params=moved)


def _read(step, batches, student=None):
    step = jax.jit(step)
    return [
        (len(batch["inputs"]), readings_of(jax.device_get(step(_state(), batch, KEY)[1]), student))
        for batch in batches
    ]


KEY = jax.random.key(0)


def test_the_statistics_of_the_average_by_hand():
    state = _state()
    found = with_statistics(state.model_state, _read(make_reading_step(_objective()), BATCHES))
    averaged = {**VARIABLES, "params": state.ema_params}
    _close(found["batch_stats"], _by_hand(averaged, BATCHES))
    # They are not those of the parameters, which is what makes an average useless without.
    live = _by_hand(VARIABLES, BATCHES)["norm2"]["var"]
    assert not np.allclose(found["batch_stats"]["norm2"]["var"], live, rtol=0.1)


def test_nothing_is_trained():
    state = _state()
    after, _ = make_reading_step(_objective())(state, BATCHES[0], KEY)
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_of_an_accumulated_batch_one_part_is_read():
    parts = [{"inputs": batch["inputs"][::2]} for batch in BATCHES]
    found = _read(make_reading_step(_objective(), accumulate=2), BATCHES)
    averaged = {**VARIABLES, "params": _state().ema_params}
    stats = with_statistics(_state().model_state, [(4, reading) for _, reading in found])
    _close(stats["batch_stats"], _by_hand(averaged, parts))


@pytest.mark.parametrize("unroll", [True, False])
def test_each_student_of_a_sweep_has_its_own(unroll):
    sweep = train.Sweep(lambda s: _objective(s["scale"]), {"scale": np.ones(2)}, unroll)
    many = train.start_sweep(VARIABLES, TX, students=2, ema=True)
    scales = jnp.array([1.0, 3.0])
    scaled = jax.tree.map(lambda p: p * scales.reshape(2, *[1] * (p.ndim - 1)), many.ema_params)
    step = jax.jit(train.make_sweep_step(sweep, make_reading_step))
    _, metrics = step(dataclasses.replace(many, ema_params=scaled), BATCHES[0], KEY)
    for i in range(2):
        readings = [(len(BATCHES[0]["inputs"]), readings_of(jax.device_get(metrics), i))]
        found = with_statistics(train.student(many, i).model_state, readings)
        averaged = {**VARIABLES, "params": jax.tree.map(lambda p, i=i: p[i], scaled)}
        _close(found["batch_stats"], _by_hand(averaged, BATCHES[:1]), rtol=1e-4)


def test_eight_devices_read_what_one_does():
    method, found = runs.METHODS["distillation"](), {}
    for way in ("single", "pmap", "mesh"):
        parallel = runs.WAYS[way]()
        variables = jax.tree.map(jnp.copy, method.variables)
        state = parallel.replicate(TrainState.start(variables, runs.sgd(method), ema=True))
        resident, key = parallel.replicate(method.resident), parallel.replicate(KEY)
        run = parallel.compile(
            train.make_run_steps(
                lambda resident, feed, key: method.views(data.take(resident, feed), resident, key),
                make_reading_step(method.objective(parallel.axis_name)),
            )
        )
        read = []
        for _, feed in runs.feeds(0, 2):
            state, metrics = run(state, resident, parallel.feed(feed), key)
            one = jax.tree.map(lambda x: x[0], jax.device_get(metrics))
            read.append((runs.BATCH, readings_of(one)))
        model_state = {name: x for name, x in method.variables.items() if name != "params"}
        found[way] = with_statistics(model_state, read)["batch_stats"]
    for way in ("pmap", "mesh"):
        _close(found[way], found["single"])
