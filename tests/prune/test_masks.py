import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.prune import apply_masks, topk_mask


@pytest.mark.parametrize(
    ("score", "sparsity", "kept"),
    [
        ([3.0, 1.0, 2.0, 0.0], 0.0, [1, 1, 1, 1]),
        ([3.0, 1.0, 2.0, 0.0], 0.25, [1, 1, 1, 0]),
        ([3.0, 1.0, 2.0, 0.0], 0.5, [1, 0, 1, 0]),
        ([3.0, 1.0, 2.0, 0.0], 0.75, [1, 0, 0, 0]),
        # Never all of them.
        ([3.0, 1.0, 2.0, 0.0], 1.0, [1, 0, 0, 0]),
        ([3.0, 1.0, 2.0, 0.0], 0.9, [1, 0, 0, 0]),
        ([5.0], 0.9, [1]),
        # Half to even: 0.5, 1.5 and 2.5 of four are 0, 2 and 2.
        ([3.0, 1.0, 2.0, 0.0], 0.125, [1, 1, 1, 1]),
        ([3.0, 1.0, 2.0, 0.0], 0.375, [1, 0, 1, 0]),
        ([3.0, 1.0, 2.0, 0.0], 0.625, [1, 0, 1, 0]),
        # Among equals the lower index goes first.
        ([1.0, 1.0, 1.0, 1.0], 0.5, [0, 0, 1, 1]),
        ([2.0, 1.0, 1.0, 1.0, 0.0], 0.4, [1, 0, 1, 1, 0]),
        # Scores, not magnitudes; infinities and signed zeros have their places.
        ([-3.0, 1.0, -np.inf, np.inf], 0.5, [0, 1, 0, 1]),
        ([0.0, -0.0, 0.0, -0.0], 0.5, [0, 0, 1, 1]),
        # A tensor is ranked as a whole, in its flat order.
        ([[1.0, 4.0], [3.0, 2.0]], 0.5, [[0, 1], [1, 0]]),
        ([[1.0, 1.0], [1.0, 1.0]], 0.25, [[0, 1], [1, 1]]),
    ],
)
def test_golden(score, sparsity, kept):
    found = topk_mask(jnp.array(score), sparsity)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, np.array(kept, bool))


_traced = jax.jit(topk_mask)


@settings(deadline=None, max_examples=60)
@given(
    # Few shapes, since each is compiled; many scores with ties among them.
    st.sampled_from([(1,), (7,), (3, 5), (64,)]).flatmap(
        lambda shape: hnp.arrays(np.float32, shape, elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0]))
    ),
    st.floats(0, 1, width=32),
)
def test_the_count_is_exact_and_no_kept_score_is_below_a_pruned_one(score, sparsity):
    kept = np.asarray(_traced(score, np.float32(sparsity)))
    n = score.size
    assert (~kept).sum() == min(np.round(np.float32(sparsity) * np.float32(n)), n - 1)
    if not kept.all():
        assert score[kept].min() >= score[~kept].max()


@pytest.mark.parametrize("n", [10, 37, 1000, 4608, 589_824])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.8, 0.9, 0.95])
def test_the_count_is_that_of_exact_arithmetic(n, sparsity):
    # What float32 does to sparsities that are not binary fractions never costs a weight here.
    found = np.asarray(_traced(jnp.arange(n, dtype=jnp.float32), np.float32(sparsity)))
    pruned = min(round(sparsity * n), n - 1)
    np.testing.assert_array_equal(found, np.arange(n) >= pruned)


def test_a_large_constant_tensor_is_pruned_from_its_beginning():
    found = topk_mask(jnp.ones((40, 50)), 0.3)
    np.testing.assert_array_equal(found.ravel(), np.arange(2000) >= 600)


def test_traced_sparsity_does_not_retrace():
    traces = []

    @jax.jit
    def mask(score, sparsity):
        traces.append(0)
        return topk_mask(score, sparsity)

    score = jnp.arange(8.0)
    assert [int(mask(score, jnp.float32(s)).sum()) for s in (0.0, 0.25, 0.5)] == [8, 6, 4]
    assert len(traces) == 1


def test_low_precision_scores():
    found = topk_mask(jnp.array([1.0, 3.0, 2.0, 0.5], jnp.bfloat16), 0.5)
    np.testing.assert_array_equal(found, [False, True, True, False])


def test_apply_masks_gives_exact_zeros_and_leaves_the_unmasked_alone():
    masks = {"kernel": jnp.array([[True, False], [False, True]]), "bias": None, "deep": [None]}
    tree = {
        "kernel": jnp.array([[1.0, jnp.nan], [-2.0, 3.0]], jnp.bfloat16),
        "bias": jnp.array([0.0, 5.0]),
        "deep": [jnp.array(7)],
    }
    found = apply_masks(masks, tree)
    np.testing.assert_array_equal(found["kernel"].astype(np.float32), [[1, 0], [0, 3]])
    assert found["kernel"].dtype == jnp.bfloat16
    assert found["bias"] is tree["bias"]
    assert found["deep"][0] is tree["deep"][0]


def test_apply_masks_refuses_another_tree():
    with pytest.raises(ValueError, match=r"bias|structure|key"):
        apply_masks({"kernel": None}, {"kernel": jnp.ones(2), "bias": jnp.ones(2)})
