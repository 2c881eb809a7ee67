import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from kdjax import train, tree
from kdjax.prune import (
    MaskState,
    find_masks,
    gradual,
    hold,
    hold_fixed,
    random_masks,
    rigl,
    sparse_evolution,
)
from kdjax.prune.schedules import cubic
from kdjax.train import TrainState, make_train_step, optimizers
from kdjax.train.parallel import mapped, single
from kdjax.tree import apply_masks
from kdjax.types import BadInput

BEGIN, END, EVERY, STEPS, SPARSITY = 2, 10, 3, 14, 0.7
DUE = (2, 5, 8, 10)
KERNELS, SMALL = ".*/kernel", "dense/kernel"
WHEN = {"begin_step": BEGIN, "end_step": END, "every_steps": EVERY, "prunable": KERNELS}
RNG = np.random.default_rng(0)


def _draw(shapes):
    return jax.tree.map(
        lambda shape: jnp.asarray(RNG.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


PARAMS = _draw(
    {
        "conv": {"kernel": (3, 3, 2, 5), "scale": (5,)},
        "dense": {"kernel": (7, 3), "bias": (3,)},
    }
)
GRADS = _draw(jax.tree.map(lambda p: (STEPS, *p.shape), PARAMS))


def _gradual(inner, *, sparsity=SPARSITY, prunable=KERNELS):
    rule = gradual(cubic(sparsity, begin_step=BEGIN, end_step=END))
    return hold(inner, rule, **WHEN | {"prunable": prunable})


def _history(tx, params=PARAMS, grads=GRADS):
    """Parameters, optimizer state and updates after each of the updates, in one scan."""

    def step(carry, grads):
        params, opt_state = carry
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return (params, opt_state), (params, opt_state, updates)

    @jax.jit
    def run(params):
        return lax.scan(step, (params, tx.init(params)), grads)[1]

    return jax.device_get(run(params))


def _check_zeros(masks, *kept):
    """Exactly +0.0 where a mask is False, over histories."""
    for params in kept:
        params = tree.named_leaves(params)
        for name, mask in tree.named_leaves(masks).items():
            pruned = np.asarray(params[name])[~mask]
            assert (pruned == 0).all()
            assert not np.signbit(pruned).any()


def _check_gradual(params, masks, sparsity=SPARSITY):
    """The invariant, and what the masks may do: over histories, by the name of the parameter."""
    _check_zeros(masks, params)
    params, masks = tree.named_leaves(params), tree.named_leaves(masks)
    for name, mask in masks.items():
        assert not (mask[1:] & ~mask[:-1]).any()  # what is pruned stays pruned
        # Dense up to the first step; new masks on the due steps only, the last at END.
        part = np.array([max(s for s in (BEGIN, *DUE) if s <= max(t, BEGIN)) for t in range(STEPS)])
        wanted = sparsity * (1 - (1 - (part - BEGIN) / (END - BEGIN)) ** 3)
        counts = (~mask).reshape(STEPS, -1).sum(-1)
        assert counts.tolist() == [round(w * mask[0].size) for w in wanted]
        # Weights that are kept live on.
        assert (params[name][mask] != 0).all()


_RATE = optax.constant_schedule(0.05)
_DECAY = {"weight_decay": 0.1, "decayed": ".*"}
_OPTIMIZERS = {
    "sgd": optimizers.sgd(_RATE, momentum=0.9, nesterov=False, **_DECAY),
    "nesterov": optimizers.sgd(_RATE, momentum=0.9, nesterov=True, **_DECAY),
    "adamw": optimizers.adamw(_RATE, b1=0.9, b2=0.999, weight_decay=0.1, decayed=KERNELS),
    "lars": optimizers.lars(_RATE, momentum=0.9, trust=0.5, weight_decay=0.1, decayed=KERNELS),
}
_CLIPPED = {
    name: optax.chain(optax.clip_by_global_norm(0.5), tx) for name, tx in _OPTIMIZERS.items()
}

# One kernel: what is compiled in the tests below is mostly the ranking of it.
LINEAR = {"a": {"kernel": _draw((6, 5)), "bias": jnp.zeros(5)}}
FEED = _draw({"x": (STEPS, 8, 6), "y": (STEPS, 8, 5)})
TICKET = random_masks(jax.random.key(1), LINEAR, {"a/kernel": 0.6})
_HELD = {
    "gradual": _gradual,
    "fixed": lambda inner: hold_fixed(inner, TICKET),
    "rigl": lambda inner: hold(inner, rigl(fraction=0.4), masks=TICKET, **WHEN),
    "set": lambda inner: hold(
        inner, sparse_evolution(jax.random.key(2), fraction=0.4), masks=TICKET, **WHEN
    ),
}


def _mean_squares(weight=1.0):
    def objective(params, state, batch, key):
        error = batch["x"] @ params["a"]["kernel"] + params["a"]["bias"][None] - batch["y"]
        return weight * jnp.mean(error**2), (state.model_state, {})

    return objective


def _trained(tx, *, accumulate):
    """Parameters, their average and the masks after each step of training, in one scan."""
    step = make_train_step(_mean_squares(), tx, ema=0.9, accumulate=accumulate)

    def body(state, batch):
        state, _ = step(state, batch, jax.random.key(0))
        return state, (state.params, state.ema_params, find_masks(state.opt_state))

    start = TrainState.start({"params": LINEAR}, tx, ema=True)
    return jax.device_get(jax.jit(lambda state: lax.scan(body, state, FEED)[1])(start))


@pytest.mark.parametrize("held", _HELD)
@pytest.mark.parametrize("name", _OPTIMIZERS)
def test_what_is_masked_is_exactly_zero_after_every_step(name, held):
    # Each optimizer and each rule meets clipping and none, accumulation and none.
    place = list(_OPTIMIZERS).index(name) + list(_HELD).index(held)
    inner = (_OPTIMIZERS, _CLIPPED)[place % 2][name]
    params, average, masks = _trained(_HELD[held](inner), accumulate=1 + (place // 2) % 2)
    _check_zeros(masks, params, average)
    weight, mask, mean = (t["a"]["kernel"] for t in (params, masks, average))
    assert masks["a"]["bias"] is None
    if held == "gradual":
        _check_gradual(params, masks)
        # The average is one: it lags behind the parameters where they are kept.
        assert ((weight != mean) == mask).all()
        return
    before = np.concatenate([TICKET["a"]["kernel"][None], mask[:-1]])
    assert ((~mask).reshape(STEPS, -1).sum(-1) == round(0.6 * before[0].size)).all()
    changed = np.flatnonzero((mask != before).reshape(STEPS, -1).any(-1)).tolist()
    assert changed == ([] if held == "fixed" else list(DUE))
    # What has come back is zero at that step, and lives from the next one on.
    assert ((weight != 0) == (mask & before)).all()


def test_steps_so_large_that_pruned_weights_would_be_the_largest():
    params, state, _ = _history(_gradual(optax.scale(-3.0), prunable=SMALL))
    _check_gradual(params, state.masks)


def test_negative_zeros_become_positive():
    start = {"w": jnp.array([-0.0, 0.0, -1.0, 1.0, -0.0, -2.0])}
    masks = {"w": np.array([False, False, False, False, True, True])}
    tx = hold_fixed(optax.sgd(0.5), masks)
    updates, _ = tx.update({"w": jnp.ones(6)}, tx.init(start), start)
    found = np.asarray(optax.apply_updates(start, updates)["w"])
    np.testing.assert_array_equal(found, [0, 0, 0, 0, -0.5, -2.5])
    assert not np.signbit(found[:4]).any()


@pytest.mark.parametrize("sparsity", [0.31, 0.999])
def test_each_tensor_ends_at_its_own_exact_count(sparsity):
    _, state, _ = _history(_gradual(optax.scale(-0.05), sparsity=sparsity))
    for mask in tree.named_leaves(state.masks).values():
        n = mask[0].size
        assert (~mask[-1]).sum() == min(round(sparsity * n), n - 1)


def test_golden():
    """SGD with weight decay and momentum, masks of the proposed parameters: float64, by hand."""
    rate, decay, momentum = 0.05, 0.1, 0.9
    tx = _gradual(optimizers.sgd(lambda _: rate, momentum=momentum, nesterov=False, **_DECAY))
    params, state, _ = _history(tx)
    for name in ("conv/kernel", "dense/kernel"):
        weight = np.asarray(tree.named_leaves(PARAMS)[name], np.float64)
        grads = np.asarray(tree.named_leaves(GRADS)[name], np.float64)
        mask, trace = np.ones(weight.shape, bool), np.zeros(weight.shape)
        for step in range(STEPS):
            trace = momentum * trace + grads[step] * mask + decay * weight
            weight = weight - rate * trace
            if step in DUE:
                part = (step - BEGIN) / (END - BEGIN)
                count = round(SPARSITY * (1 - (1 - part) ** 3) * weight.size)
                score = np.where(mask, np.abs(weight), -1).ravel()
                mask = np.ones(weight.size, bool)
                mask[np.argsort(score, kind="stable")[:count]] = False
                mask = mask.reshape(weight.shape)
            weight, trace = weight * mask, trace * mask
            np.testing.assert_array_equal(tree.named_leaves(state.masks)[name][step], mask)
            np.testing.assert_allclose(
                tree.named_leaves(params)[name][step], weight, rtol=1e-4, atol=1e-6
            )


@pytest.mark.parametrize("name", _OPTIMIZERS)
def test_what_is_pruned_is_as_if_it_were_not_there(name):
    """No norm, ratio or moment sees it: the same as training the vector of what is kept."""
    n = 12
    kept = np.random.default_rng(3).permutation(n) < 5
    params, grads = ({"a": {"kernel": x}} for x in _draw([(n,), (STEPS, n)]))
    dense, _, _ = _history(hold_fixed(_CLIPPED[name], {"a": {"kernel": kept}}), params, grads)
    small, _, _ = _history(
        _CLIPPED[name],
        {"a": {"kernel": params["a"]["kernel"][kept]}},
        {"a": {"kernel": grads["a"]["kernel"][:, kept]}},
    )
    np.testing.assert_allclose(
        dense["a"]["kernel"][:, kept], small["a"]["kernel"], rtol=1e-5, atol=1e-7
    )


def _turns(at):
    """Keeps all but one weight, which is another one at each count."""

    def rule(count, *, weights, grads, masks):
        return jax.tree.map(lambda m: jnp.arange(m.size) != count - at, masks)

    return rule


@pytest.mark.parametrize("nesterov", [False, True])
def test_what_comes_back_begins_at_zero_without_momentum(nesterov):
    rate, grads = 0.1, _draw((6, 4))
    tx = hold(
        optax.sgd(rate, momentum=0.9, nesterov=nesterov),
        _turns(2),
        **WHEN | {"every_steps": 1, "end_step": 3, "prunable": "w"},
    )
    params, state, _ = _history(tx, {"w": _draw((4,))}, {"w": grads})
    weight, mask = params["w"], state.masks["w"]
    assert [np.flatnonzero(~m).tolist() for m in mask] == [[], [], [0], [1], [1], [1]]
    # Pruned at 2, back at 3: zero still, and the next update is that of a first step.
    assert weight[2, 0] == weight[3, 0] == 0
    first = (1.9 if nesterov else 1.0) * rate * grads[4, 0]
    np.testing.assert_allclose(weight[4, 0], -first, rtol=1e-6)
    trace = optax.tree_utils.tree_get(state.inner, "trace")["w"]
    assert (trace[2:4, 0] == 0).all()
    np.testing.assert_allclose(trace[4, 0], grads[4, 0], rtol=1e-6)


def test_what_comes_back_at_the_first_update_is_zero_too():
    when = WHEN | {"begin_step": 0, "every_steps": 1, "prunable": "w"}
    masks, ones = {"w": np.array([False, True, True])}, {"w": jnp.ones(3)}
    tx = hold(optax.sgd(0.25, momentum=0.9), _turns(-1), masks=masks, **when)
    updates, state = tx.update(ones, tx.init(ones), ones)
    np.testing.assert_array_equal(state.masks["w"], [True, False, True])
    np.testing.assert_array_equal(optax.apply_updates(ones, updates)["w"], [0, 0, 0.75])
    trace = optax.tree_utils.tree_get(state.inner, "trace")
    np.testing.assert_array_equal(trace["w"], [0, 0, 1])


def test_what_comes_back_has_fresh_moments_in_adam():
    grads = _draw((6, 4))
    when = WHEN | {"every_steps": 1, "end_step": 3, "prunable": "w"}
    tx = hold(optax.adam(0.1, b1=0.9, b2=0.999), _turns(2), **when)
    params, state, _ = _history(tx, {"w": _draw((4,))}, {"w": grads})
    mu, nu = (optax.tree_utils.tree_get(state.inner, name)["w"] for name in ("mu", "nu"))
    for moment in (mu, nu):
        assert (moment[2:4, 0] == 0).all()
        assert (moment[3:, 1] == 0).all()
        assert (moment[:, 2:] != 0).all()
    np.testing.assert_allclose(mu[4, 0], 0.1 * grads[4, 0], rtol=1e-5)
    np.testing.assert_allclose(nu[4, 0], 0.001 * grads[4, 0] ** 2, rtol=1e-4)
    # The length of the first step that the docstring gives, before the bias correction of 5 counts.
    correction = np.sqrt(1 - 0.999**5) / (1 - 0.9**5)
    first = 0.1 * 0.1 / np.sqrt(0.001) * correction
    np.testing.assert_allclose(abs(params["w"][4, 0]), first, rtol=1e-4)


def test_a_rule_sees_the_dense_gradient_and_the_weights_that_the_step_would_leave():
    def largest_gradient(count, *, weights, grads, masks):
        assert grads["b"] is weights["b"] is masks["b"] is None
        keep = jnp.argmax(jnp.abs(grads["w"]))
        return {"w": (jnp.arange(4) == keep) & (weights["w"] != 7.0), "b": None}

    when = WHEN | {"prunable": "w", "begin_step": 0, "end_step": 9, "every_steps": 1}
    tx = hold(optax.sgd(1.0), largest_gradient, **when)
    params = {"w": jnp.zeros(4), "b": jnp.zeros(2)}
    grads = np.zeros((3, 4), np.float32)
    # The second is largest in what is pruned; the third would leave a weight that the rule refuses.
    grads[0, 1], grads[1, 2], grads[2, 2] = 5.0, 3.0, -7.0
    _, state, _ = _history(tx, params, {"w": jnp.asarray(grads), "b": jnp.ones((3, 2))})
    assert [np.flatnonzero(mask).tolist() for mask in state.masks["w"]] == [[1], [2], []]


def test_masks_are_constant_after_the_last_step_though_the_schedule_goes_on():
    when = {"begin_step": 1, "end_step": 4, "every_steps": 1, "prunable": KERNELS}
    _, state, _ = _history(hold(optax.sgd(0.05), gradual(lambda count: count / 16), **when))
    for mask in tree.named_leaves(state.masks).values():
        pruned = (~mask).reshape(STEPS, -1).sum(-1)
        assert pruned.tolist() == [round(mask[0].size * min(i, 4) / 16) for i in range(STEPS)]


def test_given_masks_hold_from_the_first_update_and_are_not_taken():
    masks = {"dense": {"kernel": jnp.asarray(np.arange(21).reshape(7, 3) % 2 == 0)}}
    rule = gradual(cubic(0.9, begin_step=BEGIN, end_step=END))
    tx = hold(_OPTIMIZERS["sgd"], rule, masks=masks, **WHEN | {"prunable": SMALL})
    params, state, _ = _history(tx)
    _check_zeros(state.masks, params)
    mask, given = state.masks["dense"]["kernel"], masks["dense"]["kernel"]
    np.testing.assert_array_equal(mask[:BEGIN], [given] * BEGIN)
    assert not (mask[1:] & ~mask[:-1]).any()
    assert (~mask[-1]).sum() == round(0.9 * 21)
    own = tx.init(PARAMS).masks["dense"]["kernel"]
    assert own.unsafe_buffer_pointer() != given.unsafe_buffer_pointer()


def test_a_ticket_is_the_same_whether_it_is_projected_before_or_by_the_first_update():
    masks = random_masks(jax.random.key(0), LINEAR, {"a/kernel": 0.6})
    tx = hold_fixed(_CLIPPED["lars"], masks)
    grads = jax.tree.map(lambda p: jnp.ones(p.shape), LINEAR)

    @jax.jit
    def first(params):
        updates, opt_state = tx.update(grads, tx.init(params), params)
        return optax.apply_updates(params, updates), opt_state

    found, expected = first(LINEAR), first(apply_masks(masks, LINEAR))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_dense_leaves_are_updated_as_without_masks():
    before = _OPTIMIZERS["adamw"]
    masked, state, updates = _history(_gradual(before))
    dense, without, dense_updates = _history(before)
    assert find_masks(without) is None
    assert state.masks["conv"]["scale"] is None
    assert state.masks["dense"]["bias"] is None
    for group, leaf in (("conv", "scale"), ("dense", "bias")):
        for found, expected in ((masked, dense), (updates, dense_updates)):
            # Two programs: their last bits may differ.
            np.testing.assert_allclose(
                found[group][leaf], expected[group][leaf], rtol=1e-5, atol=1e-7
            )


@pytest.mark.parametrize(
    ("param_dtype", "update_dtype"),
    [("float32", "bfloat16"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")],
)
def test_zeros_are_exact_whatever_the_dtype_of_the_updates(param_dtype, update_dtype):
    narrow = optax.stateless(lambda u, _: jax.tree.map(lambda x: x.astype(update_dtype), u))
    start = jax.tree.map(lambda p: p.astype(param_dtype), PARAMS)
    params, state, _ = _history(
        _gradual(optax.chain(optax.sgd(0.05), narrow), prunable=SMALL), start
    )
    # Only what the pattern names is pruned.
    assert set(tree.named_leaves(state.masks)) == {SMALL}
    assert (params["conv"]["kernel"] != 0).all()
    assert params["dense"]["kernel"].dtype == param_dtype
    _check_zeros(state.masks, params)
    mask = state.masks["dense"]["kernel"]
    assert (~mask[-1]).sum() == round(SPARSITY * mask[0].size)


def test_sums_over_several_entries_are_left_to_the_optimizer():
    """Adafactor keeps means of rows and columns in trees like the parameters'."""
    factored = optax.adafactor(0.05, min_dim_size_to_factor=2)
    params, state, _ = _history(_gradual(factored, prunable=SMALL))
    _check_gradual(params, state.masks)


def _run(parallel, step, state):
    run_steps = parallel.compile(train.make_run_steps(lambda resident, feed, key: feed, step))
    copied = parallel.replicate(jax.tree.map(jnp.copy, state))
    feed, key = parallel.feed(jax.device_get(FEED)), parallel.replicate(jax.random.key(0))
    return jax.device_get(run_steps(copied, {}, feed, key)[0])


def _same(found, expected):
    jax.tree.map(
        np.testing.assert_array_equal, find_masks(found.opt_state), find_masks(expected.opt_state)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected
    )


def test_the_same_on_one_device_on_eight_and_in_a_sweep():
    tx = _HELD["rigl"](_CLIPPED["nesterov"])

    def alone(way):
        parallel = way()
        step = make_train_step(_mean_squares(), tx, ema=0.9, axis_name=parallel.axis_name)
        return _run(parallel, step, TrainState.start({"params": LINEAR}, tx, ema=True))

    expected = alone(single)
    assert (find_masks(expected.opt_state)["a"]["kernel"] != TICKET["a"]["kernel"]).any()
    _same(alone(mapped), expected)
    weights = {"weight": np.array([0.25, 1.0], np.float32)}
    sweep = train.Sweep(lambda mine: _mean_squares(mine["weight"]), weights, unroll=False)
    step = train.make_sweep_step(sweep, lambda o: make_train_step(o, tx, ema=0.9))
    many = train.start_sweep({"params": LINEAR}, tx, students=2, ema=True)
    state = _run(single(), step, many)
    _same(train.student(state, 1), expected)
    other = train.student(state, 0)
    masks = find_masks(other.opt_state)
    jax.tree.map(np.testing.assert_array_equal, other.params, apply_masks(masks, other.params))


def test_jit_traces_once_and_gives_the_numbers_of_the_scan():
    tx = _gradual(optax.sgd(0.05, momentum=0.9), prunable=SMALL)
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
    scanned, states, _ = _history(tx)
    last = jax.tree.map(lambda x: x[-1], (scanned, states))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
        (params, opt_state),
        last,
    )


def test_a_pattern_that_matches_nothing_is_refused():
    tx = _gradual(optax.sgd(0.1), prunable="kernel")  # the whole name must match
    with pytest.raises(BadInput, match=r"prune\.prunable: 'kernel' matches .* 'conv/kernel'"):
        tx.init(PARAMS)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"every_steps": 0}, r"prune\.every_steps: 0 is not at least 1"),
        ({"every_steps": -3}, r"prune\.every_steps: -3 is not at least 1"),
        ({"begin_step": -1}, r"prune\.begin_step, end_step: -1, 10 are not 0 <= begin <= end"),
        ({"begin_step": 11}, r"prune\.begin_step, end_step: 11, 10 are not 0 <= begin <= end"),
    ],
)
def test_steps_that_cannot_be_are_refused(when, message):
    with pytest.raises(BadInput, match=message):
        hold(optax.sgd(0.1), rigl(fraction=0.3), **WHEN | when)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({}, "there is none; give one for each"),
        ({"dense": {"kernel": None}}, "there is none; give one for each"),
        ({"dense": {"weight": np.ones((7, 3), bool)}}, "'dense/weight' is no parameter; .*'conv/k"),
        ({"dense": {"kernel": np.ones((3, 7), bool)}}, r"bool\[3, 7\]; it must be bool\[7, 3\]"),
        ({"dense": {"kernel": np.ones((7, 3))}}, r"float64\[7, 3\]; it must be bool\[7, 3\]"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, message):
    for tx in (
        hold_fixed(optax.sgd(0.1), masks),
        hold(optax.sgd(0.1), rigl(fraction=0.3), masks=masks, **WHEN),
    ):
        with pytest.raises(BadInput, match=rf"prune\.masks: .*{message}"):
            tx.init(PARAMS)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "'conv/kernel' has no mask; masks and prunable must agree"),
        (
            {"conv": {"kernel": np.ones((3, 3, 2, 5), bool), "scale": np.ones(5, bool)}},
            "'conv/scale' has a mask, but prunable does not match it",
        ),
    ],
)
def test_masks_and_the_pattern_must_agree(more, message):
    masks = {"dense": {"kernel": np.ones((7, 3), bool)}, **more}
    with pytest.raises(BadInput, match=rf"prune\.masks: {message}"):
        hold(optax.sgd(0.1), rigl(fraction=0.3), masks=masks, **WHEN).init(PARAMS)


