import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings

from kdjax import tree
from kdjax.prune import (
    gradual,
    gradual_global,
    random_masks,
    rigl,
    sparse_evolution,
    straight_through,
)
from kdjax.prune.masks import topk_mask
from kdjax.prune.schedules import cubic
from kdjax.tree import apply_masks
from kdjax.types import BadInput

RNG = np.random.default_rng(0)
SHAPES = {"a": {"kernel": (4, 8)}, "b": {"kernel": (5, 4)}, "c": {"bias": None}}
KEY = jax.random.key(3)


def _draw(shapes=SHAPES):
    return jax.tree.map(
        lambda shape: jnp.asarray(RNG.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


WEIGHTS, GRADS = _draw(), _draw()
START = random_masks(KEY, WEIGHTS, {"a/kernel": 0.5, "b/kernel": 0.8})
DENSE = jax.tree.map(lambda w: jnp.ones(w.shape, bool), WEIGHTS)


def _ask(rule, count=0, *, masks=DENSE, weights=WEIGHTS, grads=GRADS):
    """By name, as NumPy; the weights are zero where pruned, as `hold` gives them."""
    weights = apply_masks(masks, weights)
    found = rule(jnp.int32(count), weights=weights, grads=grads, masks=masks)
    assert jax.tree.structure(found) == jax.tree.structure(masks)
    return {name: np.asarray(mask) for name, mask in tree.named_leaves(found).items()}


def _named(nested):
    return {name: np.asarray(leaf, np.float64) for name, leaf in tree.named_leaves(nested).items()}


def _lowest(score, count):
    mask = np.ones(score.size, bool)
    mask[np.argsort(score.ravel(), kind="stable")[:count]] = False
    return mask.reshape(score.shape)


def _constant(sparsity):
    return lambda count: jnp.float32(sparsity)


@pytest.mark.parametrize(
    ("how", "by_hand"),
    [
        ({}, lambda w, g: np.abs(w)),
        ({"score": lambda w, g, key: jnp.abs(w * g)}, lambda w, g: np.abs(w * g)),
        ({"score": lambda w, g, key: -w}, lambda w, g: -w),
        ({"score": lambda w, g, key: g.astype(jnp.bfloat16)}, None),
    ],
)
def test_gradual_prunes_the_lowest_scores_of_each_tensor(how, by_hand):
    masks = _ask(gradual(_constant(0.6), **how))
    for name, mask in masks.items():
        w, g = _named(WEIGHTS)[name], _named(GRADS)[name]
        if by_hand is None:
            score = np.asarray(jnp.asarray(g, jnp.float32).astype(jnp.bfloat16).astype(jnp.float32))
        else:
            score = by_hand(w, g)
        np.testing.assert_array_equal(mask, _lowest(score, round(0.6 * w.size)))


@pytest.mark.parametrize(
    "score", [lambda w, g, key: w, lambda w, g, key: -jnp.abs(g) - 1e30, lambda w, g, key: 0 * w]
)
def test_what_is_pruned_stays_pruned_and_counts(score):
    """Scores of any sign, that later on would put the pruned ones first."""
    rule, masks = gradual(lambda count: 0.2 * (count + 1), score=score), DENSE
    for count in range(4):
        before, weights = masks, jax.tree.map(lambda w, c=count: w * (-1) ** c, WEIGHTS)
        masks = jax.tree.map(jnp.asarray, _ask(rule, count, masks=before, weights=weights))
        masks = {name.split("/")[0]: {"kernel": mask} for name, mask in masks.items()}
        masks["c"] = {"bias": None}
        for old, new in zip(*map(jax.tree.leaves, (before, masks)), strict=True):
            assert not (new & ~old).any()
            assert (~new).sum() == round(0.2 * (count + 1) * new.size)


def test_a_sparsity_that_falls_takes_nothing_back():
    found = _ask(gradual(_constant(0.25)), masks=START)
    for name, mask in tree.named_leaves(START).items():
        np.testing.assert_array_equal(found[name], mask)


def test_an_allocation_gives_each_tensor_its_own_sparsity():
    final = {"a/kernel": 0.8, "b/kernel": 0.3}
    rule = gradual({name: cubic(s, begin_step=0, end_step=10) for name, s in final.items()})
    for count, part in ((0, 0.0), (5, 7 / 8), (10, 1.0)):
        for name, mask in _ask(rule, count).items():
            assert (~mask).sum() == round(final[name] * part * mask.size)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/kernel"], "'b/kernel' has no schedule"),
        (["a/kernel", "b/kernel", "c/bias"], "'c/bias' has a schedule, but is not pruned"),
    ],
)
def test_an_allocation_must_name_what_is_pruned(names, message):
    with pytest.raises(BadInput, match=rf"prune\.sparsity: {message}"):
        _ask(gradual(dict.fromkeys(names, _constant(0.5))))


