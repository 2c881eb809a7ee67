import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from kdjax import tree
from kdjax.prune import MaskState, apply_masks, cubic, find_masks, prune_by_magnitude
from kdjax.train import TrainState, make_train_step, optimizers
from kdjax.types import BadInput

BEGIN, END, EVERY, STEPS, SPARSITY = 2, 10, 3, 14, 0.7
KERNELS = ".*/kernel"
RNG = np.random.default_rng(0)
PARAMS = jax.tree.map(
    lambda shape: jnp.asarray(RNG.normal(size=shape), jnp.float32),
    {
        "conv": {"kernel": (3, 3, 2, 5), "scale": (5,)},
        "dense": {"kernel": (7, 3), "bias": (3,)},
    },
    is_leaf=lambda node: isinstance(node, tuple),
)
GRADS = jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=(STEPS, *p.shape)), jnp.float32), PARAMS)


def _masks_last(*before, sparsity=SPARSITY, prunable=KERNELS):
    masks = prune_by_magnitude(
        cubic(sparsity, begin_step=BEGIN, end_step=END),
        begin_step=BEGIN,
        end_step=END,
        every_steps=EVERY,
        prunable=prunable,
    )
    return optax.chain(*before, masks)


def _history(tx, params=PARAMS):
    """Parameters, masks and updates after each of `STEPS` updates, in one scan."""

    def step(carry, grads):
        params, opt_state = carry
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return (params, opt_state), (params, find_masks(opt_state), updates)

    @jax.jit
    def run(params):
        return lax.scan(step, (params, tx.init(params)), GRADS)[1]

    return jax.device_get(run(params))


def _check(params, masks, sparsity=SPARSITY):
    """The invariant, and what the masks may do: over histories, by the name of the parameter."""
    params, masks = tree.named_leaves(params), tree.named_leaves(masks)
    assert set(masks) == {"conv/kernel", "dense/kernel"}
    for name, mask in masks.items():
        assert (params[name][~mask] == 0).all()
        assert not (mask[1:] & ~mask[:-1]).any()  # what is pruned stays pruned
        n = mask[0].size
        assert (~mask[-1]).sum() == round(sparsity * n)
        # Dense up to the first step; new masks on the due steps only, the last at END.
        counts = (~mask).reshape(STEPS, -1).sum(-1)
        assert (counts[: BEGIN + 1] == 0).all()
        changed = {int(i) + 1 for i in np.flatnonzero(np.diff(counts))}
        assert changed == {BEGIN + EVERY, BEGIN + 2 * EVERY, END}
        assert (mask[END:] == mask[END]).all()
        # Weights that are kept live on.
        assert (params[name][mask] != 0).all()


_SGD = {"weight_decay": 0.1, "decayed": ".*"}
_CHAINS = {
    "sgd": lambda s: [optimizers.sgd(s, momentum=0.9, nesterov=False, **_SGD)],
    "nesterov": lambda s: [optimizers.sgd(s, momentum=0.9, nesterov=True, **_SGD)],
    "adamw": lambda s: [optimizers.adamw(s, b1=0.9, b2=0.999, weight_decay=0.1, decayed=KERNELS)],
    "lars": lambda s: [
        optimizers.lars(s, momentum=0.9, trust=0.5, weight_decay=0.1, decayed=KERNELS)
    ],
    # Steps so large that a pruned weight would be among the largest if it could come back.
    "large": lambda s: [optax.scale(-3.0)],
    "clipped": lambda s: [
        optax.clip_by_global_norm(0.5),
        optimizers.sgd(s, momentum=0.9, nesterov=False, **_SGD),
    ],
}


@pytest.mark.parametrize("name", _CHAINS)
def test_what_is_masked_is_exactly_zero_after_every_step(name):
    before = _CHAINS[name](optax.constant_schedule(0.05))
    params, masks, _ = _history(_masks_last(*before))
    _check(params, masks)


