import functools

import chex
import jax
import numpy as np
import pytest
from jax import monitoring

from kdjax.train import check_batch, choose, rows_of_process
from kdjax.train.parallel import mapped, meshed, single
from kdjax.types import BadInput
from tests import runs

WAYS = {"single": single, "pmap": mapped, "mesh": meshed}
METHODS = {"simclr": runs.simclr, "distillation": runs.distillation}


@functools.cache
def fitted(method, way, **how):
    return runs.fit(METHODS[method](), WAYS[way](), **how)


@pytest.mark.parametrize("way", ["pmap", "mesh"])
@pytest.mark.parametrize("method", METHODS)
def test_eight_devices_give_the_numbers_of_one(method, way):
    (states, metrics), (expected, expected_metrics) = fitted(method, way), fitted(method, "single")
    assert jax.device_count() == WAYS[way]().devices == 8
    assert len(states) == 5
    chex.assert_trees_all_close(metrics, expected_metrics, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(states, expected, strict=True):
        # Everything: parameters, gradients and momentum, batch statistics.
        chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-5)
        grads, wanted = found.opt_state[0], wanted.opt_state[0]
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted))
        chex.assert_trees_all_close(grads, wanted, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("method", METHODS)
def test_the_compared_runs_move(method):
    states, metrics = fitted(method, "single")
    assert (metrics["norm/grad"] > 0.05).all()
    assert len(set(metrics["loss"])) == 5
    first = METHODS[method]().variables
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(),
        {"params": states[-1].params, **states[-1].model_state},
        first,
    )
    assert all(leaf > 1e-4 for leaf in jax.tree.leaves(moved))


def test_the_norm_of_the_gradient_is_that_of_the_gradient():
    states, metrics = fitted("simclr", "pmap")
    grads = [np.ravel(leaf) for leaf in jax.tree.leaves(states[-1].opt_state[0])]
    assert metrics["norm/grad"][-1] == pytest.approx(np.linalg.norm(np.concatenate(grads)), 1e-5)


def test_the_compared_batches_have_unlike_numbers_of_labels_on_the_devices():
    labels = runs.distillation().resident["label"]
    counts = [
        (labels[feed["row"].reshape(8, -1)] >= 0).sum(axis=1) for _, feed in runs.feeds(0, 5)
    ]
    assert all(len(set(count)) >= 3 for count in counts)
    assert any(0 in count for count in counts)


@pytest.mark.parametrize("way", ["pmap", "mesh"])
def test_parts_of_a_batch_are_the_same_examples_on_any_number_of_devices(way):
    # With BatchNorm and a mean over labelled rows, other parts would give other numbers.
    how = {"accumulate": 2, "steps": 2}
    found, expected = (fitted("distillation", w, **how) for w in (way, "single"))
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)
    whole = fitted("distillation", "single")[1]["loss"][:2]
    assert np.abs(found[1]["loss"] - whole).min() > 1e-4


@pytest.mark.parametrize("way", WAYS)
def test_several_steps_a_dispatch_are_those_steps_one_by_one(way):
    states, metrics = fitted("distillation", way, dispatch_steps=5)
    expected, expected_metrics = fitted("distillation", way)
    assert len(states) == 1
    chex.assert_trees_all_close(metrics, expected_metrics, rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_close(states[-1], expected[-1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_the_second_call_neither_traces_nor_compiles(way):
    parallel, traced, compilations = WAYS[way](), [], []
    method = runs.distillation()

    def views(*args):
        traced.append(args)
        return method.views(*args)

    tx = runs.sgd(method)
    run_steps = runs.compiled(method._replace(views=views), parallel, tx)
    state = runs.start(method, parallel, tx)
    resident, key = parallel.replicate(method.resident), parallel.replicate(jax.random.key(3))

    def count(event, seconds, **_):
        if "backend_compile" in event:
            compilations.append(event)

    monitoring.register_event_duration_secs_listener(count)
    try:
        for step, (_, feed) in enumerate(runs.feeds(0, 3)):
            state, _ = run_steps(state, resident, parallel.feed(feed), key)
            if step == 0:
                first = len(traced), len(compilations)
    finally:
        monitoring.unregister_event_duration_listener(count)
    assert min(first) > 0
    assert (len(traced), len(compilations)) == first


@pytest.mark.parametrize("way", WAYS)
def test_the_old_state_is_given_up(way):
    parallel, method = WAYS[way](), runs.distillation()
    tx = runs.sgd(method)
    run_steps = runs.compiled(method, parallel, tx)
    old = runs.start(method, parallel, tx)
    resident, key = parallel.replicate(method.resident), parallel.replicate(jax.random.key(3))
    (_, feed) = next(runs.feeds(0, 1))
    new, _ = run_steps(old, resident, parallel.feed(feed), key)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old.params))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((new, resident)))


def test_a_feed_is_on_the_devices_before_it_is_used():
    feed = {"row": np.arange(32).reshape(2, 16)}
    for way, shape in (("single", (2, 16)), ("pmap", (2, 8, 2)), ("mesh", (2, 16))):
        parallel = WAYS[way]()
        placed = parallel.feed(feed)["row"]
        assert isinstance(placed, jax.Array)
        assert placed.shape == shape
        assert len(placed.sharding.device_set) == parallel.devices
        np.testing.assert_array_equal(np.asarray(placed).reshape(2, 16), feed["row"])


@pytest.mark.parametrize("way", WAYS)
def test_replicated_is_whole_on_every_device(way):
    parallel = WAYS[way]()
    tree = parallel.replicate({"x": np.arange(6.0, dtype=np.float32), "key": jax.random.key(7)})
    shards = tree["x"].addressable_shards
    assert len(shards) == parallel.devices
    for shard in shards:
        np.testing.assert_array_equal(shard.data, np.arange(6))
    assert jax.random.key_data(tree["key"]).tolist() == jax.random.key_data(jax.random.key(7)).tolist()
    again = parallel.replicate(tree)
    assert again["x"].unsafe_buffer_pointer if way == "single" else again["x"] is tree["x"]


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