def test_random_scores_have_a_key_for_each_tensor_and_count():
    keys = []

    def score(w, g, key):
        keys.append(key)
        return jax.random.uniform(key, w.shape)

    rule = gradual(_constant(0.5), score=score, key=KEY)
    for count in (0, 7):
        rule(jnp.int32(count), weights=WEIGHTS, grads=GRADS, masks=DENSE)
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 4
    first, again, other = _ask(rule, 0), _ask(rule, 0), _ask(rule, 1)
    for name, mask in first.items():
        assert (~mask).sum() == mask.size // 2
        np.testing.assert_array_equal(mask, again[name])
        assert (mask != other[name]).any()


def _two_of_four(score, sparsity):
    """Keeps the two highest of each four in a row of the last axis, whatever the sparsity."""
    groups = score.reshape(*score.shape[:-1], -1, 4)
    rank = jnp.argsort(jnp.argsort(groups, axis=-1), axis=-1)
    return (rank >= 2).reshape(score.shape)


def _rows(score, sparsity):
    """Keeps the rows with the highest sum."""
    kept = topk_mask(score.sum(-1), sparsity)
    return jnp.broadcast_to(kept[:, None], score.shape)


@pytest.mark.parametrize(
    ("mask", "of_groups"), [(_two_of_four, lambda m: m.reshape(-1, 4)), (_rows, lambda m: m.T)]
)
def test_masks_with_structure_are_found_once_and_kept(mask, of_groups):
    rule = gradual(lambda count: 0.5, mask=mask)
    first = _ask(rule)
    held = {"a": {"kernel": first["a/kernel"]}, "b": {"kernel": first["b/kernel"]}, "c": None}
    held["c"] = {"bias": None}
    later = _ask(rule, 1, masks=jax.tree.map(jnp.asarray, held), weights=_draw())
    for name, found in first.items():
        np.testing.assert_array_equal(found, later[name])
        groups = of_groups(found)
        assert (groups.sum(-1) == groups.shape[-1] - round(groups.shape[-1] / 2)).all()


