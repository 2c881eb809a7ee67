"""Modules beside a model, the memory of a method, targets and schedules: in the state of every step."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import losses, models, train
from kdjax.models import Compute
from kdjax.train import optimizers

QUEUE = 16


def network(axis_name=None):
    compute = Compute(axis_name=axis_name)
    return models.EncoderProjector(
        models.CNN([4, 8], compute=compute), models.Projector([8, 4], compute=compute)
    )


def predictor(axis_name=None):
    return models.Projector([6, 4], compute=Compute(axis_name=axis_name))


def variables():
    image = jnp.zeros((1, 6, 6, 1))
    own = network().init(jax.random.key(0), image, train=True)
    beside = predictor().init(jax.random.key(1), jnp.zeros((1, 4)), train=True)
    rows = jax.random.normal(jax.random.key(2), (QUEUE, 4))
    memory = {"queue": rows, "pointer": jnp.int32(0)}
    return train.with_auxiliary({**own, train.MEMORY: memory}, {"predictor": beside})


def objective(axis_name=None):
    """A contrast of predictions with the target network's projections, against a queue of them."""
    model, head = network(axis_name), predictor(axis_name)

    def forward(params, state, batch, key):
        outputs, changed = model.apply(
            {"params": params, **state.model_state},
            batch["inputs"],
            train=True,
            mutable=["batch_stats"],
        )
        model_state = {**state.model_state, **changed}
        query, model_state = train.apply_auxiliary(
            head, "predictor", params, model_state, outputs["projections"], train=True
        )
        target, _ = model.apply(
            {"params": state.ema_params, **state.model_state},
            batch["other"],
            train=True,
            mutable=["batch_stats"],
        )
        memory = state.model_state[train.MEMORY]
        queue, pointer = losses.enqueue(
            memory["queue"], target["projections"], memory["pointer"], axis_name=axis_name
        )
        model_state[train.MEMORY] = {"queue": queue, "pointer": pointer}
        outputs = {"query": query, "key": target["projections"], "queue": memory["queue"]}
        return outputs, model_state

    def contrast(outputs, batch):
        return losses.info_nce(outputs["query"], outputs["key"], outputs["queue"], temperature=0.2)

    return train.weigh(forward, {"contrast": (1.0, contrast)}, axis_name=axis_name)


def batch(step):
    image, other = jax.random.normal(jax.random.key(10 + step), (2, 8, 6, 6, 1))
    return {"inputs": image, "other": other}


def run(parallel, *, steps=3, accumulate=1):
    tx = optax.sgd(0.1, momentum=0.9)
    state = parallel.replicate(train.TrainState.start(variables(), tx, ema=True))
    step = train.make_train_step(
        objective(parallel.axis_name),
        tx,
        ema=optimizers.ramp(0.5, 1.0, begin_step=0, end_step=steps, cosine=True),
        accumulate=accumulate,
        axis_name=parallel.axis_name,
    )
    run_steps = parallel.compile(train.make_run_steps(lambda resident, feed, key: feed, step))
    metrics = {}
    for i in range(steps):
        feed = parallel.feed(jax.tree.map(lambda x: np.asarray(x)[None], batch(i)))
        key = parallel.replicate(jax.random.key(3))
        state, metrics = run_steps(state, parallel.replicate({}), feed, key)
    return jax.device_get((state, metrics))


@pytest.fixture(scope="module")
def alone():
    return run(train.choose("single"))


