import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import prune, tree
from kdjax.shrink import Model, cut, cut_following, group_l1, groups_of, take_away, unit_masks
from kdjax.shrink.scores import keep_each
from kdjax.types import BadInput
from tests.shrink import nets
from tests.shrink.parity import kept_at_random, masked_by, masks_of, normal, variables_of

LEFT = {("params/a/kernel", 1): np.array([0, 2]), ("params/a/kernel", 0): np.array([1])}


def params():
    return {"a": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.arange(3.0)}}


@pytest.fixture(scope="module")
def trained():
    model, x = Model(nets.Residual()), normal(1, 4, 5)
    variables = variables_of(model.module, x)
    groups = groups_of(model, variables, x)
    return model, variables, x, groups, kept_at_random(groups, 3)


def test_cut_golden():
    found = cut({"params": params()}, LEFT)["params"]["a"]
    np.testing.assert_array_equal(found["kernel"], [[3.0, 5.0]])
    np.testing.assert_array_equal(found["bias"], [0.0, 1.0, 2.0])


def test_cut_keeps_the_kind_of_each_leaf():
    def kinds(leaves):
        return {name: type(leaf) for name, leaf in tree.named_leaves(leaves).items()}

    host = jax.device_get(params())
    shapes = jax.eval_shape(params)
    half = jax.tree.map(jnp.bfloat16, params())
    for whole in (params(), host, shapes, half):
        found = cut({"params": whole}, LEFT)["params"]
        assert found["a"]["kernel"].shape == (1, 2)
        assert found["a"]["kernel"].dtype == whole["a"]["kernel"].dtype
        assert kinds(found) == kinds(whole)


def test_cut_inside_of_jit():
    found = jax.jit(lambda p: cut({"params": p}, LEFT))(params())
    np.testing.assert_array_equal(found["params"]["a"]["kernel"], [[3.0, 5.0]])


def test_cut_following_golden():
    p = params()
    following = {
        "count": jnp.int32(7),
        "mu": p,
        "nested": ({"nu": jax.tree.map(jnp.square, p)}, jnp.float32(0.5)),
        "other": {"kernel": jnp.zeros([2, 3])},  # no parameter's whole name
    }
    found = cut_following(following, p, LEFT)
    np.testing.assert_array_equal(found["mu"]["a"]["kernel"], [[3.0, 5.0]])
    np.testing.assert_array_equal(found["nested"][0]["nu"]["a"]["kernel"], [[9.0, 25.0]])
    assert found["other"]["kernel"].shape == (2, 3)
    assert int(found["count"]) == 7
    assert jax.tree.structure(found) == jax.tree.structure(following)


def test_a_longer_name_is_the_owner():
    """`b/a/kernel` is not cut as `a/kernel` is."""
    p = {**params(), "b": params()}
    found = cut_following({"mu": p}, p, LEFT)["mu"]
    assert found["a"]["kernel"].shape == (1, 2)
    assert found["b"]["a"]["kernel"].shape == (2, 3)


def test_a_leaf_of_another_shape_is_refused():
    rows = {"v_row": {"a": {"kernel": jnp.zeros([2])}}}  # as Adafactor's
    line = (
        r"opt_state.v_row/a/kernel: \(2,\) is not the shape of the parameter, \(2, 3\); "
        r"this optimizer's state cannot be carried over: begin it anew"
    )
    with pytest.raises(BadInput, match=line) as error:
        cut_following(rows, params(), LEFT)
    assert "\n" not in str(error.value)
    # One that belongs to a parameter that stays whole may have any shape.
    assert cut_following({"v": {"a": {"bias": jnp.zeros([9])}}}, params(), LEFT)


def optimizers(groups):
    names = "|".join(n for n in ("stem/kernel", "inner/kernel", "back/kernel", "head/kernel"))
    yield optax.sgd(0.1, momentum=0.9)
    yield optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2, weight_decay=1e-3))
    yield optax.chain(
        optax.masked(optax.trace(0.9), {"stem": True, "back": False, "inner": True, "head": False}),
        optax.scale(-0.1),
    )
    yield optax.ema(0.9)
    yield prune.hold(
        optax.adam(1e-2),
        prune.gradual(optax.constant_schedule(0.3)),
        prunable=names,
        begin_step=0,
        end_step=1,
        every_steps=1,
    )


