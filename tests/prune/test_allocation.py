import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax import tree
from kdjax.prune.allocation import (
    by_hand,
    by_sensitivity,
    counts,
    erdos_renyi_kernel,
    meet,
    uniform,
)
from kdjax.prune.masks import topk_mask
from kdjax.types import BadInput

KERNELS = ".*/kernel"


def _shapes(shapes):
    """A tree of shapes by its names, as `jax.eval_shape` gives one."""
    nested = {}
    for name, shape in shapes.items():
        *groups, last = name.split("/")
        node = nested
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = jax.ShapeDtypeStruct(shape, jnp.float32)
    return nested


CNN = {
    "conv0/kernel": (3, 3, 3, 16),
    "conv0/scale": (16,),
    "conv1/kernel": (3, 3, 16, 32),
    "conv2/kernel": (3, 3, 32, 64),
    "depthwise/kernel": (3, 3, 1, 64),
    "head/bias": (10,),
    "head/kernel": (64, 10),
}
PARAMS = _shapes(CNN)
SIZE = {name: math.prod(shape) for name, shape in CNN.items()}
PRUNABLE = [name for name in CNN if name.endswith("kernel")]


def _total(found):
    """Fraction pruned of all the named tensors together, in float64."""
    sizes = np.array([SIZE[name] for name in found])
    return float(np.array([*found.values()]) @ sizes / sizes.sum())


def test_uniform_names_what_the_pattern_matches():
    found = uniform(PARAMS, 0.7, prunable=KERNELS)
    assert found == dict.fromkeys(PRUNABLE, 0.7)
    arrays = jax.tree.map(lambda p: jnp.zeros(p.shape), PARAMS)
    assert uniform(arrays, 0.0, prunable="head/.*") == {"head/bias": 0.0, "head/kernel": 0.0}


def test_erk_golden():
    """Nothing above density 1: one equation. Two equal layers have the sparsity itself."""
    found = erdos_renyi_kernel(
        _shapes({"a/kernel": (100, 100), "b/kernel": (300, 100)}), 0.9, prunable=KERNELS
    )
    # eps (200 + 400) = 0.1 * 40000.
    eps = 4000 / 600
    expected = {"a/kernel": 1 - eps * 200 / 1e4, "b/kernel": 1 - eps * 400 / 3e4}
    assert found == pytest.approx(expected, abs=1e-14)
    same = _shapes({"a/kernel": (3, 3, 8, 8), "b/kernel": (3, 3, 8, 8)})
    found = erdos_renyi_kernel(same, 0.8, prunable=KERNELS)
    assert found == pytest.approx({"a/kernel": 0.8, "b/kernel": 0.8}, abs=1e-14)


@pytest.mark.parametrize(
    ("sparsity", "free"),
    [
        (0.8, ["conv1/kernel", "conv2/kernel"]),
        # conv1 is above 1 only once the first three are dense.
        (0.3, ["conv2/kernel"]),
    ],
)
def test_erk_makes_dense_what_would_be_above_one_and_solves_again(sparsity, free):
    found = erdos_renyi_kernel(PARAMS, sparsity, prunable=KERNELS)
    assert list(found) == PRUNABLE
    dense = [name for name in PRUNABLE if name not in free]
    assert [found[name] for name in dense] == [0.0] * len(dense)
    assert _total(found) == pytest.approx(sparsity, abs=1e-14)
    # The others have one eps, which is that of the budget that is left.
    total = sum(SIZE[name] for name in PRUNABLE)
    budget = (1 - sparsity) * total - sum(SIZE[name] for name in dense)
    eps = budget / sum(sum(CNN[name]) for name in free)
    for name in free:
        density = eps * sum(CNN[name]) / SIZE[name]
        assert 0 < density < 1
        assert found[name] == pytest.approx(1 - density, abs=1e-14)


def test_erk_power_goes_from_uniform_to_the_paper():
    flat = erdos_renyi_kernel(PARAMS, 0.9, prunable=KERNELS, power=0.0)
    assert flat == pytest.approx(dict.fromkeys(PRUNABLE, 0.9), abs=1e-14)
    spread = [
        np.ptp([*erdos_renyi_kernel(PARAMS, 0.9, prunable=KERNELS, power=power).values()])
        for power in (0.0, 0.25, 0.5)
    ]
    assert spread[0] < spread[1] < spread[2]


