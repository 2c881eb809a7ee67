import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax import tree
from kdjax.shrink import (
    Model,
    activations,
    activity,
    find_groups,
    group_l1,
    group_l2,
    keep_best,
    keep_each,
    producer_l1,
    random,
    scale_l1,
    taylor,
    unit_masks,
)
from kdjax.types import BadInput
from tests.shrink import nets
from tests.shrink.parity import masks_of, normal, variables_of

IMAGES = (2, 4, 4, 3)


@pytest.fixture(scope="module")
def depthwise():
    model, x = Model(nets.Depthwise()), normal(1, *IMAGES)
    variables = variables_of(model.module, x)
    return model, variables, x, find_groups(model, variables, x)


@pytest.fixture(scope="module")
def concatenated():
    model, x = Model(nets.Concatenated()), normal(1, *IMAGES)
    variables = variables_of(model.module, x)
    return variables, find_groups(model, variables, x)


def wide(params):
    return {n: np.asarray(leaf, np.float64) for n, leaf in tree.named_leaves(params).items()}


def by_hand(p, entry):
    """The scores of the two groups of `Depthwise`, member by member, before the mean is divided by."""
    expand = [
        entry(p["expand/kernel"]).sum((0, 1, 2)),
        entry(p["depthwise/kernel"]).sum((0, 1, 2)),
        entry(p["norm0/scale"]),
        entry(p["norm1/scale"]),
        entry(p["project/kernel"]).sum((0, 1, 3)),
    ]
    project = [
        entry(p["project/kernel"]).sum((0, 1, 2)),
        entry(p["norm2/scale"]),
        entry(p["head/kernel"]).sum(1),
    ]
    return {"expand": np.mean(expand, 0), "project": np.mean(project, 0)}


@pytest.mark.parametrize(("score", "entry"), [(group_l1, np.abs), (group_l2, np.square)])
def test_group_norms_golden(depthwise, score, entry):
    _, variables, _, groups = depthwise
    found = score(groups, variables["params"])
    expected = by_hand(wide(variables["params"]), entry)
    assert list(found) == ["expand", "project"]
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value / value.mean(), rtol=1e-5)


def test_a_member_counts_all_that_falls_with_a_unit(concatenated):
    """A concatenation with itself: two runs of the following layer's inputs."""
    variables, groups = concatenated
    p = wide(variables["params"])
    join, scale = np.abs(p["join/kernel"]).sum((0, 1, 3)), np.abs(p["norm/scale"])
    expected = (
        np.abs(p["left/kernel"]).sum((0, 1, 2)) + join[:4] + join[9:] + scale[:4] + scale[9:]
    ) / 3
    found = group_l1(groups, variables["params"])["left"]
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-5)


def test_producer_and_scale_golden(depthwise):
    _, variables, _, groups = depthwise
    p = wide(variables["params"])
    filters = {name: np.abs(p[f"{name}/kernel"]).sum((0, 1, 2)) for name in ("expand", "project")}
    found = producer_l1(groups, variables["params"])
    for name, value in filters.items():
        np.testing.assert_allclose(found[name], value / value.mean(), rtol=1e-5)
    found = scale_l1(groups, variables["params"])
    both = (np.abs(p["norm0/scale"]) + np.abs(p["norm1/scale"])) / 2
    np.testing.assert_allclose(found["expand"], both, rtol=1e-6)
    np.testing.assert_allclose(found["project"], np.abs(p["norm2/scale"]), rtol=1e-6)


def test_no_scale_no_score():
    def chain(variables, x):
        p = variables["params"]
        return jax.nn.relu(x @ p["a"]["kernel"]) @ p["b"]["kernel"]

    params = {"a": {"kernel": normal(0, 3, 4)}, "b": {"kernel": normal(1, 4, 2)}}
    groups = find_groups(chain, {"params": params}, jnp.zeros([1, 3]))
    assert scale_l1(groups, params) == {}
    assert keep_each(groups, {}, 0.5) == {}


def test_taylor_golden_and_what_it_foretells(depthwise):
    model, variables, x, groups = depthwise

    def loss(params):
        return jnp.square(model({**variables, "params": params}, x)).mean()

    params = variables["params"]
    grads = jax.jit(jax.grad(loss))(params)
    found = taylor(groups, params, grads)
    p, g = wide(params), wide(grads)
    joint = {n: p[n] * g[n] for n in p}
    expand = (
        joint["expand/kernel"].sum((0, 1, 2))
        + joint["expand/bias"]
        + joint["depthwise/kernel"].sum((0, 1, 2))
        + sum(joint[f"norm{i}/{part}"] for i in (0, 1) for part in ("scale", "bias"))
    )
    np.testing.assert_allclose(found["expand"], expand**2, rtol=1e-4)
    # The slope of the loss as one gate on all that makes unit 2 closes.
    made = masks_of(
        dataclasses.replace(
            groups,
            groups=tuple(
                dataclasses.replace(
                    group, members=tuple(m for m in group.members if "in" not in m.roles)
                )
                for group in groups
            ),
        ),
        {"expand": np.arange(6) != 2, "project": np.ones(4, bool)},
        params,
    )

    def gated(gate):
        return loss(
            jax.tree.map(
                lambda mask, leaf: leaf if mask is None else jnp.where(mask, leaf, gate * leaf),
                made,
                params,
                is_leaf=lambda node: node is None,
            )
        )

    slope = jax.jit(jax.grad(gated))(1.0)
    np.testing.assert_allclose(found["expand"][2], slope**2, rtol=1e-3)


