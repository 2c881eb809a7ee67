import chex
import flax.linen as nn
import jax
import jaxlib.version
import numpy as np
import optax
import pytest

from kdjax.train import (
    TrainState,
    check_batch,
    choose,
    make_run_steps,
    make_train_step,
    parallel,
    rows_of_process,
    weigh,
)
from kdjax.train.parallel import mapped, meshed, single
from kdjax.types import BadInput
from tests import runs


@pytest.mark.parametrize("way", ["pmap", "mesh"])
@pytest.mark.parametrize("method", runs.METHODS)
def test_eight_devices_give_the_numbers_of_one(method, way):
    found, expected = runs.fitted(method, way), runs.fitted(method, "single")
    assert jax.device_count() == runs.WAYS[way]().devices == 8
    assert len(found.states) == 5
    chex.assert_trees_all_close(found.metrics, expected.metrics, rtol=1e-5, atol=1e-5)
    for state, wanted in zip(found.states, expected.states, strict=True):
        # Everything: parameters and their average, gradients, momentum, batch statistics.
        chex.assert_trees_all_close(state, wanted, rtol=1e-5, atol=1e-5)
        grads, wanted = state.opt_state[0], wanted.opt_state[0]
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted))
        chex.assert_trees_all_close(grads, wanted, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("method", runs.METHODS)
def test_the_compared_runs_move(method):
    found = runs.fitted(method, "single")
    assert (found.metrics["norm/grad"] > 0.05).all()
    assert len(set(found.metrics["loss"])) == 5
    last = {"params": found.states[-1].params, **found.states[-1].model_state}
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), last, dict(runs.METHODS[method]().variables)
    )
    assert all(leaf > 1e-4 for leaf in jax.tree.leaves(moved))


def test_the_norm_of_the_gradient_is_that_of_the_gradient():
    found = runs.fitted("simclr", "pmap")
    grads = [np.ravel(leaf) for leaf in jax.tree.leaves(found.states[-1].opt_state[0])]
    norm = np.linalg.norm(np.concatenate(grads))
    assert found.metrics["norm/grad"][-1] == pytest.approx(norm, 1e-5)


def test_the_compared_batches_have_unlike_numbers_of_labels_on_the_devices():
    labels = runs.distillation().resident["label"]
    counts = [(labels[feed["row"].reshape(8, -1)] >= 0).sum(axis=1) for _, feed in runs.feeds(0, 5)]
    assert all(len(set(count)) >= 3 for count in counts)
    assert any(0 in count for count in counts)


@pytest.mark.parametrize("way", runs.WAYS)
def test_several_steps_a_dispatch_are_those_steps_one_by_one(way):
    expected = runs.fitted("distillation", way)
    found = runs.fitted("distillation", way, dispatch_steps=5)
    assert len(found.states) == 1
    chex.assert_trees_all_close(found.metrics, expected.metrics, rtol=1e-6, atol=1e-6)
    last, wanted = found.states[-1], expected.states[-1]
    chex.assert_trees_all_close(last.variables, wanted.variables, rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_close(last, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", runs.WAYS)
@pytest.mark.parametrize("method", runs.METHODS)
def test_the_second_call_neither_traces_nor_compiles(method, way):
    found = runs.fitted(method, way)
    assert min(found.traces[0], found.compilations[0]) > 0
    assert set(found.traces[1:]) == {found.traces[0]}
    assert set(found.compilations[1:]) == {found.compilations[0]}


@pytest.mark.parametrize("way", runs.WAYS)
def test_a_step_takes_the_buffers_of_the_old_state(way):
    assert all(runs.fitted("distillation", way).given_up)


class Normed(nn.Module):
    """Examples meet in its BatchNorm."""

    axis_name: str | None

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=False, axis_name=self.axis_name)(nn.Dense(4)(x))
        return nn.Dense(1)(nn.relu(x))[:, 0]


def accumulated(parallel, *, accumulate, order=slice(None)):
    model, tx = Normed(parallel.axis_name), optax.sgd(0.1)

    def forward(params, state, batch, key):
        variables = {"params": params, **state.model_state}
        out, model_state = model.apply(variables, batch["x"], mutable=["batch_stats"])
        return {"out": out}, model_state

    def chosen(outputs, batch):
        return outputs["out"] ** 2, batch["x"][:, 0] > 0.5

    objective = weigh(forward, {"chosen": (1.0, chosen)}, axis_name=parallel.axis_name)
    step = make_train_step(objective, tx, accumulate=accumulate, axis_name=parallel.axis_name)
    run_steps = parallel.compile(make_run_steps(lambda resident, feed, key: feed, step))
    x = np.random.default_rng(0).normal(size=(2, 32, 3)).astype(np.float32)[:, order]
    variables = model.init(jax.random.key(0), x[0])
    state = parallel.replicate(TrainState.start(variables, tx))
    state, metrics = run_steps(
        state, {}, parallel.feed({"x": x}), parallel.replicate(jax.random.key(0))
    )
    return jax.device_get((state, metrics))


def test_parts_of_a_batch_are_the_same_examples_on_any_number_of_devices():
    # With BatchNorm, other parts give other numbers.
    expected = accumulated(single(), accumulate=4)
    for way in (mapped, meshed):
        found = accumulated(way(), accumulate=4)
        chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)
    whole = accumulated(single(), accumulate=1)
    runs_of_rows = np.arange(32).reshape(4, 8).T.ravel()
    others = accumulated(single(), accumulate=4, order=runs_of_rows)
    for other in (whole, others):
        assert np.abs(expected[1]["loss"] - other[1]["loss"]).max() > 5e-3