def test_erk_dense_is_out_of_the_budget():
    found = erdos_renyi_kernel(PARAMS, 0.8, prunable=KERNELS, dense="(head|depthwise)/.*")
    alone = erdos_renyi_kernel(PARAMS, 0.8, prunable=r"conv./kernel")
    assert list(found) == PRUNABLE
    assert found == alone | {"head/kernel": 0.0, "depthwise/kernel": 0.0}
    assert _total(alone) == pytest.approx(0.8, abs=1e-14)


@settings(max_examples=80)
@given(
    st.lists(st.lists(st.integers(1, 40), min_size=0, max_size=4), min_size=1, max_size=6),
    st.floats(0, 0.995),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_erk_meets_the_total_and_prunes_by_density(shapes, sparsity, power):
    shapes = {f"{i}/kernel": tuple(shape) for i, shape in enumerate(shapes)}
    found = erdos_renyi_kernel(_shapes(shapes), sparsity, prunable=KERNELS, power=power)
    assert list(found) == list(shapes)
    sizes = np.array([math.prod(shape) for shape in shapes.values()])
    sparsities = np.array([*found.values()])
    assert ((sparsities >= 0) & (sparsities <= 1)).all()
    np.testing.assert_allclose(sparsities @ sizes, sparsity * sizes.sum(), rtol=1e-9, atol=1e-9)
    raw = np.array([max(sum(s), 1) for s in shapes.values()]) / sizes
    # Never a denser tensor of lower raw density; what is free has one eps.
    order = np.argsort(raw, kind="stable")
    assert (np.diff(sparsities[order]) <= 1e-9).all()
    free = sparsities > 1e-9
    eps = (1 - sparsities[free]) / raw[free] ** power
    if free.any():
        np.testing.assert_allclose(eps, eps[0], rtol=1e-6)


def test_by_hand_gives_each_tensor_to_the_first_pattern():
    found = by_hand(PARAMS, {"conv0/.*": 0.0, "(conv1|head)/kernel": 0.5, KERNELS: 0.9})
    assert found == {
        "conv0/kernel": 0.0,
        "conv0/scale": 0.0,
        "conv1/kernel": 0.5,
        "conv2/kernel": 0.9,
        "depthwise/kernel": 0.9,
        "head/kernel": 0.5,
    }
    assert list(found) == [name for name in CNN if name in found]
    assert by_hand(PARAMS, {"head/kernel": 0.25}) == {"head/kernel": 0.25}


CURVES = {
    "a": {0.5: 0.1, 0.9: 0.5},
    "b": {0.5: 0.4, 0.9: 2.0},
}


def test_by_sensitivity_golden():
    # At an increase of 0.3 a has 0.5 + 0.4 / 2 and b has 0.5 * 3 / 4: weighted 3 to 1.
    found = by_sensitivity(CURVES, {"a": 300, "b": 100}, (3 * 0.7 + 0.375) / 4)
    assert found == pytest.approx({"a": 0.7, "b": 0.375}, abs=1e-14)
    # A knot of the curves themselves, and one tensor at its end while the other goes on.
    found = by_sensitivity(CURVES, {"a": 100, "b": 100}, (0.8 + 0.5) / 2)
    assert found == pytest.approx({"a": 0.8, "b": 0.5}, abs=1e-14)
    found = by_sensitivity(CURVES, {"a": 100, "b": 100}, (0.9 + 0.7) / 2)
    assert found == pytest.approx({"a": 0.9, "b": 0.7}, abs=1e-14)
    assert by_sensitivity(CURVES, {"a": 1, "b": 2}, 0.0) == {"a": 0.0, "b": 0.0}
    assert by_sensitivity(CURVES, {"a": 1, "b": 2}, 0.9) == {"a": 0.9, "b": 0.9}


def test_by_sensitivity_takes_the_running_maximum_and_goes_along_flat_pieces_together():
    # Pruning helps a little at first: free up to 0.4, and what is measured at 0 is taken as 0.
    curves = {"a": {0.0: 0.7, 0.2: -0.1, 0.4: 0.0, 0.8: 1.0}, "b": {0.8: 1.0}}
    found = by_sensitivity(curves, {"a": 1, "b": 1}, 0.1)
    assert found == pytest.approx({"a": 0.2, "b": 0.0}, abs=1e-14)
    # Flat from 0.3 to 0.7 at an increase of 1, where both pieces are gone along half way.
    flat = {"a": {0.3: 1.0, 0.7: 0.5, 0.9: 2.0}, "b": {0.5: 1.0, 0.6: 1.0, 0.9: 4.0}}
    found = by_sensitivity(flat, {"a": 1, "b": 1}, (0.5 + 0.55) / 2)
    assert found == pytest.approx({"a": 0.5, "b": 0.55}, abs=1e-14)


@settings(max_examples=60)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([0.1, 0.3, 0.5, 0.8, 0.95]),
            st.floats(-1, 5).map(lambda x: round(x, 1)),
            min_size=1,
        ),
        min_size=1,
        max_size=4,
    ),
    st.data(),
)
def test_by_sensitivity_meets_the_total_at_one_increase(curves, data):
    named = {str(i): curve for i, curve in enumerate(curves)}
    sizes = {name: data.draw(st.integers(1, 1000)) for name in named}
    weights = np.array([*sizes.values()]) / sum(sizes.values())
    reach = float(np.array([max(curve) for curve in curves]) @ weights)
    sparsity = data.draw(st.floats(0, 1)) * reach
    found = np.array([*by_sensitivity(named, sizes, sparsity).values()])
    np.testing.assert_allclose(found @ weights, sparsity, atol=1e-12)
    # Somewhere there is one increase: each tensor is where its curve has it, at its end below it,
    # or on a flat piece of it.
    increases, ends = [], []
    for s, curve in zip(found, curves, strict=True):
        at = [0.0, *sorted(curve)]
        cost = np.maximum.accumulate([0.0, *(curve[x] for x in at[1:])])
        increases.append(np.interp(s, at, cost))
        ends.append(s >= max(curve) - 1e-9)
    common = max(increases)
    for increase, end in zip(increases, ends, strict=True):
        assert end or increase == pytest.approx(common, abs=1e-9)


