import functools

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.prune.masks import (
    block_mask,
    channel_mask,
    check_sparsity,
    count_mask,
    global_topk_masks,
    nm_mask,
    pruned_count,
    threshold_mask,
    topk_mask,
)
from kdjax.tree import apply_masks
from kdjax.types import BadInput

_traced = jax.jit(topk_mask)


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
    found = _traced(jnp.array(score), jnp.float32(sparsity))
    assert found.dtype == bool
    np.testing.assert_array_equal(found, np.array(kept, bool))


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


_COUNTING = {
    "topk": topk_mask,
    "global": lambda score, s: global_topk_masks({"a": score, "b": None}, s)["a"],
    "block": lambda score, s: block_mask(score, s, block=(1, 2)),
    "channel": lambda score, s: channel_mask(score, s),
}


@pytest.mark.parametrize("name", _COUNTING)
def test_traced_sparsity_does_not_retrace_and_vmaps(name):
    traces = []

    @jax.jit
    def mask(score, sparsity):
        traces.append(0)
        return _COUNTING[name](score, sparsity)

    score = jnp.arange(32.0).reshape(4, 8)
    sparsities = jnp.array([0.0, 0.25, 0.5])
    found = [mask(score, s) for s in sparsities]
    assert [int(kept.sum()) for kept in found] == [32, 24, 16]
    assert len(traces) == 1
    mapped = jax.jit(jax.vmap(_COUNTING[name], in_axes=(None, 0)))(score, sparsities)
    np.testing.assert_array_equal(mapped, np.stack(found))


@pytest.mark.parametrize("name", _COUNTING)
@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_a_number_out_of_range_is_refused(name, sparsity):
    with pytest.raises(BadInput, match=r"^prune\.sparsity: .* is not in \[0, 1\)$"):
        _COUNTING[name](jnp.ones((4, 8)), sparsity)


def test_the_check_names_its_field_and_lets_arrays_pass():
    with pytest.raises(BadInput, match=r"^prune\.fraction: 2\.0 is not in"):
        check_sparsity(2.0, "prune.fraction")
    check_sparsity(jnp.float32(2.0))
    check_sparsity(0.0)


@pytest.mark.parametrize(
    ("n", "sparsity", "at_least", "pruned"),
    [
        (10, 0.85, 1, 8),
        (10, 0.25, 1, 2),
        (10, 0.35, 1, 4),
        (10, 1.0, 1, 9),
        (10, 1.0, 0, 10),
        (10, 0.9, 4, 6),
        (1, 0.9, 1, 0),
        # What is out of range is clipped where it cannot be refused.
        (10, 2.0, 1, 9),
        (10, -2.0, 1, 0),
        # Float32 has no 2**24 + 3, and would prune all of them.
        (2**24 + 4, 1.0, 1, 2**24 + 3),
    ],
)
def test_pruned_count_golden(n, sparsity, at_least, pruned):
    found = pruned_count(n, jnp.float32(sparsity), at_least=at_least)
    assert found.dtype == jnp.int32
    assert found == pruned