@pytest.mark.parametrize("number", range(5))
def test_training_goes_on(trained, number):
    """The smaller model's optimizer state is the larger one's, cut; a step of it runs."""
    model, variables, x, groups, kept = trained
    tx = list(optimizers(groups))[number]

    def step(module, params, state):
        def loss(params):
            return jnp.square(module.apply({"params": params}, x)).mean()

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params = variables["params"]
    params, state = jax.jit(lambda p: step(model.module, p, tx.init(p)))(params)
    found = take_away(model, groups, kept, {"params": params}, x, opt_state=state)
    fresh = jax.eval_shape(tx.init, found.variables["params"])
    assert tree.differences(found.opt_state, fresh) == []
    assert jax.tree.structure(found.opt_state) == jax.tree.structure(state)
    # Each leaf is cut as its parameter is: what is left of it is what a cut by hand leaves.
    by_hand = {
        "inner/kernel": np.ix_(kept["stem"], kept["inner"]),
        "stem/kernel": np.ix_(np.ones(5, bool), kept["stem"]),
    }
    cut_leaves = 0
    for (name, before), after in zip(
        tree.named_leaves(state).items(), jax.tree.leaves(found.opt_state), strict=True
    ):
        for ending, index in by_hand.items():
            if name.endswith(ending):
                np.testing.assert_array_equal(after, np.asarray(before)[index])
                cut_leaves += 1
    assert cut_leaves >= 2
    params, _ = jax.jit(lambda p, s: step(found.module, p, s))(
        found.variables["params"], found.opt_state
    )
    assert tree.differences(params, found.variables["params"]) == []
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_the_cut_state_takes_the_step_that_the_masked_model_takes(trained):
    """Adam on the smaller model and on the larger with the units held at zero: one step, one result."""
    model, variables, x, groups, kept = trained
    masks = masks_of(groups, kept, variables["params"])
    tx = prune.hold_fixed(optax.adam(1e-2), masks)

    def step(module, tx, params, state):
        def loss(params):
            return jnp.square(module.apply({"params": params}, x) - 1.0).mean()

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    once = jax.jit(lambda p, s: step(model.module, tx, p, s))
    params = masked_by(masks, variables["params"])
    params, state = once(params, tx.init(params))
    small = take_away(model, groups, kept, {"params": params}, x, opt_state=state.inner)
    params, state = once(params, state)
    after, _ = jax.jit(lambda p, s: step(small.module, optax.adam(1e-2), p, s))(
        small.variables["params"], small.opt_state
    )
    expected = take_away(model, groups, kept, {"params": params}, x).variables["params"]
    for found, wanted in zip(jax.tree.leaves(after), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_gradual_units_end_as_units(trained):
    """What `gradual_units` masks while it trains is just what can be taken away then."""
    from kdjax.shrink import gradual_units, shrink, unit_parameters

    model, variables, x, groups, _ = trained
    names = unit_parameters(groups)
    assert names == (
        *("back/bias", "back/kernel", "head/kernel", "inner/bias", "inner/kernel"),
        *("stem/bias", "stem/kernel"),
    )
    tx = prune.hold(
        optax.sgd(0.05, momentum=0.9),
        gradual_units(groups, lambda count: 0.2 * (1 + count), score=group_l1),
        prunable="|".join(names),
        begin_step=0,
        end_step=2,
        every_steps=1,
    )

    @jax.jit
    def step(params, state):
        def loss(params):
            return jnp.square(model({"params": params}, x) - 1.0).mean()

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = variables["params"], tx.init(variables["params"])
    masked = []
    for _ in range(3):
        params, state = step(params, state)
        masked.append(np.asarray(state.masks["inner"]["bias"]))
    assert [int(m.sum()) for m in masked] == [4, 3, 2]  # 5 - round(5 * (0.2, 0.4, 0.6))
    assert all((a >= b).all() for a, b in itertools.pairwise(masked))
    found = shrink(model, state.masks, {"params": params}, x, opt_state=state, groups=groups)
    assert {n: int(k.sum()) for n, k in found.kept.items()} == {"stem": 2, "inner": 2}
    np.testing.assert_array_equal(found.kept["inner"], masked[-1])
    np.testing.assert_allclose(
        found.module.apply(found.variables, x), model({"params": params}, x), rtol=1e-5, atol=1e-6
    )
    assert all(np.asarray(m).all() for m in jax.tree.leaves(found.opt_state.masks))


def test_keep_together_is_one_ranking(trained):
    from kdjax.shrink import gradual_units, keep_best

    _, variables, _, groups, _ = trained
    weights = variables["params"]
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), weights)
    ones["head"]["bias"] = None  # what no unit has a part in is not held
    weights = {**weights, "head": {**weights["head"], "bias": None}}
    for together, keep in ((False, keep_each), (True, keep_best)):
        rule = gradual_units(
            groups, optax.constant_schedule(0.4), score=group_l1, together=together
        )
        found, expected = jax.jit(
            lambda weights, rule=rule, keep=keep: (
                rule(jnp.int32(0), weights=weights, grads=None, masks=ones),
                unit_masks(groups, keep(groups, group_l1(groups, weights), 0.4), weights),
            )
        )(weights)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(a, b)