@pytest.mark.parametrize("sparsity", [0.0, 0.31, 0.9, 0.999])
def test_each_tensor_ends_at_its_own_exact_count(sparsity):
    _, masks, _ = _history(_masks_last(optax.sgd(0.05), sparsity=sparsity))
    for mask in tree.named_leaves(masks).values():
        n = mask[0].size
        assert (~mask[-1]).sum() == min(round(sparsity * n), n - 1)


def test_golden():
    """SGD with weight decay, and masks of the proposed parameters: float64, step by step."""
    rate, decay = 0.05, 0.1
    tx = _masks_last(optimizers.sgd(lambda _: rate, momentum=0.0, nesterov=False, **_SGD))
    params, masks, _ = _history(tx)
    for name in ("conv/kernel", "dense/kernel"):
        weight = np.asarray(tree.named_leaves(PARAMS)[name], np.float64)
        grads = np.asarray(tree.named_leaves(GRADS)[name], np.float64)
        mask = np.ones(weight.shape, bool)
        for step in range(STEPS):
            weight = weight - rate * (grads[step] + decay * weight)
            if step in (2, 5, 8, 10):
                part = (step - BEGIN) / (END - BEGIN)
                count = round(SPARSITY * (1 - (1 - part) ** 3) * weight.size)
                score = np.where(mask, np.abs(weight), -1).ravel()
                mask = np.ones(weight.size, bool)
                mask[np.argsort(score, kind="stable")[:count]] = False
                mask = mask.reshape(weight.shape)
            weight = weight * mask
            np.testing.assert_array_equal(tree.named_leaves(masks)[name][step], mask)
            np.testing.assert_allclose(
                tree.named_leaves(params)[name][step], weight, rtol=1e-4, atol=1e-6
            )


def test_masks_are_constant_after_the_last_step_though_the_schedule_goes_on():
    tx = prune_by_magnitude(
        lambda count: count / 16, begin_step=1, end_step=4, every_steps=1, prunable=KERNELS
    )
    _, masks, _ = _history(optax.chain(optax.sgd(0.05), tx))
    for mask in tree.named_leaves(masks).values():
        pruned = (~mask).reshape(STEPS, -1).sum(-1)
        assert pruned.tolist() == [round(mask[0].size * min(i, 4) / 16) for i in range(STEPS)]


def test_dense_leaves_are_updated_as_without_masks():
    before = optimizers.adamw(
        optax.constant_schedule(0.05), b1=0.9, b2=0.999, weight_decay=0.1, decayed=".*"
    )
    masked, masks, updates = _history(_masks_last(before))
    dense, none, dense_updates = _history(before)
    assert none is None
    assert masks["conv"]["scale"] is None
    assert masks["dense"]["bias"] is None
    for group, leaf in (("conv", "scale"), ("dense", "bias")):
        np.testing.assert_array_equal(masked[group][leaf], dense[group][leaf])
        np.testing.assert_array_equal(updates[group][leaf], dense_updates[group][leaf])


def test_only_what_the_pattern_names_is_pruned():
    params, masks, _ = _history(_masks_last(optax.sgd(0.05), prunable="dense/kernel"))
    assert set(tree.named_leaves(masks)) == {"dense/kernel"}
    assert (params["conv"]["kernel"] != 0).all()