@pytest.mark.parametrize("budget", [0, 137, 5000, 20_000, sum(SIZE[name] for name in PRUNABLE)])
def test_meet_finds_the_least_pruning_within_the_budget(budget):
    asked = []

    def allocate(sparsity):
        return uniform(PARAMS, sparsity, prunable=KERNELS)

    def left(found):
        asked.append(found["head/kernel"])
        return sum(SIZE[name] - pruned for name, pruned in counts(PARAMS, found).items())

    if budget < 100:
        with pytest.raises(
            BadInput, match=rf"^prune\.budget: the cost is 26 even .* above {budget}"
        ):
            meet(allocate, left, budget)
        return
    found = meet(allocate, left, budget)
    assert left(found) <= budget
    assert len(asked) <= 2 + 14 + 1
    if found["head/kernel"] > 1e-4:
        assert left(allocate(found["head/kernel"] - 1e-4)) > budget
    else:
        assert found["head/kernel"] == 0


def test_meet_goes_as_far_as_it_may():
    def reach(most, tolerance):
        return meet(lambda s: s, lambda s: 1 - s, 0.25, most=most, tolerance=tolerance)

    assert reach(0.999, 1e-9) == pytest.approx(0.75, abs=1e-9)
    assert 0.75 <= reach(0.75, 0.01) <= 0.76
    with pytest.raises(
        BadInput, match=r"the cost is 0\.3 even at sparsity 0\.7, above 0\.25; raise"
    ):
        reach(0.7, 1e-4)
    with pytest.raises(BadInput, match="the cost is nan"):
        meet(lambda s: s, lambda s: math.nan, 1.0)


_topk = jax.jit(topk_mask)


@pytest.mark.parametrize("sparsity", [0.0, 0.31, 0.5, 0.85, 0.999])
def test_counts_are_those_of_the_masks(sparsity):
    shapes = {"a/kernel": (10,), "b/kernel": (3, 7), "c/kernel": (1,), "d/bias": (5,)}
    params = _shapes(shapes)
    found = counts(params, uniform(params, sparsity, prunable=KERNELS))
    assert list(found) == ["a/kernel", "b/kernel", "c/kernel"]
    for name, pruned in found.items():
        assert type(pruned) is int
        score = np.ones(tree.named_leaves(params)[name].shape, np.float32)
        assert pruned == (~_topk(score, np.float32(sparsity))).sum()