def test_one_ranking_over_all_tensors():
    def ranked(scores, sparsity):
        leaves, structure = jax.tree.flatten(scores)
        flat = topk_mask(jnp.concatenate([leaf.ravel() for leaf in leaves]), sparsity)
        split = np.cumsum([leaf.size for leaf in leaves])[:-1]
        parts = [
            p.reshape(leaf.shape) for p, leaf in zip(jnp.split(flat, split), leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, parts)

    weights = {**WEIGHTS, "b": {"kernel": 3 * WEIGHTS["b"]["kernel"]}}
    rule = gradual_global(lambda count: 0.25 * (count + 1), mask=ranked)
    first = _ask(rule, 0, weights=weights)
    named = _named(weights)
    flat = np.concatenate([np.abs(w).ravel() for w in named.values()])
    wanted = _lowest(flat, round(0.25 * flat.size))
    np.testing.assert_array_equal(np.concatenate([m.ravel() for m in first.values()]), wanted)
    assert (~first["a/kernel"]).mean() > (~first["b/kernel"]).mean()
    masks = {name[0]: {"kernel": jnp.asarray(mask)} for name, mask in first.items()}
    second = _ask(rule, 1, masks=masks | {"c": {"bias": None}}, weights=_draw())
    assert not any((second[name] & ~first[name]).any() for name in first)
    assert sum((~mask).sum() for mask in second.values()) == 52 // 2
    masks = {name[0]: {"kernel": jnp.asarray(mask)} for name, mask in second.items()}
    third = _ask(rule, 0, masks=masks | {"c": {"bias": None}})  # a sparsity that falls
    jax.tree.map(np.testing.assert_array_equal, third, second)


def _dropped_and_grown(mask, weight, growth, fraction):
    """By hand, over flat indices: `moved` go, then as many come back among all that are not kept."""
    mask, weight, growth = mask.ravel(), weight.ravel(), growth.ravel()
    kept = np.flatnonzero(mask)
    moved = round(np.float32(fraction) * len(kept))
    left = kept[np.argsort(np.abs(weight[kept]), kind="stable")[moved:]]
    free = np.setdiff1d(np.arange(mask.size), left)
    grown = free[np.argsort(growth[free], kind="stable")[len(free) - moved :]]
    found = np.zeros(mask.size, bool)
    found[left] = found[grown] = True
    return found


@pytest.mark.parametrize("fraction", [0.3, 0.9])
def test_rigl_golden(fraction):
    found = _ask(rigl(fraction=fraction), masks=START)
    weights = _named(apply_masks(START, WEIGHTS))
    for name, mask in tree.named_leaves(START).items():
        grads = np.abs(_named(GRADS)[name])
        wanted = _dropped_and_grown(np.asarray(mask), weights[name], grads, fraction)
        np.testing.assert_array_equal(found[name], wanted.reshape(mask.shape))
        assert (found[name] != mask).any()


def test_rigl_may_take_back_what_it_has_just_dropped():
    """As in algorithm 1: grown among all that are not kept after the drop."""
    mask, weight = jnp.array([True, True, True, False]), jnp.array([1.0, 2.0, 3.0, 0.0])
    rule = rigl(fraction=1 / 3)
    for grads, kept in (([9.0, 0, 0, 1], [0, 1, 2]), ([1.0, 0, 0, -9], [1, 2, 3])):
        found = rule(
            jnp.int32(0), weights={"w": weight}, grads={"w": jnp.array(grads)}, masks={"w": mask}
        )
        assert np.flatnonzero(found["w"]).tolist() == kept


def test_ties_drop_the_lower_index_and_grow_the_higher():
    mask, ones = jnp.arange(8) < 4, jnp.ones(8)
    found = rigl(fraction=0.5)(
        jnp.int32(0), weights={"w": mask * ones}, grads={"w": ones}, masks={"w": mask}
    )
    assert np.flatnonzero(found["w"]).tolist() == [2, 3, 6, 7]


def test_rigl_moves_what_its_schedule_says():
    # The largest gradients are where nothing is yet, so all that is dropped is replaced.
    grads = jax.tree.map(lambda m, g: jnp.where(m, 0.0, jnp.abs(g)), START, GRADS)
    rule = rigl(fraction=optax.cosine_decay_schedule(0.5, 8))
    for count, part in ((0, 0.5), (4, 0.25), (8, 0.0)):
        found = _ask(rule, count, masks=START, grads=grads)
        for name, mask in tree.named_leaves(START).items():
            assert (np.asarray(mask) & ~found[name]).sum() == round(part * int(mask.sum()))


@functools.cache
def _jitted(name):
    rule = {"rigl": rigl(fraction=0.3), "set": sparse_evolution(KEY, fraction=0.3)}[name]
    return jax.jit(rule)


@pytest.mark.parametrize("name", ["rigl", "set"])
@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**20),
    st.lists(st.booleans(), min_size=12, max_size=12),
    st.lists(st.sampled_from([-2.0, 0.0, 1.0, 3.0]), min_size=24, max_size=24),
)
def test_the_count_is_kept_whatever_comes(name, count, kept, numbers):
    mask = jnp.asarray(kept)
    weights, grads = jnp.float32(numbers[:12]) * mask, jnp.float32(numbers[12:])
    found = _jitted(name)(
        jnp.int32(count), weights={"w": weights}, grads={"w": grads}, masks={"w": mask}
    )["w"]
    assert int(found.sum()) == sum(kept)
    # Those above all that could be dropped are still there.
    n = round(np.float32(0.3) * sum(kept))
    rank = sorted(np.abs(np.asarray(weights))[np.asarray(mask)])
    if n < len(rank):
        assert np.asarray(found)[np.asarray(mask) & (np.abs(weights) > rank[n])].all()


