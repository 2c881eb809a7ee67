import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.prune import scores
from kdjax.prune.masks import global_topk_masks, topk_mask

RNG = np.random.default_rng(0)
W, G = (RNG.normal(size=(3, 4, 5)) for _ in range(2))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("score", "golden", "arrays"),
    [
        (scores.magnitude, np.abs, (W,)),
        (scores.squared, lambda w: w**2, (W,)),
        (scores.saliency, lambda w, g: np.abs(w * g), (W, G)),
        (scores.taylor, lambda w, g: (w * g) ** 2, (W, G)),
        (scores.normalized, lambda s: s / (np.sqrt((s**2).sum()) + 1e-8), (W,)),
    ],
)
def test_golden(score, golden, arrays, dtype):
    given = [jnp.asarray(array, dtype) for array in arrays]
    found = score(*given)
    assert found.dtype == jnp.float32
    # In float32 whatever comes in: exact but for the last bits, even of bfloat16 weights.
    expected = golden(*(np.asarray(array, np.float64) for array in given))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_squares_rank_single_weights_as_magnitudes_but_not_their_sums():
    w, g = jnp.asarray(W, jnp.float32), jnp.asarray(G, jnp.float32)
    for one, other in (
        (scores.magnitude(w), scores.squared(w)),
        (scores.saliency(w, g), scores.taylor(w, g)),
    ):
        np.testing.assert_array_equal(topk_mask(one, 0.5), topk_mask(other, 0.5))
    channels = jnp.array([[3.0, 2.1], [0.0, 2.1]])
    assert scores.magnitude(channels).sum(0).argmax() == 1
    assert scores.squared(channels).sum(0).argmax() == 0


def test_saliency_is_the_change_of_a_loss_that_is_linear():
    g = jnp.asarray(G, jnp.float32)

    def loss(w):
        return jnp.sum(w * g)

    w = jnp.asarray(W, jnp.float32)
    found = scores.saliency(w, jax.grad(loss)(w))
    for place in [(0, 0, 0), (2, 3, 4), (1, 2, 0)]:
        change = abs(loss(w.at[place].set(0.0)) - loss(w))
        np.testing.assert_allclose(found[place], change, rtol=1e-4, atol=1e-5)


def test_random_is_a_function_of_the_key_and_the_shape():
    key = jax.random.key(0)
    found = scores.random(key, jnp.full((40, 50), jnp.nan, jnp.bfloat16))
    assert found.dtype == jnp.float32
    assert found.min() >= 0
    assert found.max() < 1
    np.testing.assert_allclose(found.mean(), 0.5, atol=0.03)
    np.testing.assert_array_equal(found, scores.random(key, jnp.zeros((40, 50))))
    assert (found != scores.random(jax.random.fold_in(key, 1), found)).any()


def test_normalized_has_norm_one_and_zero_stays_zero():
    found = scores.normalized(jnp.asarray(W * 1e3, jnp.float32))
    np.testing.assert_allclose(np.linalg.norm(found.ravel()), 1, rtol=1e-6)
    np.testing.assert_array_equal(scores.normalized(jnp.zeros(3)), np.zeros(3))


def test_normalized_scores_do_not_ask_a_layer_for_its_scale():
    w = {"small": jnp.asarray(W[0] * 1e-3, jnp.float32), "large": jnp.asarray(W[0], jnp.float32)}
    raw = jax.tree.map(scores.magnitude, w)
    assert global_topk_masks(raw, 0.5, at_least=0)["small"].sum() == 0
    found = global_topk_masks(jax.tree.map(scores.normalized, raw), 0.5)
    np.testing.assert_array_equal(found["small"], found["large"])
    assert found["small"].sum() == 10