def test_count_mask_prunes_from_none_to_all_and_nan_last():
    score = jnp.array([[2.0, jnp.nan], [jnp.inf, 1.0]])
    order = [(1, 1), (0, 0), (1, 0), (0, 1)]
    for pruned in range(5):
        kept = np.ones((2, 2), bool)
        for place in order[:pruned]:
            kept[place] = False
        np.testing.assert_array_equal(count_mask(score, jnp.int32(pruned)), kept)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_count_mask_is_a_stable_sort(dtype):
    random = np.random.default_rng(0)
    few = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, -np.nan, 3e-5, 2.0], np.float32)
    every = [random.choice(few, 200), random.normal(size=200), np.zeros(200), few]
    for values in every:
        score = jnp.asarray(values, dtype)
        seen = np.asarray(score, np.float64)
        order = np.argsort(np.where(seen == 0, 0.0, seen), kind="stable")  # NumPy has NaN last
        for pruned in (0, 1, 2, len(seen) // 2, len(seen) - 1, len(seen)):
            kept = np.ones(len(seen), bool)
            kept[order[:pruned]] = False
            np.testing.assert_array_equal(count_mask(score, pruned), kept, err_msg=f"{pruned}")


def test_count_mask_of_doubles():
    with jax.enable_x64(True):
        score = jnp.array([1.0 + 1e-15, 1.0, -1e-300, 1.0 + 2e-15])
        assert score.dtype == jnp.float64
        np.testing.assert_array_equal(count_mask(score, 3), [False, False, False, True])
        np.testing.assert_array_equal(count_mask(score, 2), [True, False, False, True])


def test_threshold_mask_keeps_what_is_equal_and_may_keep_nothing():
    score = jnp.array([[0.5, -1.0], [2.0, 0.25]], jnp.bfloat16)
    np.testing.assert_array_equal(threshold_mask(score, 0.5), [[1, 0], [1, 0]])
    np.testing.assert_array_equal(
        jax.jit(threshold_mask)(score, jnp.float32(3.0)), np.zeros((2, 2))
    )
    # Compared in float32: bfloat16 would round 0.501 down to the score.
    assert not threshold_mask(score, 0.501)[0, 0]


_global = jax.jit(global_topk_masks, static_argnames="at_least")


@pytest.mark.parametrize(
    ("at_least", "sparsity", "kept"),
    [
        # One ranking: 0 1 2 3 | 4 5 | 6 by score.
        (0, 0.5, [[0, 0, 0, 0], [1, 1], [1]]),
        (0, 1.0, [[0, 0, 0, 0], [0, 0], [1]]),
        # The best of the first leaf stays, and the next of the ranking goes in its place.
        (1, 4 / 7, [[0, 0, 0, 1], [0, 1], [1]]),
        (1, 3 / 7, [[0, 0, 0, 1], [1, 1], [1]]),
        (1, 1.0, [[0, 0, 0, 1], [0, 1], [1]]),
        # A leaf that has fewer keeps what it has.
        (2, 1.0, [[0, 0, 1, 1], [1, 1], [1]]),
    ],
)
def test_global_golden(at_least, sparsity, kept):
    scores = [jnp.arange(4.0), jnp.array([4.0, 5.0], jnp.bfloat16), None, jnp.full((1, 1), 6.0)]
    found = _global(scores, jnp.float32(sparsity), at_least=at_least)
    assert found[2] is None
    assert [mask.shape for mask in found if mask is not None] == [(4,), (2,), (1, 1)]
    assert [mask.ravel().tolist() for mask in found if mask is not None] == kept


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(
        *(
            hnp.arrays(np.float32, shape, elements=st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 2.0]))
            for shape in [(2, 5), (3,), (9,)]
        )
    ),
    st.sampled_from([0, 1, 4]),
    st.floats(0, 1, width=32),
)
def test_global_is_a_sort_of_all_entries_that_are_in_question(leaves, at_least, sparsity):
    found = _global(list(leaves), np.float32(sparsity), at_least=at_least)
    entries = [(s, i, j) for i, leaf in enumerate(leaves) for j, s in enumerate(leaf.ravel())]
    safe = set()
    for i in range(len(leaves)):
        own = sorted(entry for entry in entries if entry[1] == i)
        safe |= set(own[max(len(own) - at_least, 0) :])
    pruned = min(int(np.round(np.float32(sparsity) * np.float32(22))), 22 - max(1, len(safe)))
    gone = {entry[1:] for entry in sorted(set(entries) - safe)[:pruned]}
    for i, mask in enumerate(found):
        expected = [(i, j) not in gone for j in range(mask.size)]
        np.testing.assert_array_equal(mask.ravel(), expected)


def test_global_of_one_leaf_is_topk():
    score = jnp.asarray(np.random.default_rng(0).integers(0, 5, (3, 5)), jnp.float32)
    for sparsity in (0.0, 0.3, 0.7, 0.99):
        found = _global({"w": score}, sparsity)["w"]
        np.testing.assert_array_equal(found, _traced(score, sparsity))


def test_global_refuses_an_empty_tree_and_a_negative_minimum():
    with pytest.raises(BadInput, match=r"^prune\.scores: the tree has no array"):
        global_topk_masks({"a": None}, 0.5)
    with pytest.raises(BadInput, match=r"^prune\.at_least: -1 is not at least 0"):
        global_topk_masks({"a": jnp.ones(2)}, 0.5, at_least=-1)