@pytest.mark.parametrize(
    ("param_dtype", "update_dtype"),
    [("float32", "bfloat16"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")],
)
def test_zeros_are_exact_whatever_the_dtype_of_the_updates(param_dtype, update_dtype):
    narrow = optax.stateless(lambda u, _: jax.tree.map(lambda x: x.astype(update_dtype), u))
    start = jax.tree.map(lambda p: p.astype(param_dtype), PARAMS)
    params, masks, _ = _history(_masks_last(optax.sgd(0.05), narrow), start)
    assert params["conv"]["kernel"].dtype == param_dtype
    for name, mask in tree.named_leaves(masks).items():
        assert (~mask[-1]).sum() == round(SPARSITY * mask[0].size)
        assert (np.asarray(tree.named_leaves(params)[name])[~mask] == 0).all()


@pytest.mark.parametrize("accumulate", [1, 4])
def test_zeros_survive_the_train_step_with_its_average_and_accumulation(accumulate):
    def objective(params, state, batch, key):
        hidden = jnp.tanh(batch["x"] @ params["a"]["kernel"])
        out = hidden @ params["b"]["kernel"] + params["b"]["bias"][None]
        return jnp.mean((out - batch["y"]) ** 2), (state.model_state, {})

    rng = np.random.default_rng(1)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    params = {"a": {"kernel": draw(4, 6)}, "b": {"kernel": draw(6, 3), "bias": jnp.zeros(3)}}
    tx = _masks_last(
        optax.clip_by_global_norm(1.0),
        optimizers.sgd(lambda _: 0.1, momentum=0.9, nesterov=True, **_SGD),
    )
    step = jax.jit(make_train_step(objective, tx, ema=0.9, accumulate=accumulate))
    state = TrainState.start({"params": params}, tx, ema=True)
    batch = {"x": draw(8, 4), "y": draw(8, 3)}
    for _ in range(STEPS):
        state, _ = step(state, batch, jax.random.key(0))
        masks = find_masks(state.opt_state)
        for kept in (state.params, state.ema_params, state.variables["params"]):
            zeroed = apply_masks(masks, kept)
            jax.tree.map(np.testing.assert_array_equal, kept, zeroed)
    for name, mask in tree.named_leaves(masks).items():
        assert (~mask).sum() == round(SPARSITY * mask.size)
        # The average is one: it lags behind the parameters where they are kept.
        both = [tree.named_leaves(t)[name] for t in (state.params, state.ema_params)]
        assert (both[0] != both[1]).sum() == mask.sum()


def test_jit_traces_once_and_gives_the_numbers_of_the_scan():
    tx = _masks_last(optax.sgd(0.05, momentum=0.9))
    traces = []

    @jax.jit
    def step(params, opt_state, grads):
        traces.append(0)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params, opt_state = PARAMS, tx.init(PARAMS)
    for i in range(STEPS):
        params, opt_state = step(params, opt_state, jax.tree.map(lambda g, i=i: g[i], GRADS))
    assert len(traces) == 1
    scanned, masks, _ = _history(tx)
    last = jax.tree.map(lambda x: x[-1], (scanned, masks))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
        (params, find_masks(opt_state)),
        last,
    )


def test_a_pattern_that_matches_nothing_is_refused():
    tx = _masks_last(optax.sgd(0.1), prunable="kernel")  # the whole name must match
    with pytest.raises(BadInput, match=r"prune\.prunable: 'kernel' matches .* 'conv/kernel'"):
        tx.init(PARAMS)


@pytest.mark.parametrize("every", [0, -3])
def test_a_distance_below_one_is_refused(every):
    with pytest.raises(BadInput, match=rf"prune\.every_steps: {every} is not at least 1"):
        prune_by_magnitude(
            lambda _: 0.5, begin_step=0, end_step=1, every_steps=every, prunable=KERNELS
        )


def test_an_update_without_parameters_is_refused():
    tx = _masks_last()
    with pytest.raises(ValueError, match="needs params"):
        tx.update(PARAMS, tx.init(PARAMS))


def test_find_masks_looks_into_chains_and_wrappers():
    pruned = _masks_last(optax.sgd(0.1))
    expected = jax.tree.leaves(find_masks(pruned.init(PARAMS)))
    assert len(expected) == 2
    assert all(mask.all() for mask in expected)
    nested = optax.chain(optax.clip(1.0), optax.chain(optax.adam(0.1), pruned))
    wrapped = optax.masked(pruned, lambda params: jax.tree.map(lambda _: True, params))
    counted = optax.apply_if_finite(pruned, 3)
    for tx in (nested, wrapped, counted):
        found = find_masks(jax.eval_shape(tx.init, PARAMS))
        assert set(tree.named_leaves(found)) == {"conv/kernel", "dense/kernel"}
    assert find_masks(optax.adam(0.1).init(PARAMS)) is None
    assert find_masks(MaskState(jnp.zeros([], jnp.int32), {"a": None})) == {"a": None}