def test_set_grows_at_random():
    rule = sparse_evolution(KEY, fraction=0.5)
    found = [_ask(rule, count, masks=START) for count in range(3)]
    weights = _named(apply_masks(START, WEIGHTS))
    for name, mask in tree.named_leaves(START).items():
        mask = np.asarray(mask)
        kept = mask & _lowest(np.abs(weights[name]), (~mask).sum() + round(0.5 * mask.sum()))
        assert kept.any()
        for masks in found:
            assert masks[name].sum() == mask.sum()
            assert masks[name][kept].all()
        assert (found[0][name] != found[1][name]).any()
        np.testing.assert_array_equal(found[2][name], _ask(rule, 2, masks=START)[name])
    # Every place that is free comes up sooner or later, whatever its gradient.
    mask = jnp.arange(10) < 4
    ask = jax.jit(
        jax.vmap(
            lambda count: rule(
                count, weights={"w": mask * 1.0}, grads={"w": jnp.zeros(10)}, masks={"w": mask}
            )["w"]
        )
    )
    grown = np.asarray(ask(jnp.arange(400)))[:, [0, 1, *range(4, 10)]].mean(0)
    np.testing.assert_allclose(grown, 2 / 8, atol=0.08)  # 4 standard deviations of 400 draws


def test_tensors_of_one_shape_are_drawn_apart():
    params = {"a": jnp.zeros(40), "b": jnp.zeros(40)}
    masks = random_masks(KEY, params, {"a": 0.5, "b": 0.5})
    assert (masks["a"] != masks["b"]).any()
    rule = sparse_evolution(KEY, fraction=0.9)
    same = {"a": masks["a"], "b": masks["a"]}
    ones = jax.tree.map(lambda m: jnp.where(m, 1.0, 0.0), same)
    found = rule(jnp.int32(0), weights=ones, grads=ones, masks=same)
    assert (found["a"] != found["b"]).any()


def test_random_masks_have_exact_counts():
    sparsities = {"a/kernel": 0.3, "b/kernel": 0.99}
    shapes = jax.eval_shape(lambda: {**WEIGHTS, "c": {"bias": jnp.zeros(3)}})
    masks = random_masks(KEY, shapes, sparsities)
    assert masks["c"]["bias"] is None
    for name, mask in tree.named_leaves(masks).items():
        assert mask.dtype == bool
        assert (~mask).sum() == min(round(sparsities[name] * mask.size), mask.size - 1)
    again, other = (random_masks(key, shapes, sparsities) for key in (KEY, jax.random.key(4)))
    np.testing.assert_array_equal(masks["a"]["kernel"], again["a"]["kernel"])
    assert (masks["a"]["kernel"] != other["a"]["kernel"]).any()


@pytest.mark.parametrize(
    ("sparsities", "message"),
    [
        ({"a": 0.5}, r"prune\.sparsities\['a'\]: no such parameter; .* 'a/kernel'"),
        ({"a/kernel": 1.0}, r"prune\.sparsities\['a/kernel'\]: 1.0 is not in \[0, 1\)"),
        ({"a/kernel": -0.1}, r"prune\.sparsities\['a/kernel'\]: -0.1 is not in \[0, 1\)"),
    ],
)
def test_random_masks_of_what_cannot_be_are_refused(sparsities, message):
    with pytest.raises(BadInput, match=message):
        random_masks(KEY, WEIGHTS, sparsities)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.3, 1.2])
def test_a_fraction_outside_is_refused(fraction):
    for make in (rigl, functools.partial(sparse_evolution, KEY)):
        with pytest.raises(BadInput, match=rf"prune\.fraction: {fraction} is not in \(0, 1\)"):
            make(fraction=fraction)


def test_straight_through_is_masked_forward_and_dense_backward():
    params = {"w": jnp.array([1.0, -2.0, 3e8, 1e-30]), "b": jnp.array([4.0])}
    masks = {"w": jnp.array([True, False, False, True]), "b": None}
    found = jax.jit(straight_through)(masks, params)
    jax.tree.map(np.testing.assert_array_equal, found, apply_masks(masks, params))
    assert not np.signbit(found["w"][1:3]).any()

    def loss(params):
        p = straight_through(masks, params)
        return (p["w"] ** 3).sum() + (p["w"] * jnp.arange(4.0)).sum() + p["b"].sum() ** 2

    # The gradient is that at the masked weights, and passes to all of them.
    masked = np.array([1.0, 0.0, 0.0, 0.0])
    grads = jax.grad(loss)(params)
    np.testing.assert_allclose(grads["w"], 3 * masked**2 + np.arange(4.0))
    np.testing.assert_allclose(grads["b"], [8.0])
    frozen = jax.grad(lambda p: (apply_masks(masks, p)["w"] * jnp.arange(4.0)).sum())(params)
    np.testing.assert_array_equal(frozen["w"], [0, 0, 0, 3])