@pytest.mark.parametrize(
    ("n", "score", "kept"),
    [
        (2, [3.0, 1.0, 2.0, 0.0, 0.0, 1.0, 2.0, 3.0], [1, 0, 1, 0, 0, 0, 1, 1]),
        (1, [3.0, 1.0, 2.0, 0.0, 0.0, 1.0, 2.0, 3.0], [1, 0, 0, 0, 0, 0, 0, 1]),
        (3, [3.0, 1.0, 2.0, 0.0, 0.0, 1.0, 2.0, 3.0], [1, 1, 1, 0, 0, 1, 1, 1]),
        (4, [3.0, 1.0, 2.0, 0.0, 0.0, 1.0, 2.0, 3.0], [1] * 8),
        # Among equals the lower index goes first.
        (2, [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0], [0, 0, 1, 1, 0, 0, 1, 1]),
        (2, [0.0, -0.0, 0.0, -0.0, 5.0, 5.0, 5.0, 9.0], [0, 0, 1, 1, 0, 0, 1, 1]),
    ],
)
def test_nm_golden(n, score, kept):
    found = nm_mask(jnp.array(score), n=n, m=4, axis=-1)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, np.array(kept, bool))


@pytest.mark.parametrize("axis", [-2, 0, 3])
def test_nm_keeps_the_best_of_each_group_along_its_axis(axis):
    score = np.random.default_rng(1).normal(size=(4, 2, 8, 12)).astype(np.float32)
    found = np.asarray(jax.jit(lambda s: nm_mask(s, n=1, m=4, axis=axis))(score))
    expected = np.zeros(score.shape, bool)
    # Views with the axis last: what is written goes into `expected`.
    lines, marks = np.moveaxis(score, axis, -1), np.moveaxis(expected, axis, -1)
    for place in np.ndindex(lines.shape[:-1]):
        for begin in range(0, lines.shape[-1], 4):
            marks[place][begin + lines[place][begin : begin + 4].argmax()] = True
    np.testing.assert_array_equal(found, expected)


def test_nm_is_along_the_input_of_a_kernel_by_default_and_vmaps():
    kernels = jnp.asarray(np.random.default_rng(2).normal(size=(3, 8, 5)), jnp.float32)
    found = jax.jit(jax.vmap(lambda kernel: nm_mask(kernel, n=2, m=4)))(kernels)
    whole = jax.jit(lambda stack: nm_mask(stack, n=2, m=4, axis=1))(kernels)
    np.testing.assert_array_equal(found, whole)
    assert (found.reshape(3, 2, 4, 5).sum(2) == 2).all()


@pytest.mark.parametrize(
    ("n", "m", "axis", "line"),
    [
        (0, 4, -2, r"prune\.n, m: 0, 4 are not 0 < n <= m"),
        (5, 4, -2, r"prune\.n, m: 5, 4 are not 0 < n <= m"),
        (2, 4, -2, r"prune\.m: 4 does not divide 6, the length of axis -2 of \[6, 8\]; leave .*"),
        (2, 4, -3, r"prune\.axis: -3 is no axis of the shape \[6, 8\]; leave .*"),
        (2, 4, 2, r"prune\.axis: 2 is no axis of the shape \[6, 8\]; leave .*"),
    ],
)
def test_nm_refuses_what_does_not_fit(n, m, axis, line):
    with pytest.raises(BadInput, match=f"^{line}$"):
        nm_mask(jnp.ones((6, 8)), n=n, m=m, axis=axis)


def _blocks(score, block, pool):
    """`{(places of the leading axes, first cell): pooled score}` in flat order, and their cells."""
    lead, tail = score.shape[: -len(block)], score.shape[-len(block) :]
    starts = [range(0, length, size) for length, size in zip(tail, block, strict=True)]
    for place in np.ndindex(lead):
        for at in np.ndindex(*map(len, starts)):
            cells = tuple(
                slice(b[i], b[i] + size) for b, i, size in zip(starts, at, block, strict=True)
            )
            yield (*place, *cells), pool(score[(*place, *cells)].astype(np.float64))


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize(
    ("shape", "block"),
    [
        ((4, 8), (2, 4)),
        ((5, 7), (2, 4)),  # ragged on both
        ((5, 7), (8, 3)),  # longer than the axis
        ((2, 3, 4, 5), (2, 2)),  # taps of a convolution have blocks of their own
        ((3, 7), (3,)),
    ],
)
def test_block_golden(shape, block, pool):
    score = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    pools = {"mean": (jnp.mean, np.mean), "max": (jnp.max, np.max)}
    mask = functools.partial(block_mask, block=block, pool=pools[pool][0])
    found = np.asarray(jax.jit(mask)(score, np.float32(0.6)))
    blocks = list(_blocks(score, block, pools[pool][1]))
    expected = np.ones(shape, bool)
    order = np.argsort([pooled for _, pooled in blocks], kind="stable")
    for i in order[: min(round(0.6 * len(blocks)), len(blocks) - 1)]:
        expected[blocks[i][0]] = False
    assert found.dtype == bool
    np.testing.assert_array_equal(found, expected)


