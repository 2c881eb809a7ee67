import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import prune
from kdjax.train import TrainState, make_run_steps, make_train_step
from kdjax.train.parallel import mapped, single
from kdjax.types import BadInput

LEARNING_RATE, MOMENTUM, ROWS = 0.1, 0.9, 16


def mean_squares(params, state, batch, key):
    """Of a linear model; its gradient is written out in the tests."""
    error = batch["x"] @ params["w"] + params["b"] - batch["y"]
    loss = (error**2).mean()
    seen = {"seen": state.model_state["seen"] + 1}
    return loss, (seen, {"loss/squares": loss})


def problem(steps):
    random = np.random.default_rng(0)
    params = {"w": random.normal(size=3), "b": random.normal()}
    x = random.normal(size=(steps, ROWS, 3))
    return params, {"x": x, "y": x @ [1.0, -2.0, 0.5] + 0.3}


def narrow(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def started(params, tx, **how):
    return TrainState.start({"params": narrow(params), "seen": jnp.zeros([])}, tx, **how)


def rows(feed, step):
    return jax.tree.map(lambda x: x[step], feed)


def derived(params, feed, *, ema):
    """The steps in float64: gradient, momentum, update, average."""
    trace, average, said = dict.fromkeys(params, 0.0), dict(params), []
    for x, y in zip(feed["x"], feed["y"], strict=True):
        error = x @ params["w"] + params["b"] - y
        grads = {"w": 2 * x.T @ error / len(x), "b": 2 * error.mean()}
        trace = {name: grads[name] + MOMENTUM * trace[name] for name in params}
        params = {name: params[name] - LEARNING_RATE * trace[name] for name in params}
        average = {name: ema * average[name] + (1 - ema) * params[name] for name in params}
        said.append(
            {
                "loss": (error**2).mean(),
                "loss/squares": (error**2).mean(),
                "norm/grad": np.sqrt((grads["w"] ** 2).sum() + grads["b"] ** 2),
                "norm/update": LEARNING_RATE * np.sqrt((trace["w"] ** 2).sum() + trace["b"] ** 2),
            }
        )
    return params, trace, average, said


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_by_hand(steps):
    params, feed = problem(steps)
    tx = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
    step = jax.jit(make_train_step(mean_squares, tx, ema=0.8))
    state, metrics = started(params, tx, ema=True), []
    for i in range(steps):
        state, found = step(state, narrow(rows(feed, i)), jax.random.key(0))
        metrics.append(found)
    last, trace, average, said = derived(params, feed, ema=0.8)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, state.params, last)
    jax.tree.map(close, optax.tree.get(state.opt_state, "trace"), trace)
    jax.tree.map(close, state.ema_params, average)
    jax.tree.map(close, metrics, said)
    assert (int(state.step), float(state.model_state["seen"])) == (steps, steps)
    assert state.variables["params"] is state.ema_params


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.8, 0.999])
@pytest.mark.parametrize("steps", [1, 2, 6])
def test_a_debiased_average_is_of_what_the_updates_gave(decay, steps):
    params, feed = problem(steps)
    tx = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
    step = jax.jit(make_train_step(mean_squares, tx, ema=decay, debiased=True))
    state, seen = started(params, tx, ema=True), []
    for i in range(steps):
        state, _ = step(state, narrow(rows(feed, i)), jax.random.key(0))
        seen.append(jax.tree.map(lambda x: np.asarray(x, np.float64), state.params))
    weights = np.array([decay**ago for ago in reversed(range(steps))])  # 0^0 is 1
    for name in params:
        stacked = np.stack([one[name] for one in seen])
        expected = np.tensordot(weights / weights.sum(), stacked, 1)
        np.testing.assert_allclose(state.ema_params[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("ema", "debiased"), [(1.5, False), (-0.1, False), (1.0, True), (None, True)]
)
def test_a_decay_that_is_none_is_refused(ema, debiased):
    with pytest.raises(BadInput, match=r"ema: .* \[0, 1"):
        make_train_step(mean_squares, optax.sgd(0.1), ema=ema, debiased=debiased)


def test_metrics_are_named():
    params, feed = problem(1)
    tx = optax.sgd(LEARNING_RATE)
    _, metrics = make_train_step(mean_squares, tx)(
        started(params, tx), narrow(rows(feed, 0)), jax.random.key(0)
    )
    assert set(metrics) == {"loss", "loss/squares", "norm/grad", "norm/update"}
    assert all(value.shape == () for value in metrics.values())


def test_without_an_average_the_parameters_are_what_is_kept():
    params, feed = problem(1)
    tx = optax.sgd(LEARNING_RATE)
    state, _ = make_train_step(mean_squares, tx)(
        started(params, tx), narrow(rows(feed, 0)), jax.random.key(0)
    )
    assert state.ema_params is None
    assert state.variables == {"params": state.params, "seen": state.model_state["seen"]}


def test_the_first_average_is_a_buffer_of_its_own():
    state = started(problem(1)[0], optax.sgd(0.1), ema=True)
    for leaf, average in zip(*map(jax.tree.leaves, (state.params, state.ema_params)), strict=True):
        assert leaf.unsafe_buffer_pointer() != average.unsafe_buffer_pointer()
        np.testing.assert_array_equal(leaf, average)


@pytest.mark.parametrize("accumulate", [2, 4, ROWS])
def test_accumulated_parts_are_the_whole_batch(accumulate):
    params, feed = problem(1)
    tx = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
    batch = narrow(rows(feed, 0))
    found, expected = (
        jax.jit(make_train_step(mean_squares, tx, accumulate=parts))(
            started(params, tx), batch, jax.random.key(0)
        )
        for parts in (accumulate, 1)
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    jax.tree.map(close, (found[0].params, found[1]), (expected[0].params, expected[1]))
    # What the model keeps follows each part.
    assert float(found[0].model_state["seen"]) == accumulate
    assert int(found[0].step) == 1


def test_zeros_of_a_mask_are_zeros_of_the_average():
    params, feed = problem(4)
    tx = prune.hold(
        optax.sgd(LEARNING_RATE, momentum=MOMENTUM),
        prune.gradual(optax.constant_schedule(2 / 3)),
        begin_step=1,
        end_step=2,
        every_steps=1,
        prunable="w",
    )
    step, state = make_train_step(mean_squares, tx, ema=0.9), started(params, tx, ema=True)
    for i in range(4):
        state, _ = step(state, narrow(rows(feed, i)), jax.random.key(0))
        zeros = 0 if i == 0 else 2
        assert (state.params["w"] == 0).sum() == (state.ema_params["w"] == 0).sum() == zeros


def test_the_average_of_a_weight_that_comes_back_begins_at_zero():
    params, feed = problem(4)

    def turns(count, *, weights, grads, masks):
        return {"w": jnp.arange(3) != count, "b": None}

    inner = optax.sgd(LEARNING_RATE)
    tx = prune.hold(inner, turns, begin_step=1, end_step=2, every_steps=1, prunable="w")
    step, state = make_train_step(mean_squares, tx, ema=0.9), started(params, tx, ema=True)
    averages, weights = [], []
    for i in range(4):
        state, _ = step(state, narrow(rows(feed, i)), jax.random.key(0))
        averages.append(np.asarray(state.ema_params["w"]))
        weights.append(np.asarray(state.params["w"]))
    assert [np.flatnonzero(average == 0).tolist() for average in averages] == [[], [1], [1, 2], [2]]
    np.testing.assert_allclose(averages[3][1], 0.1 * weights[3][1], rtol=1e-6)


def drawing(params, state, batch, key):
    """An objective that draws, as dropout does."""
    draw = jax.random.uniform(key)
    return (params["w"] * draw).sum(), (state.model_state, {"draw": draw})


def draws(way, *, accumulate=1, steps=3):
    """What each step draws, and the key that it is given."""
    parallel, tx, key = way(), optax.sgd(0.1), jax.random.key(5)
    step = make_train_step(drawing, tx, accumulate=accumulate, axis_name=parallel.axis_name)
    run_steps = parallel.compile(make_run_steps(lambda resident, feed, key: feed, step))
    _, metrics = run_steps(
        parallel.replicate(started(problem(1)[0], tx)),
        {},
        parallel.feed({"x": np.zeros((steps, 16), np.float32)}),
        parallel.replicate(key),
    )
    return np.asarray(metrics["draw"]), key


def test_each_step_has_a_key_of_its_own():
    found, key = draws(single)
    expected = [jax.random.uniform(jax.random.fold_in(key, step)) for step in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert len(set(found)) == 3


def test_each_device_has_a_key_of_its_own():
    found, key = draws(mapped)
    for step in range(3):
        step_key = jax.random.fold_in(key, step)
        of_device = [float(jax.random.uniform(jax.random.fold_in(step_key, d))) for d in range(8)]
        assert found[step] == pytest.approx(np.mean(of_device), 1e-6)
        assert len(set(of_device)) == 8


def test_what_the_devices_keep_is_averaged():
    def mean_kept(params, state, batch, key):
        return params["w"].sum(), ({"seen": batch["x"].mean()}, {})

    parallel, tx = mapped(), optax.sgd(0.1)
    step = make_train_step(mean_kept, tx, axis_name=parallel.axis_name)
    run_steps = parallel.compile(make_run_steps(lambda resident, feed, key: feed, step))
    x, key = np.arange(16, dtype=np.float32)[None], parallel.replicate(jax.random.key(0))
    state = parallel.replicate(started(problem(1)[0], tx))
    state, _ = run_steps(state, {}, parallel.feed({"x": x}), key)
    for shard in state.model_state["seen"].addressable_shards:
        assert float(shard.data) == x.mean()


def test_each_part_of_a_batch_has_a_key_of_its_own():
    found, key = draws(single, accumulate=4, steps=1)
    step_key = jax.random.fold_in(key, 0)
    of_part = [float(jax.random.uniform(jax.random.fold_in(step_key, i))) for i in range(4)]
    assert found[0] == pytest.approx(np.mean(of_part), 1e-6)
    assert len(set(of_part)) == 4


@pytest.mark.parametrize("steps", [1, 3])
def test_what_is_prepared_sees_the_feed_of_its_step_and_the_key_of_the_run(steps):
    params, feed = problem(steps)
    tx, key = optax.sgd(LEARNING_RATE), jax.random.key(9)

    def prepare(resident, feed, key):
        noise = jax.random.normal(jax.random.fold_in(key, feed["id"]), (ROWS, 3))
        return {"x": feed["x"] + resident["scale"] * noise, "y": feed["y"]}

    feed = narrow(feed) | {"id": jnp.arange(steps)}
    run_steps = jax.jit(make_run_steps(prepare, make_train_step(mean_squares, tx)))
    state, metrics = run_steps(started(params, tx), {"scale": jnp.float32(0.1)}, feed, key)
    assert {name: values.shape for name, values in metrics.items()} == dict.fromkeys(
        ("loss", "loss/squares", "norm/grad", "norm/update"), (steps,)
    )
    expected, step = started(params, tx), make_train_step(mean_squares, tx)
    for i in range(steps):
        batch = prepare({"scale": jnp.float32(0.1)}, rows(feed, i), key)
        expected, said = step(expected, batch, key)
        assert metrics["loss"][i] == pytest.approx(float(said["loss"]), 1e-5)
    np.testing.assert_allclose(state.params["w"], expected.params["w"], rtol=1e-5)