def test_an_update_without_parameters_is_refused():
    tx = _gradual(optax.sgd(0.1))
    with pytest.raises(ValueError, match="needs params"):
        tx.update(PARAMS, tx.init(PARAMS))


def test_masks_inside_another_transformation_are_refused():
    pruned = _gradual(optax.sgd(0.1))
    expected = jax.tree.leaves(find_masks(pruned.init(PARAMS)))
    assert len(expected) == 2
    assert all(mask.all() for mask in expected)
    whole = jax.tree.map(lambda _: "held", PARAMS)
    for tx in (
        optax.chain(pruned, optax.scale(0.5)),
        optax.chain(optax.clip(1.0), optax.chain(optax.adam(0.1), pruned)),
        optax.masked(pruned, lambda params: jax.tree.map(lambda _: True, params)),
        optax.multi_transform({"held": pruned}, whole),
        optax.apply_if_finite(pruned, 3),
        optax.MultiSteps(pruned, 2).gradient_transformation(),
    ):
        with pytest.raises(BadInput, match=r"hold: .* put it around the whole optimizer"):
            find_masks(jax.eval_shape(tx.init, PARAMS))
        with pytest.raises(BadInput, match="around the whole optimizer"):
            TrainState.start({"params": PARAMS}, tx)
    assert find_masks(optax.adam(0.1).init(PARAMS)) is None
    assert find_masks(MaskState(jnp.zeros([], jnp.int32), {"a": None}, ())) == {"a": None}
