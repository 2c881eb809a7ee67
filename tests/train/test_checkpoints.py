import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import prune
from kdjax.train import Checkpoints, TrainState, load_tree, save_tree
from kdjax.train.parallel import mapped, meshed, single
from tests import runs


def assert_same(found, expected):
    """Bit for bit, every leaf of the state."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for leaf, wanted in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert leaf.dtype == wanted.dtype
        np.testing.assert_array_equal(leaf, wanted)


@pytest.mark.parametrize("way", ["single", "pmap"])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_resumed_run_is_the_run_that_was_never_stopped(tmp_path, way, steps):
    runs.fit("distillation", way, steps=steps, folder=tmp_path)
    resumed = runs.fit("distillation", way, folder=tmp_path)
    never_stopped = runs.fitted("distillation", way)
    assert len(resumed.states) == 5 - steps
    for found, expected in zip(resumed.states, never_stopped.states[steps:], strict=True):
        assert_same(found, expected)
    expected = jax.tree.map(lambda values: values[steps:], never_stopped.metrics)
    assert_same(resumed.metrics, expected)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("single", "pmap"),
        pytest.param("pmap", "single", marks=pytest.mark.thorough),
        pytest.param("single", "mesh", marks=pytest.mark.thorough),
        ("mesh", "single"),
        pytest.param("pmap", "mesh", marks=pytest.mark.thorough),
    ],
)
@pytest.mark.parametrize("method", runs.METHODS)
def test_a_run_may_go_on_with_another_number_of_devices(tmp_path, method, before, after):
    """From one to eight and back, and from one way to the other: see `test_devices` for others."""
    runs.fit(method, before, steps=3, folder=tmp_path)
    resumed = runs.fit(method, after, folder=tmp_path)
    expected = runs.fitted(method, "single")
    assert len(resumed.states) == 2
    chex.assert_trees_all_close(resumed.states[-1], expected.states[-1], rtol=1e-5, atol=1e-5)
    for name, values in resumed.metrics.items():
        if name.startswith("loss"):
            np.testing.assert_allclose(values, expected.metrics[name][3:], rtol=1e-6, err_msg=name)


def state(value=1.0, *, tx=None):
    """A small state with a bit of everything: an average, statistics, masks and their absence."""
    params = {"dense": {"kernel": jnp.full((2, 3), value, jnp.float32), "bias": jnp.zeros(3)}}
    half = prune.gradual(optax.constant_schedule(0.5))
    tx = prune.hold(
        optax.adam(0.1), half, begin_step=0, end_step=1, every_steps=1, prunable=".*/kernel"
    )
    return TrainState.start({"params": params, "batch_stats": {"m": jnp.ones(3)}}, tx, ema=True)


def at(step, value=1.0):
    return state(value).replace(step=jnp.int32(step))


@pytest.mark.parametrize("way", [single, mapped, meshed])
def test_what_is_restored_is_laid_out_as_it_is_wanted(tmp_path, way):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, at(3, 2.0))
    checkpoints.close()
    wanted = way().replicate(state())
    checkpoints = Checkpoints(tmp_path)
    found = checkpoints.latest(wanted)
    checkpoints.close()
    assert_same(jax.device_get(found), jax.device_get(at(3, 2.0)))
    for leaf, like in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        assert leaf.sharding == like.sharding
    assert prune.find_masks(found.opt_state)["dense"]["bias"] is None


def test_without_a_checkpoint_the_state_is_the_one_given(tmp_path):
    checkpoints, given = Checkpoints(tmp_path / "none"), state()
    assert checkpoints.latest(given) is given
    checkpoints.close()


def test_the_arrays_may_be_taken_once_a_save_has_begun(tmp_path):
    checkpoints, kept = Checkpoints(tmp_path), at(1, 7.0)
    double = jax.jit(lambda tree: jax.tree.map(lambda x: x + x, tree), donate_argnums=0)
    checkpoints.save(1, kept)
    double(kept)
    assert kept.params["dense"]["kernel"].is_deleted()
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert_same(jax.device_get(checkpoints.latest(state())), jax.device_get(at(1, 7.0)))
    checkpoints.close()


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (2, 5, 9, 11):
        checkpoints.save(step, at(step))
    checkpoints.close()
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [9, 11]


def test_what_a_killed_run_was_about_to_remove_is_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (2, 5, 9):
        checkpoints.save(step, at(step))
    checkpoints.close()
    (tmp_path / "2" / "record.json").unlink()
    checkpoints = Checkpoints(tmp_path, keep=2, reads_only=True)
    assert int(checkpoints.latest(state()).step) == 9
    assert checkpoints.steps() == [2, 5, 9]
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert int(checkpoints.latest(state()).step) == 9
    assert checkpoints.steps() == [5, 9]


def test_a_half_written_checkpoint_is_not_read(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (2, 4):
        checkpoints.save(step, at(step, float(step)))
    checkpoints.close()
    # What orbax leaves when it is stopped before the one move that makes a checkpoint one.
    (tmp_path / "4").rename(tmp_path / "4.orbax-checkpoint-tmp-17")
    shutil.rmtree(tmp_path / "4.orbax-checkpoint-tmp-17" / "default" / "d", ignore_errors=True)
    checkpoints = Checkpoints(tmp_path)
    assert_same(jax.device_get(checkpoints.latest(state())), jax.device_get(at(2, 2.0)))
    # The run goes on from there and writes that step again.
    checkpoints.save(4, at(4, 40.0))
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert_same(jax.device_get(checkpoints.latest(state())), jax.device_get(at(4, 40.0)))
    checkpoints.close()


def tree():
    return {
        "params": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.zeros(3, jnp.bfloat16)},
        "batch_stats": {"count": jnp.int32(4)},
    }


def test_a_tree_comes_back_as_it_was(tmp_path):
    save_tree(tmp_path / "t", tree())
    for expected in (tree(), jax.eval_shape(tree)):
        assert_same(load_tree(tmp_path / "t", expected), tree())


def test_numpy_arrays_can_be_saved(tmp_path):
    save_tree(tmp_path / "t", jax.device_get(tree()))
    assert_same(load_tree(tmp_path / "t", jax.eval_shape(tree)), tree())


def test_what_a_stopped_run_left_is_replaced(tmp_path):
    save_tree(tmp_path / "t", {"old": jnp.zeros(3), "older": jnp.zeros(2)})
    (tmp_path / "t" / "left_over").write_bytes(b"1")
    save_tree(tmp_path / "t", tree())
    assert_same(load_tree(tmp_path / "t", tree()), tree())
    assert not (tmp_path / "t" / "left_over").exists()


def changed(path, value):
    """The expected tree with another leaf at `path`, or without it."""
    expected = tree()
    *outer, last = path.split("/")
    node = expected
    for name in outer:
        node = node[name]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return expected


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("params/scale", jnp.ones(3), "params/scale: missing"),
        ("params/bias", None, "params/bias: not expected"),
        (
            "params/kernel",
            jnp.ones((3, 2)),
            r"params/kernel: found float32\[2, 3\], expected float32\[3, 2\]",
        ),
        (
            "params/bias",
            jnp.zeros(3),
            r"params/bias: found bfloat16\[3\], expected float32\[3\]",
        ),
        (
            "batch_stats/count",
            jnp.zeros(1, jnp.int32),
            r"batch_stats/count: found int32\[\], expected int32\[1\]",
        ),
    ],
)
def test_a_leaf_that_does_not_fit_is_named(tmp_path, path, value, fault):
    save_tree(tmp_path / "t", tree())
    with pytest.raises(ValueError, match=f"t does not fit the model: {fault}$"):
        load_tree(tmp_path / "t", changed(path, value))


def test_of_many_faults_the_first_are_named_and_the_rest_counted(tmp_path):
    save_tree(tmp_path / "t", {name: jnp.zeros(1) for name in "abcde"})
    with pytest.raises(ValueError, match=r"a: not expected; b: not expected; c: .* and 3 more"):
        load_tree(tmp_path / "t", {"f": jnp.zeros(1)})