@pytest.mark.optimized
@pytest.mark.parametrize("way", [single, mapped, meshed])
def test_what_is_compiled_soon_gives_the_same_numbers(way):
    usual = way()
    soon = usual._replace(compile=lambda run_steps: usual.compile(run_steps, brief=True))
    found, expected = (accumulated(one, accumulate=2) for one in (soon, usual))
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)


def test_only_where_it_was_measured_is_something_compiled_otherwise(monkeypatch):
    monkeypatch.setattr(jaxlib.version, "__version__", "0.10.9")
    assert parallel._soon(False) is None
    assert parallel._soon(True) == {"xla_cpu_use_fusion_emitters": False}
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert parallel._soon(True) is None
    monkeypatch.undo()
    monkeypatch.setattr(jaxlib.version, "__version__", "0.11.0")
    assert parallel._soon(True) is None


def test_a_feed_is_on_the_devices_before_it_is_used():
    feed = {"row": np.arange(32).reshape(2, 16)}
    for way, shape in (("single", (2, 16)), ("pmap", (2, 8, 2)), ("mesh", (2, 16))):
        parallel = runs.WAYS[way]()
        placed = parallel.feed(feed)["row"]
        assert isinstance(placed, jax.Array)
        assert placed.shape == shape
        assert len(placed.sharding.device_set) == parallel.devices
        np.testing.assert_array_equal(np.asarray(placed).reshape(2, 16), feed["row"])


@pytest.mark.parametrize("way", runs.WAYS)
def test_replicated_is_whole_on_every_device(way):
    parallel = runs.WAYS[way]()
    tree = parallel.replicate({"x": np.arange(6.0, dtype=np.float32), "key": jax.random.key(7)})
    shards = tree["x"].addressable_shards
    assert len(shards) == parallel.devices
    for shard in shards:
        np.testing.assert_array_equal(shard.data, np.arange(6))
    np.testing.assert_array_equal(*map(jax.random.key_data, (tree["key"], jax.random.key(7))))


def test_choose():
    assert [choose(way).devices for way in ("single", "pmap", "mesh", "auto")] == [1, 8, 8, 8]
    assert [choose(way).axis_name for way in ("single", "pmap", "mesh")] == [None, "data", None]
    assert choose("auto").axis_name == "data"
    with pytest.raises(BadInput, match="parallel: 'xmap' is not one of auto, single, pmap, mesh"):
        choose("xmap")


def test_a_batch_that_cannot_be_shared_is_refused():
    check_batch(48, mapped(), accumulate=3, field="batch")
    check_batch(7, single(), accumulate=7, field="batch")
    for batch, accumulate in ((12, 1), (8, 2), (24, 2)):
        with pytest.raises(BadInput, match=rf"stages\.a\.batch: {batch} .* multiple of "):
            check_batch(batch, mapped(), accumulate=accumulate, field="stages.a.batch")


def test_one_process_reads_all_rows():
    assert rows_of_process(24) == slice(0, 24)