def test_blocks_of_one_are_topk_and_equal_blocks_go_from_the_first():
    score = jnp.asarray(np.random.default_rng(4).integers(0, 4, (5, 7)), jnp.float32)
    ones = jax.jit(functools.partial(block_mask, block=(1, 1)))
    np.testing.assert_array_equal(ones(score, 0.4), _traced(score, 0.4))
    # 3 x 2 blocks of mean 1, whatever the number of their cells.
    tiles = jax.jit(functools.partial(block_mask, block=(2, 4)))
    found = tiles(jnp.ones((5, 7), jnp.bfloat16), 0.5)
    np.testing.assert_array_equal(found[:2], np.zeros((2, 7)))
    np.testing.assert_array_equal(found[2:4], np.arange(7)[None].repeat(2, 0) >= 4)
    np.testing.assert_array_equal(found[4:], np.ones((1, 7)))


def test_sums_and_means_of_low_precision_scores_are_float32():
    # 129 and 128.75 are both 129 in bfloat16, where the first would go.
    score = jnp.array([258.0, 0.0, 256.0, 1.5], jnp.bfloat16)
    np.testing.assert_array_equal(block_mask(score, 0.5, block=(2,)), [1, 1, 0, 0])
    np.testing.assert_array_equal(channel_mask(score, 0.5, size=2), [1, 1, 0, 0])


@pytest.mark.parametrize("block", [(), (0, 2), (2, -1), (1, 1, 1)])
def test_a_block_that_does_not_fit_is_refused(block):
    with pytest.raises(BadInput, match=r"^prune\.block: .* does not fit the shape \[4, 8\]; give"):
        block_mask(jnp.ones((4, 8)), 0.5, block=block)


@pytest.mark.parametrize(
    ("shape", "axis", "size"),
    [((3, 3, 4, 6), -1, 1), ((3, 3, 4, 6), 2, 1), ((5, 8), -1, 4), ((8, 5), 0, 2), ((6,), 0, 3)],
)
def test_channel_golden(shape, axis, size):
    score = np.abs(np.random.default_rng(5).normal(size=shape)).astype(np.float32)
    mask = functools.partial(channel_mask, axis=axis, size=size)
    found = np.asarray(jax.jit(mask)(score, np.float32(0.5)))
    others = tuple(i for i in range(len(shape)) if i != axis % len(shape))
    sums = score.astype(np.float64).sum(others).reshape(-1, size).sum(1)
    kept = np.ones(len(sums), bool)
    kept[np.argsort(sums, kind="stable")[: min(round(0.5 * len(sums)), len(sums) - 1)]] = False
    expected = np.moveaxis(np.ones(shape, bool), axis, -1) & kept.repeat(size)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, np.moveaxis(expected, -1, axis))


def test_heads_side_by_side_and_heads_on_an_axis_are_the_same():
    score = jnp.asarray(np.random.default_rng(6).normal(size=(5, 4, 3)), jnp.float32)
    found = channel_mask(score.reshape(5, 12), 0.5, size=3)
    np.testing.assert_array_equal(found.reshape(5, 4, 3), channel_mask(score, 0.5, axis=-2))


@pytest.mark.parametrize(
    ("axis", "size", "line"),
    [
        (-1, 3, r"prune\.size: 3 does not divide 8, the length of axis -1 of \[6, 8\]; give .*"),
        (0, 0, r"prune\.size: 0 does not divide 6, the length of axis 0 of \[6, 8\]; give .*"),
        (2, 1, r"prune\.axis: 2 is no axis of the shape \[6, 8\]; .*"),
    ],
)
def test_channels_that_do_not_fit_are_refused(axis, size, line):
    with pytest.raises(BadInput, match=f"^{line}$"):
        channel_mask(jnp.ones((6, 8)), 0.5, axis=axis, size=size)


def test_low_precision_scores_and_a_plain_number():
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