def test_activity_golden():
    def chain(variables, x):
        p = variables["params"]
        return jax.nn.relu(x @ p["a"]["kernel"]) @ p["b"]["kernel"]

    params = {"a": {"kernel": normal(0, 3, 4)}, "b": {"kernel": normal(1, 4, 2)}}
    x = normal(2, 5, 3)
    groups = find_groups(chain, {"params": params}, x)
    seen = jax.jit(lambda p, x: activations(chain, groups.contractions, {"params": p}, x))(
        params, x
    )
    hidden = np.maximum(np.asarray(x, np.float64) @ wide(params)["a/kernel"], 0)
    number = {c.name: c.number for c in groups.contractions}["params/b/kernel"]
    np.testing.assert_allclose(seen[number].low, hidden.min(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen[number].high, hidden.max(0), rtol=1e-5)
    expected = np.abs(hidden).mean(0)
    found = activity(groups, seen)
    np.testing.assert_allclose(found["a"], expected / expected.mean(), rtol=1e-5)


@pytest.mark.parametrize("score", [group_l1, group_l2, producer_l1])
def test_relative_scores_do_not_see_the_scale_of_a_layer(depthwise, score):
    _, variables, _, groups = depthwise
    params = variables["params"]
    louder = jax.tree.map(lambda leaf: 3.0 * leaf, params)
    for name, value in score(groups, params).items():
        np.testing.assert_allclose(score(groups, louder)[name], value, rtol=1e-5)
        assert float(value.mean()) == pytest.approx(1.0, rel=1e-5)


def test_scores_follow_their_units(depthwise):
    """Units in another order have their scores in that order."""
    _, variables, _, groups = depthwise
    order = np.array([3, 0, 5, 1, 4, 2])
    swapped = dict(tree.named_leaves(variables["params"]))
    for member in groups["expand"].members:
        name = member.name.removeprefix("params/")
        if name in swapped:
            swapped[name] = jnp.take(swapped[name], order, axis=member.axis)
    structure = jax.tree.structure(variables["params"])
    swapped = jax.tree.unflatten(structure, list(swapped.values()))
    for score in (group_l1, group_l2, producer_l1, scale_l1):
        before, after = (score(groups, p)["expand"] for p in (variables["params"], swapped))
        np.testing.assert_allclose(after, before[order], rtol=1e-5)


def test_random_is_of_its_key(depthwise):
    groups = depthwise[-1]
    a, b, c = (random(groups, jax.random.key(seed)) for seed in (0, 0, 1))
    for name, size in groups.sizes.items():
        assert a[name].shape == (size,)
        np.testing.assert_array_equal(a[name], b[name])
        assert (a[name] != c[name]).all()


def counts(keep):
    return {name: int(mask.sum()) for name, mask in keep.items()}


@pytest.mark.parametrize(
    ("sparsity", "multiple", "expected"),
    [
        (0.0, 1, {"expand": 6, "project": 4}),
        (0.25, 1, {"expand": 4, "project": 3}),  # round(1.5) = 2, half to even
        (0.5, 1, {"expand": 3, "project": 2}),
        (0.75, 1, {"expand": 2, "project": 1}),  # round(4.5) = 4
        (0.99, 1, {"expand": 1, "project": 1}),  # one stays
        (0.5, 2, {"expand": 4, "project": 2}),
        (0.75, 4, {"expand": 4, "project": 4}),
        (0.25, 4, {"expand": 4, "project": 4}),
        (0.0, 4, {"expand": 6, "project": 4}),  # not as many as 8
        (0.5, 8, {"expand": 6, "project": 4}),
    ],
)
def test_keep_each_counts(depthwise, sparsity, multiple, expected):
    groups = depthwise[-1]
    scores = random(groups, jax.random.key(0))
    keep = keep_each(groups, scores, sparsity, multiple=multiple)
    assert counts(keep) == expected
    for name, mask in keep.items():
        if not mask.all():
            assert scores[name][mask].min() > scores[name][~mask].max()


def test_of_equal_scores_the_later_stay(depthwise):
    groups = depthwise[-1]
    scores = {"expand": jnp.array([1.0, 2, 1, 1, 2, 1]), "project": jnp.zeros(4)}
    keep = keep_each(groups, scores, 0.5)
    np.testing.assert_array_equal(keep["expand"], [0, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(keep["project"], [0, 0, 1, 1])


def test_keep_each_by_name(depthwise):
    groups = depthwise[-1]
    scores = random(groups, jax.random.key(0))
    assert counts(keep_each(groups, scores, {"project": 0.5})) == {"expand": 6, "project": 2}
    assert counts(keep_each(groups, {"project": scores["project"]}, 0.5)) == {"project": 2}
    with pytest.raises(BadInput, match=r"sparsity: there is no group 'tail'") as error:
        keep_each(groups, scores, {"tail": 0.5})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("sparsity", [1.0, -0.1])
def test_sparsities_outside_are_refused(depthwise, sparsity):
    groups = depthwise[-1]
    scores = random(groups, jax.random.key(0))
    for keep in (keep_each, keep_best):
        with pytest.raises(BadInput, match=r"sparsity: .* is not in \[0, 1\)"):
            keep(groups, scores, sparsity)
    with pytest.raises(BadInput, match=r"sparsity: .* is not in \[0, 1\)"):
        keep_each(groups, scores, {"expand": sparsity})


def test_keep_best_golden(depthwise):
    groups = depthwise[-1]
    scores = {
        "expand": jnp.array([9.0, 8, 7, 6, 5, 4]),
        "project": jnp.array([0.1, 0.2, 3, 0.3]),
    }
    assert counts(keep_best(groups, scores, 0.0)) == {"expand": 6, "project": 4}
    # 5 of 10 stay, at least one of each.
    keep = keep_best(groups, scores, 0.5)
    assert counts(keep) == {"expand": 4, "project": 1}
    np.testing.assert_array_equal(keep["project"], [0, 0, 1, 0])
    assert counts(keep_best(groups, scores, 0.5, at_least=0.5)) == {"expand": 3, "project": 2}
    assert counts(keep_best(groups, scores, 0.8, at_least=0.26)) == {"expand": 2, "project": 2}
    assert counts(keep_best(groups, scores, 0.5, multiple=4)) == {"expand": 4, "project": 4}
    assert counts(keep_best(groups, scores, 0.7, multiple=2)) == {"expand": 2, "project": 2}


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    sparsity=st.floats(0.0, 0.98),
    levels=st.sampled_from([2, 5, 1000]),
)
def test_keep_best_law(depthwise, seed, sparsity, levels):
    """Just so many stay as are asked for, the best ones, unless the floor of a group holds more."""
    groups = depthwise[-1]
    generator = np.random.default_rng(seed)
    scores = {
        name: jnp.asarray(generator.integers(0, levels, size), jnp.float32)
        for name, size in groups.sizes.items()
    }
    found = counts(keep_best(groups, scores, sparsity))
    wanted = 10 - int(np.round(np.float32(sparsity) * np.float32(10)))
    assert sum(found.values()) == max(2, wanted)
    for name, keep in keep_best(groups, scores, sparsity).items():
        if not keep.all():
            assert scores[name][keep].min() >= scores[name][~keep].max()


def test_keep_without_a_retrace(depthwise):
    groups = depthwise[-1]
    traced = []

    @jax.jit
    def keep(sparsity, scores):
        traced.append(1)
        return keep_each(groups, scores, sparsity), keep_best(groups, scores, sparsity)

    scores = random(groups, jax.random.key(0))
    for sparsity in (0.25, 0.75):
        each, best = keep(jnp.float32(sparsity), scores)
        assert counts(each) == counts(keep_each(groups, scores, sparsity))
        assert counts(best) == counts(keep_best(groups, scores, sparsity))
    assert len(traced) == 1


def test_unit_masks(concatenated):
    variables, groups = concatenated
    keep = {"left": np.array([True, False, True, True]), "join": np.arange(4) > 1}
    found = unit_masks(groups, jax.tree.map(jnp.asarray, keep), variables["params"])
    whole = {**keep, "right": np.ones(5, bool)}
    expected = masks_of(groups, whole, variables["params"])
    leaves = {
        kind: dict(
            zip(
                tree.named_leaves(variables["params"]),
                jax.tree.leaves(masks, is_leaf=lambda m: m is None),
                strict=True,
            )
        )
        for kind, masks in (("found", found), ("expected", expected))
    }
    assert leaves["found"].pop("head/bias") is None
    for name, mask in leaves["found"].items():
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, leaves["expected"][name])
    gone = {name: int((~np.asarray(mask)).sum()) for name, mask in leaves["found"].items()}
    join = 9 * (13 * 4 - 11 * 2)  # of 3x3 kernels, but those from 11 inputs to 2 outputs
    assert gone == {
        "left/kernel": 9 * 3, "left/bias": 1, "right/kernel": 0, "right/bias": 0,
        "norm/scale": 2, "norm/bias": 2, "join/kernel": join, "join/bias": 2, "head/kernel": 6,
    }  # fmt: skip