def test_counts_golden():
    params = _shapes({"a": (10,), "b": (1000, 589)})
    # 8.5 is 8 by half to even, and float32 rounds 0.9 n to the right integer.
    assert counts(params, {"b": 0.9, "a": 0.85}) == {"b": 530_100, "a": 8}
    assert counts(params, {}) == {}


SIZES = {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: uniform(PARAMS, 1.0, prunable=KERNELS), r"prune\.sparsity: 1\.0 is not in"),
        (
            lambda: uniform(PARAMS, 0.5, prunable="kernel"),
            r"prune\.prunable: 'kernel' matches no parameter; the first of them is 'conv0/kernel'$",
        ),
        (lambda: uniform({}, 0.5, prunable=KERNELS), r"prune\.prunable: .* the first .* is None$"),
        (
            lambda: erdos_renyi_kernel(PARAMS, -0.5, prunable=KERNELS),
            r"prune\.sparsity: -0\.5 is not in",
        ),
        (
            lambda: erdos_renyi_kernel(PARAMS, 0.5, prunable="none"),
            r"prune\.prunable: 'none' matches no parameter; the first of them is 'conv0/kernel'$",
        ),
        (
            lambda: erdos_renyi_kernel(PARAMS, 0.5, prunable=KERNELS, dense="head/bias"),
            r"prune\.dense: 'head/bias' matches no parameter; the first .* is 'conv0/kernel'$",
        ),
        (
            lambda: erdos_renyi_kernel(PARAMS, 0.5, prunable=KERNELS, dense=".*"),
            r"prune\.dense: '\.\*' leaves nothing of '\.\*/kernel' to prune$",
        ),
        (
            lambda: by_hand(PARAMS, {KERNELS: 0.5, "head": 0.1}),
            r"prune\.sparsities\['head'\]: 'head' matches no parameter; the first .* 'conv0/kernel'$",
        ),
        (
            lambda: by_hand(PARAMS, {KERNELS: 0.5, "head/kernel": 0.1}),
            r"prune\.sparsities\['head/kernel'\]: earlier patterns took .* 'head/kernel'; put it",
        ),
        (
            lambda: by_hand(PARAMS, {KERNELS: 1.0}),
            r"prune\.sparsities\['\.\*/kernel'\]: 1\.0 is not in",
        ),
        (
            lambda: by_sensitivity(CURVES, SIZES, 0.91),
            r"prune\.sparsity: 0\.91 is above 0\.9, the most that the curves reach; measure",
        ),
        (lambda: by_sensitivity(CURVES, SIZES, 1.0), r"prune\.sparsity: 1\.0 is not in"),
        (
            lambda: by_sensitivity(CURVES, {"a": 1}, 0.5),
            r"prune\.curves: 'b' is not in both curves and sizes; give",
        ),
        (lambda: by_sensitivity({}, {}, 0.5), r"prune\.curves: None is not in both"),
        (
            lambda: by_sensitivity({"a": {1.0: 3.0}}, {"a": 1}, 0.5),
            r"prune\.curves\['a'\]: 1\.0 is not in",
        ),
        (
            lambda: by_sensitivity({"a": {0.5: math.nan}}, {"a": 1}, 0.5),
            r"prune\.curves\['a'\]: the increase at 0\.5 is nan; leave the point out$",
        ),
        (
            lambda: meet(lambda s: s, lambda s: 1.0, 0.0, most=1.0),
            r"prune\.most: 1\.0 is not in",
        ),
        (
            lambda: meet(lambda s: s, lambda s: 1.0, 0.0, tolerance=0.0),
            r"prune\.tolerance: 0\.0 is not in \[1e-9, 1\)$",
        ),
        (
            lambda: counts(PARAMS, {"head": 0.5}),
            r"prune\.sparsities\['head'\]: no such parameter; the first .* is 'conv0/kernel'$",
        ),
        (
            lambda: counts(PARAMS, {"head/kernel": 1.0}),
            r"prune\.sparsities\['head/kernel'\]: 1\.0 is not in",
        ),
    ],
)
def test_what_cannot_be_used_is_named(call, line):
    with pytest.raises(BadInput, match=f"^{line}") as caught:
        call()
    assert "\n" not in str(caught.value)
