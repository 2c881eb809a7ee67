"""A batch in parts, on one device and on several, is the batch: also where some rows alone count."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax.train import TrainState, make_run_steps, make_train_step, weigh
from tests import runs

ROWS = 32
POSITIONS = 5
WEIGHTS = {"plain": 0.3, "labelled": 0.5, "weighted": 2.0, "sure": 0.7, "positions": 0.4}


def forward(params, state, batch, key):
    return {"y": jnp.tanh(batch["x"] @ params["w"])}, state.model_state


TERMS = {
    "plain": lambda outputs, batch: outputs["y"] ** 2,
    "labelled": lambda outputs, batch: ((outputs["y"] - batch["t"]) ** 2, batch["labelled"]),
    "weighted": lambda outputs, batch: ((outputs["y"] + batch["t"]) ** 2, batch["weight"]),
    "positions": lambda outputs, batch: (
        (outputs["y"][:, None] - batch["values"]) ** 2,
        jnp.arange(POSITIONS)[None] < batch["length"][:, None],
    ),
    "sure": lambda outputs, batch: (
        (outputs["y"] - 1) ** 2,
        jax.lax.stop_gradient(outputs["y"]) > batch["least"],
    ),
}
WATCHED = {"mean": lambda outputs, batch: (outputs["y"], batch["labelled"])}


def batch_of(seed, *, labelled=0.3, least=0.2):
    random = np.random.default_rng(seed)
    batch = {
        "x": random.normal(size=(ROWS, 3)),
        "t": random.normal(size=ROWS),
        "weight": random.exponential(size=ROWS) * (random.random(ROWS) < 0.6),
        "least": np.full(ROWS, least),
        "values": random.normal(size=(ROWS, POSITIONS)),
        "length": random.integers(POSITIONS + 1, size=ROWS) * (random.random(ROWS) < 2 * labelled),
    }
    batch = {name: x.astype(np.float32) for name, x in batch.items()}
    return batch | {"labelled": random.random(ROWS) < labelled}


BATCHES = {
    "any": batch_of(0),
    "others": batch_of(1, labelled=0.7),
    "one row": batch_of(2, labelled=0) | {"labelled": np.arange(ROWS) == 13},
    "none": batch_of(3, labelled=0, least=1),
    "runs": batch_of(4) | {"labelled": np.arange(ROWS) % 4 == 1},  # one part of four has them all
}


def by_hand(w, batch):
    """Loss, metrics and gradient, in float64."""
    batch = {name: x.astype(np.float64) for name, x in batch.items()}
    y = np.tanh(batch["x"] @ w)
    apart = y[:, None] - batch["values"]
    losses = {
        "plain": (y**2, 2 * y, np.ones(ROWS)),
        "labelled": ((y - batch["t"]) ** 2, 2 * (y - batch["t"]), batch["labelled"]),
        "weighted": ((y + batch["t"]) ** 2, 2 * (y + batch["t"]), batch["weight"]),
        "sure": ((y - 1) ** 2, 2 * (y - 1), (y > batch["least"]).astype(np.float64)),
        "positions": (apart**2, 2 * apart, np.arange(POSITIONS) < batch["length"][:, None]),
    }
    means, gradient = {}, np.zeros(3)
    for name, (loss, slope, rows) in losses.items():
        share = rows / max(rows.sum(), 1e-9)
        means[f"loss/{name}"] = (share * loss).sum()
        slopes = (share * slope).reshape(ROWS, -1).sum(1)
        gradient += WEIGHTS[name] * (slopes * (1 - y**2)) @ batch["x"]
    labelled = batch["labelled"]
    said = {**means, "mean": (labelled * y).sum() / max(labelled.sum(), 1e-9)}
    said["loss"] = sum(WEIGHTS[name] * means[f"loss/{name}"] for name in WEIGHTS)
    return said, gradient


@pytest.fixture(scope="module", params=runs.WAYS)
def way(request):
    return request.param


@pytest.fixture(scope="module", params=[1, 2, 4])
def step(request, way):
    """`(w, batch) -> (metrics, gradient)` of a compiled step."""
    parallel = runs.WAYS[way]()
    terms = {name: (WEIGHTS[name], term) for name, term in TERMS.items()}
    objective = weigh(forward, terms, watched=WATCHED, axis_name=parallel.axis_name)
    tx = optax.sgd(1.0)
    one = make_train_step(objective, tx, accumulate=request.param, axis_name=parallel.axis_name)
    run_steps = parallel.compile(make_run_steps(lambda resident, feed, key: feed, one))

    def run(w, batch):
        state = TrainState.start({"params": {"w": jnp.asarray(w, jnp.float32)}}, tx)
        state, metrics = run_steps(
            parallel.replicate(state),
            {},
            parallel.feed({name: x[None] for name, x in batch.items()}),
            parallel.replicate(jax.random.key(0)),
        )
        after = jax.device_get(state.params["w"])
        return {name: float(np.asarray(x)[0]) for name, x in metrics.items()}, w - after

    return run


@pytest.mark.parametrize("name", BATCHES)
def test_a_mean_over_chosen_rows_is_that_of_the_whole_batch(step, name):
    w = np.array([0.4, -0.9, 0.3])
    metrics, gradient = step(w, BATCHES[name])
    expected, slope = by_hand(w, BATCHES[name])
    assert metrics.keys() == {*expected, "norm/grad", "norm/update"}
    for metric, value in expected.items():
        assert metrics[metric] == pytest.approx(value, rel=2e-6, abs=2e-6), metric
    np.testing.assert_allclose(gradient, slope, rtol=3e-6, atol=3e-6)


def products(term):
    """The matrix products in the program of a step of two parts."""
    tx = optax.sgd(1.0)
    step = make_train_step(weigh(forward, {"term": (1.0, term)}), tx, accumulate=2)
    state = TrainState.start({"params": {"w": jnp.zeros(3)}}, tx)
    lowered = jax.jit(step).lower(state, BATCHES["any"], jax.random.key(0))
    return lowered.as_text().count("dot_general")


def test_only_where_its_outputs_choose_does_a_batch_go_through_a_model_once_more():
    assert products(TERMS["labelled"]) == products(TERMS["weighted"]) == products(TERMS["plain"])
    assert products(TERMS["sure"]) > products(TERMS["plain"])
