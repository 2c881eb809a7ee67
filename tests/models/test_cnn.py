import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import tree
from kdjax.models import CNN, Compute

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.normal(size=(16, 6, 6, 1)), jnp.float32)


def _fresh(model):
    """What `init` gives, with kernels of NumPy: nothing to compile."""
    shapes = jax.eval_shape(lambda: model.init(KEY, IMAGES, train=False))
    fill = {"scale": np.ones, "bias": np.zeros, "mean": np.zeros, "var": np.ones}
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            fill.get(path[-1].key, lambda shape: RNG.normal(0, 0.3, shape))(leaf.shape), leaf.dtype
        ),
        shapes,
    )


def test_shapes_and_parameters():
    model = CNN((4, 6, 8))

    def run(x):
        variables = model.init(KEY, x, train=False)
        return variables, model.apply(variables, x, train=False, capture_intermediates=True)

    variables, (features, seen) = jax.eval_shape(run, IMAGES)
    assert (features.shape, features.dtype) == ((16, 8), jnp.float32)
    shapes = [seen["intermediates"][f"block{i}"]["__call__"][0].shape for i in range(3)]
    assert shapes == [(16, 6, 6, 4), (16, 3, 3, 6), (16, 2, 2, 8)]
    # No bias beside a normalisation: 9 * in * out, then scale and bias.
    assert tree.size(variables["params"]) == 9 * (1 * 4 + 4 * 6 + 6 * 8) + 2 * (4 + 6 + 8)
    assert tree.size(variables["batch_stats"]) == 2 * (4 + 6 + 8)


def test_training_normalises_with_the_batch_and_evaluation_with_the_running_moments():
    model = CNN((4,))
    variables = _fresh(model)
    kernel = np.asarray(variables["params"]["block0"]["conv"]["kernel"], np.float64)
    padded = np.pad(np.asarray(IMAGES, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    # Float64 cross-correlation, window by window.
    conv = sum(
        padded[:, i : i + 6, j : j + 6, :] @ kernel[i, j] for i in range(3) for j in range(3)
    )
    mean, var = conv.mean((0, 1, 2)), conv.var((0, 1, 2))

    train = jax.jit(lambda v: model.apply(v, IMAGES, train=True, mutable=["batch_stats"]))
    features, state = train(variables)
    expected = np.maximum((conv - mean) / np.sqrt(var + 1e-5), 0).mean((1, 2))
    np.testing.assert_allclose(features, expected, rtol=1e-4)
    moments = state["batch_stats"]["block0"]["norm"]
    np.testing.assert_allclose(moments["mean"], 0.1 * mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moments["var"], 0.9 + 0.1 * var, rtol=1e-4)

    features = jax.jit(lambda v: model.apply(v, IMAGES, train=False))(variables)
    np.testing.assert_allclose(
        features, np.maximum(conv / np.sqrt(1 + 1e-5), 0).mean((1, 2)), rtol=1e-4
    )


def test_bfloat16_computes_nearly_the_same_and_keeps_float32_around():
    narrow, wide = (CNN((4, 6), Compute(dtype=dtype)) for dtype in (jnp.bfloat16, jnp.float32))
    variables = _fresh(narrow)

    def run(model):
        return jax.jit(lambda v: model.apply(v, IMAGES, train=True, mutable=["batch_stats"]))(
            variables
        )

    (found, state), (expected, _) = run(narrow), run(wide)
    for leaf in jax.tree.leaves((variables, found, state)):
        assert leaf.dtype == jnp.float32
    found, expected = np.asarray(found), np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.02)
    assert np.abs(found - expected).max() > 1e-6  # it was computed in bfloat16


@pytest.mark.parametrize("synchronised", [True, False])
def test_eight_devices_share_their_batch_statistics(synchronised):
    one = CNN((4, 6))
    many = CNN((4, 6), Compute(axis_name="data" if synchronised else None))
    variables = _fresh(many)

    def train(model, x):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])

    expected, expected_state = jax.jit(lambda x: train(one, x))(IMAGES)
    shards = IMAGES.reshape(8, 2, 6, 6, 1)
    found, state = jax.pmap(lambda x: train(many, x), axis_name="data")(shards)
    pairs = [(np.asarray(found).reshape(16, -1), expected)]
    for new, old in zip(jax.tree.leaves(state), jax.tree.leaves(expected_state), strict=True):
        pairs += [(device, old) for device in np.asarray(new)]
    equal = [np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in pairs]
    # Without the axis's name the statistics are those of two examples: the test can tell.
    assert all(equal) == synchronised