@pytest.mark.parametrize("name", ["pmap", "mesh"])
def test_eight_devices_keep_the_memory_and_the_target_of_one(alone, name):
    found = run(train.choose(name))
    for one, many in zip(jax.tree.leaves(alone), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(many, one, rtol=2e-4, atol=2e-5)
    assert found[0].model_state[train.MEMORY]["pointer"] == 3 * 8 % QUEUE


def test_parts_of_a_batch_go_into_the_queue_one_after_the_other(alone):
    state, _ = run(train.choose("single"), steps=1, accumulate=2)
    assert state.model_state[train.MEMORY]["pointer"] == 8
    model, start = network(), variables()

    def projections(rows):
        image = batch(0)["other"][rows]
        outputs, _ = model.apply(start, image, train=True, mutable=["batch_stats"])
        return outputs["projections"]

    queue = state.model_state[train.MEMORY]["queue"]
    expected = jnp.concatenate([projections(jnp.arange(i, 8, 2)) for i in range(2)])
    # Four rows are normalised together, by sums in another order: 2e-5 apart on a processor with AVX2.
    apart = np.abs(expected[:, None] - expected[None]).max(-1) + np.eye(8)
    assert apart.min() > 0.01  # so each row is in its own place
    np.testing.assert_allclose(queue[:8], expected, rtol=2e-4, atol=2e-5)


def test_what_is_left_is_the_model_alone(alone):
    state, _ = alone
    image = jnp.zeros((1, 6, 6, 1))
    expected = jax.eval_shape(lambda: network().init(jax.random.key(0), image, train=True))
    for found in (state.variables, state.live_variables):
        assert jax.tree.structure(found) == jax.tree.structure(expected)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.variables, state.live_variables)
    assert max(jax.tree.leaves(moved["params"])) > 0
    for collection in ("params", "batch_stats"):  # the module beside it learned, too
        before = variables()[collection][train.BESIDE]
        after = {"params": state.params, **state.model_state}[collection][train.BESIDE]
        same = jax.tree.map(lambda a, b: np.array_equal(a, b), before, after)
        assert not all(jax.tree.leaves(same))


def test_statistics_of_connectors_alone_are_not_the_models():
    own = nn.Dense(2).init(jax.random.key(0), jnp.zeros((1, 3)))
    beside = predictor().init(jax.random.key(1), jnp.zeros((1, 4)), train=True)
    assert train.of_model(train.with_auxiliary(own, {"predictor": beside})) == own


def test_the_target_follows_at_the_pace_of_its_schedule():
    tx = optax.sgd(1.0)

    def pull(params, state, batch, key):
        return -params["w"], (state.model_state, {})

    ramp = optimizers.ramp(0.0, 1.0, begin_step=0, end_step=2)
    step = jax.jit(train.make_train_step(pull, tx, ema=ramp))
    state = train.TrainState.start({"params": {"w": jnp.float32(0.0)}}, tx, ema=True)
    averages = []
    for _ in range(4):
        state, _ = step(state, {}, jax.random.key(0))
        averages.append(float(state.ema_params["w"]))
    # Decays 0, 1/2, 1, 1 while w is 1, 2, 3, 4.
    np.testing.assert_allclose(averages, [1.0, 1.5, 1.5, 1.5])


@pytest.mark.parametrize(
    ("cosine", "expected"),
    [(False, [2.0, 2.0, 3.0, 4.0, 6.0, 6.0]), (True, [2.0, 2.0, 2.5857864, 4.0, 6.0, 6.0])],
)
def test_a_ramp(cosine, expected):
    ramp = optimizers.ramp(2.0, 6.0, begin_step=4, end_step=8, cosine=cosine)
    found = [float(ramp(jnp.int32(step))) for step in (0, 4, 5, 6, 8, 100)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_numbers_of_a_term_may_be_schedules():
    def make(now):
        def forward(params, state, batch, key):
            return {"x": params["w"][None] * now["scale"]}, state.model_state

        return train.weigh(
            forward,
            {"x": (now["weight"], lambda out, b: out["x"])},
            watched={"watched/x": lambda out, b: out["x"]},
        )

    objective = train.scheduled(make, {"scale": lambda step: 2.0 * step, "weight": 3.0})
    tx = optax.sgd(0.1)
    state = train.TrainState.start({"params": {"w": jnp.float32(1.0)}}, tx)
    for step in (1, 2):
        state = state.replace(step=jnp.int32(step))
        loss, (_, metrics) = objective(state.params, state, {}, jax.random.key(0))
        assert loss == 6.0 * step
        assert metrics == {"loss/x": 2.0 * step, "watched/x": 2.0 * step}
