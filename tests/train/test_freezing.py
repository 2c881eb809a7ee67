"""What is frozen keeps its bits, and what is not is trained as it would be alone."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import config, parse, prune, train, tree
from kdjax.contexts import build
from kdjax.prune import masks
from kdjax.train import Freezing, optimizers
from kdjax.train.freezing import NEVER
from kdjax.train.parallel import mapped, single
from kdjax.types import BadInput

STEPS, RATE = 6, 0.1
KEY = jax.random.key(0)


class Encoder(nn.Module):
    """Two dense layers, each with its BatchNorm."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train):
        for i in range(2):
            x = nn.Dense(4, use_bias=False, name=f"dense{i}")(x)
            norm = nn.BatchNorm(not train, momentum=0.8, axis_name=self.axis_name, name=f"norm{i}")
            x = nn.relu(norm(x))
        return x


class Net(nn.Module):
    """A classifier on it."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(3, name="classifier")(
            Encoder(self.axis_name, name="encoder")(x, train=train)
        )


def batches():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(STEPS, 16, 5)), random.normal(size=(STEPS, 16, 3))
    return [{"inputs": jnp.float32(a), "target": jnp.float32(b)} for a, b in zip(x, y, strict=True)]


@functools.cache
def variables():
    """With statistics that are not those of any batch, and zeros of either sign."""
    found = jax.tree.map(np.array, Net().init(KEY, jnp.zeros((1, 5)), train=False))
    stats = jax.tree.map(lambda leaf: leaf + np.float32(0.3), found["batch_stats"])
    found["params"]["encoder"]["norm0"]["bias"][:] = [-0.0, 0.0, -0.0, 0.5]
    found["params"]["encoder"]["dense0"]["kernel"][0] = -0.0
    return {"params": found["params"], "batch_stats": stats}


def objective(axis_name=None):
    def loss(outputs, batch):
        return ((outputs - batch["target"]) ** 2).sum(-1)

    return train.weigh(train.forward_of(Net(axis_name)), {"squares": (1.0, loss)})


def schedule(step):
    return RATE / (1.0 + step)


def make(begin_step, *, optimizer=optimizers.sgd, **how):
    how = how or {"momentum": 0.9, "nesterov": False}
    return optimizer(
        lambda count: schedule(count + begin_step), weight_decay=0.05, decayed=".*", **how
    )


def trained(freezing, tx, *, steps=STEPS, state=None, step=None, **how):
    """The state after some steps, each of its own batch."""
    if state is None:
        start = jax.tree.map(jnp.asarray, variables())
        state = train.TrainState.start(start, tx, ema=how.get("ema") is not None)
    step = jax.jit(step or train.make_train_step(objective(), tx, freezing=freezing, **how))
    for batch in batches()[int(state.step) : steps]:
        state, _ = step(state, batch, KEY)
    return jax.device_get(state)


def same_bits(found, expected):
    for name, leaf in tree.named_leaves(expected).items():
        assert np.asarray(tree.named_leaves(found)[name]).tobytes() == leaf.tobytes(), name


ENCODER = Freezing(frozen="encoder/.*")


def held(inner):
    """With half of the classifier pruned."""
    rule = prune.gradual(optax.constant_schedule(0.5), mask=masks.topk_mask)
    how = {"begin_step": 1, "end_step": 3, "every_steps": 2}
    return prune.hold(inner, rule, prunable="classifier/kernel", **how)


@pytest.mark.parametrize("of", ["sgd", "adamw", "lars"])
@pytest.mark.parametrize(
    "how",
    [
        {
            "before": [optimizers.l1(0.1, penalized=".*/scale|.*/bias", freezing=ENCODER)],
            "ema": 0.9,
        },
        {"before": [optax.clip_by_global_norm(0.5)], "accumulate": 2, "pruned": True},
    ],
    ids=["l1-average", "clip-accumulate-pruned"],
)
def test_what_is_frozen_keeps_its_bits(of, how):
    how = dict(how)
    own = {
        "sgd": {"momentum": 0.9, "nesterov": True},
        "adamw": {"b1": 0.9, "b2": 0.99},
        "lars": {"momentum": 0.9, "trust": 0.1},
    }
    build = functools.partial(make, optimizer=getattr(optimizers, of), **own[of])
    tx = train.freeze(build, ENCODER, before=how.pop("before"))
    if how.pop("pruned", False):
        tx = held(tx)
    state = trained(ENCODER, tx, debiased="ema" in how, **how)
    start = variables()
    for params in filter(None, (state.params, state.ema_params)):
        same_bits(params["encoder"], start["params"]["encoder"])
        moved = np.abs(params["classifier"]["kernel"] - start["params"]["classifier"]["kernel"])
        assert moved.min() > 0
    same_bits(state.model_state, {"batch_stats": start["batch_stats"]})
    # What is frozen has no state: neither momentum nor moments.
    kept = [leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == np.float32]
    assert max(kept) == 12


def by_hand():
    """The classifier alone in float64, on features with running statistics; SGD as PyTorch has it."""
    start = jax.tree.map(np.float64, variables())
    params, stats = start["params"]["encoder"], start["batch_stats"]["encoder"]
    own = start["params"]["classifier"]
    momentum = jax.tree.map(np.zeros_like, own)
    for i, batch in enumerate(batches()):
        x, y = np.float64(batch["inputs"]), np.float64(batch["target"])
        for layer in range(2):
            dense, norm = params[f"dense{layer}"], params[f"norm{layer}"]
            seen = stats[f"norm{layer}"]
            x = x @ dense["kernel"]
            x = (x - seen["mean"]) / np.sqrt(seen["var"] + 1e-5) * norm["scale"] + norm["bias"]
            x = np.maximum(x, 0)
        error = 2 * (x @ own["kernel"] + own["bias"] - y) / len(x)
        grads = {"kernel": x.T @ error, "bias": error.sum(0)}
        momentum = {n: 0.9 * momentum[n] + grads[n] + 0.05 * own[n] for n in own}
        own = {n: own[n] - schedule(i) * momentum[n] for n in own}
    return own


def test_what_is_not_frozen_by_hand():
    state = trained(ENCODER, train.freeze(make, ENCODER))
    for name, value in by_hand().items():
        np.testing.assert_allclose(state.params["classifier"][name], value, rtol=2e-5, atol=1e-6)


def test_on_several_devices_as_on_one():
    tx = train.freeze(make, ENCODER)
    alone = trained(ENCODER, tx)
    for parallel in (single(), mapped()):
        step = train.make_train_step(
            objective(parallel.axis_name), tx, freezing=ENCODER, axis_name=parallel.axis_name
        )
        run = parallel.compile(train.make_run_steps(lambda resident, feed, key: feed, step))
        start = jax.tree.map(jnp.asarray, variables())
        state = parallel.replicate(train.TrainState.start(start, tx))
        for batch in batches():
            feed = jax.tree.map(lambda x: np.asarray(x)[None], batch)
            state, _ = run(
                state, parallel.replicate({}), parallel.feed(feed), parallel.replicate(KEY)
            )
        state = jax.device_get(state)
        same_bits(state.params["encoder"], variables()["params"]["encoder"])
        same_bits(state.model_state, {"batch_stats": variables()["batch_stats"]})
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
            state.params["classifier"],
            alone.params["classifier"],
        )


@pytest.mark.parametrize("unroll", [False, True])
def test_in_a_sweep(unroll):
    tx = train.freeze(make, ENCODER)

    def of_one(mine):
        def scaled(*args):
            loss, aside = objective()(*args)
            return mine["by"] * loss, aside

        return scaled

    sweep = train.Sweep(of_one, {"by": np.float32([1.0, 0.5])}, unroll)
    step = train.make_sweep_step(sweep, lambda o: train.make_train_step(o, tx, freezing=ENCODER))
    start = jax.tree.map(jnp.asarray, variables())
    state = train.start_sweep(start, tx, students=2, ema=False)
    state = trained(ENCODER, tx, state=state, step=step)
    for i in range(2):
        same_bits(train.student(state, i).params["encoder"], variables()["params"]["encoder"])
    one, other = (state.params["classifier"]["bias"][i] for i in range(2))
    assert np.abs(one - other).min() > 0


def test_statistics_may_follow_the_batches_all_the_same():
    follow = dataclasses.replace(ENCODER, statistics=False)
    state = trained(follow, train.freeze(make, follow))
    same_bits(state.params["encoder"], variables()["params"]["encoder"])
    x = np.stack([np.float64(batch["inputs"]) for batch in batches()])
    dense = jax.tree.map(np.float64, variables()["params"]["encoder"]["dense0"])
    mean = np.float64(variables()["batch_stats"]["encoder"]["norm0"]["mean"])
    for batch in x @ dense["kernel"]:
        mean = 0.8 * mean + 0.2 * batch.mean(0)
    found = state.model_state["batch_stats"]["encoder"]["norm0"]["mean"]
    np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-6)


def test_a_norm_is_frozen_when_all_of_its_parameters_are():
    kernels = Freezing(frozen="encoder/.*/kernel|encoder/norm1/.*|encoder/norm0/scale")
    state = trained(kernels, train.freeze(make, kernels))
    start = variables()["batch_stats"]["encoder"]
    found = state.model_state["batch_stats"]["encoder"]
    same_bits(found["norm1"], start["norm1"])
    assert np.abs(found["norm0"]["mean"] - start["norm0"]["mean"]).min() > 0


UNFREEZING = Freezing(
    frozen="encoder/dense0/.*|encoder/norm0/.*", unfreeze=((r"encoder/(dense|norm)1/.*", 2),)
)


@jax.numpy_rank_promotion("allow")
def in_two(adam):
    """The same by two optimizers, of which one begins at step 2 with statistics of its own."""
    start = jax.tree.map(jnp.asarray, variables())
    params, stats = start["params"], start["batch_stats"]
    names = {"late": ("dense1", "norm1"), "early": ()}

    def part(params, which):
        if which == "early":
            return params["classifier"]
        return {name: params["encoder"][name] for name in names["late"]}

    rate = {which: 2 * (which == "late") for which in names}
    txs = {
        which: optax.adamw(lambda n, b=begin: schedule(n + b), b2=0.99, weight_decay=0.05)
        if adam
        else optax.chain(
            optax.add_decayed_weights(0.05),
            optax.sgd(lambda n, b=begin: schedule(n + b), momentum=0.9),
        )
        for which, begin in rate.items()
    }
    states = {which: tx.init(part(params, which)) for which, tx in txs.items()}
    for i, batch in enumerate(batches()):

        def loss(params, stats, batch, *, live):
            x = batch["inputs"]
            moved = dict(stats["encoder"])
            for n in range(2):
                dense, norm = params["encoder"][f"dense{n}"], params["encoder"][f"norm{n}"]
                x = x @ dense["kernel"]
                mean, var = stats["encoder"][f"norm{n}"].values()
                if live and n == 1:
                    mean, var = x.mean(0), x.var(0)
                    moved["norm1"] = {
                        "mean": 0.8 * stats["encoder"]["norm1"]["mean"] + 0.2 * mean,
                        "var": 0.8 * stats["encoder"]["norm1"]["var"] + 0.2 * var,
                    }
                x = (x - mean) / jnp.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]
                x = jax.nn.relu(x)
            own = params["classifier"]
            out = x @ own["kernel"] + own["bias"]
            return ((out - batch["target"]) ** 2).sum(-1).mean(), {"encoder": moved}

        ask = jax.jit(jax.grad(loss, has_aux=True), static_argnames="live")
        grads, stats = ask(params, stats, batch, live=i >= 2)
        for which in names:
            if which == "late" and i < 2:
                continue
            mine = part(params, which)
            updates, states[which] = txs[which].update(part(grads, which), states[which], mine)
            mine = optax.apply_updates(mine, updates)
            if which == "early":
                params = {**params, "classifier": mine}
            else:
                params = {**params, "encoder": {**params["encoder"], **mine}}
    return jax.device_get((params, stats))


@pytest.mark.parametrize("adam", [False, True])
def test_what_is_unfrozen_has_an_optimizer_that_begins_there(adam):
    own = {"optimizer": optimizers.adamw, "b1": 0.9, "b2": 0.99} if adam else {}
    tx = train.freeze(functools.partial(make, **own), UNFREEZING)
    early = trained(UNFREEZING, tx, steps=2)
    same_bits(early.params["encoder"], variables()["params"]["encoder"])
    same_bits(early.model_state, {"batch_stats": variables()["batch_stats"]})
    state = trained(UNFREEZING, tx)
    same_bits(state.params["encoder"]["dense0"], variables()["params"]["encoder"]["dense0"])
    params, stats = in_two(adam)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, state.params, params)
    jax.tree.map(close, state.model_state["batch_stats"], stats)
    assert np.abs(params["encoder"]["norm1"]["bias"]).max() > 0


@pytest.mark.parametrize("cut", [3, pytest.param(1, marks=pytest.mark.thorough)])
def test_a_run_that_is_stopped_amid_an_unfreezing_goes_on_to_the_bit(cut, tmp_path):
    tx = train.freeze(
        functools.partial(make, optimizer=optimizers.adamw, b1=0.9, b2=0.99), UNFREEZING
    )
    how = {"ema": 0.9, "debiased": True}
    whole = trained(UNFREEZING, tx, **how)
    some = trained(UNFREEZING, tx, steps=cut, **how)
    train.save_tree(tmp_path / "state", some)
    abstract = jax.eval_shape(lambda: some)
    state = jax.tree.map(jnp.asarray, train.load_tree(tmp_path / "state", abstract))
    same_bits(trained(UNFREEZING, tx, state=state, **how), whole)


def test_no_gradient_is_computed_of_what_is_frozen():
    """Nor of what is before it: the backward pass has the products of the classifier alone."""

    def products(freezing):
        tx = train.freeze(make, freezing)
        step = train.make_train_step(objective(), tx, freezing=freezing)
        state = train.TrainState.start(jax.tree.map(jnp.asarray, variables()), tx)
        return jax.jit(step).lower(state, batches()[0], KEY).compile().as_text().count(" dot(")

    # Three layers forward; backward one for the kernel of the last, or as many as there are.
    assert products(ENCODER) == 4
    assert products(Freezing(frozen="classifier/.*")) == 3 + 1 + 2 * 2 - 1


@pytest.mark.parametrize(
    ("freezing", "line"),
    [
        (Freezing(frozen="encodr/.*"), r"optimizer.frozen: 'encodr/.\*' matches no parameter"),
        (
            Freezing(unfreeze=(("clasifier", 3),)),
            r"optimizer.unfreeze\[0\]: 'clasifier' matches no",
        ),
        (
            Freezing(unfreeze=((".*/bias", 2), ("encoder/norm0/bias", 3))),
            r"optimizer.unfreeze\[1\]: earlier patterns took all that .* see optimizer.unfreeze\[0\]",
        ),
        (
            Freezing(frozen="encoder/.*", unfreeze=(("encoder/.*", 3),)),
            "optimizer.frozen: earlier patterns took all",
        ),
        (Freezing(frozen=".*"), "optimizer.frozen: .* nothing is left to train; leave some out"),
    ],
)
def test_patterns_that_do_not_fit_the_model_are_refused(freezing, line):
    with pytest.raises(BadInput, match=line):
        train.freeze(make, freezing).init(variables()["params"])


def test_modules_beside_the_model_are_trained_whatever_the_patterns_say():
    params = {**variables()["params"], train.BESIDE: {"probe": {"bias": np.zeros(3)}}}
    since = tree.named_leaves(Freezing(frozen="encoder/.*|beside/.*").since(params))
    assert since["beside/probe/bias"] == 0
    assert since["encoder/norm0/bias"] == NEVER


def test_statistics_of_a_module_beside_are_its_own():
    """Its names are not the model's, also where they are alike."""
    probe = nn.BatchNorm(momentum=0.8)
    net = nn.BatchNorm(momentum=0.8)
    x = jnp.float32([[1.0], [3.0]])
    own = net.init(KEY, x, use_running_average=False)
    everything = train.with_auxiliary({}, {"probe": probe.init(KEY, x, use_running_average=False)})
    both = {name: {**own[name], **everything[name]} for name in own}

    def forward(params, state, batch, key):
        rest = {"batch_stats": state.model_state["batch_stats"]}
        kept = {"params": params, **rest}
        out, changed = net.apply(
            kept, batch["inputs"], mutable=["batch_stats"], use_running_average=False
        )
        more, rest = train.apply_auxiliary(
            probe, "probe", params, {**rest, **changed}, out, use_running_average=False
        )
        return {"out": more}, rest

    freezing = Freezing(frozen="scale|bias")
    run = freezing.of(train.weigh(forward, {"one": (1.0, lambda o, b: o["out"].sum(-1))}))
    state = train.TrainState(jnp.int32(0), both["params"], (), {"batch_stats": both["batch_stats"]})
    stats = run(both["params"], state, {"inputs": x}, KEY)[1][0]["batch_stats"]
    np.testing.assert_array_equal(stats["mean"], [0.0])
    assert float(stats["beside"]["probe"]["mean"][0]) == pytest.approx(0.2 * 2.0, rel=1e-4)


def test_nothing_is_read_of_statistics_that_are_frozen():
    """An average of the parameters has statistics of its own, but for these."""
    norm1 = Freezing(frozen="encoder/norm1/.*")
    start = jax.tree.map(jnp.asarray, variables())
    state = train.TrainState.start(start, train.freeze(make, norm1), ema=True)
    _, metrics = train.make_reading_step(norm1.of(objective()))(state, batches()[0], KEY)
    found = {"encoder/norm0/mean", "encoder/norm0/var"}
    assert train.readings_of(jax.device_get(metrics)).keys() == found


def test_what_is_pruned_while_others_are_still_frozen():
    """Zeros stay, and what is unfrozen is as without the pruning of other parameters."""
    tx = train.freeze(
        functools.partial(make, optimizer=optimizers.adamw, b1=0.9, b2=0.9), UNFREEZING
    )
    state = trained(UNFREEZING, held(tx))
    start = variables()["params"]["encoder"]
    same_bits(state.params["encoder"]["dense0"], start["dense0"])
    assert (state.params["classifier"]["kernel"] == 0).sum() == 6
    assert np.abs(state.params["encoder"]["dense1"]["kernel"] - start["dense1"]["kernel"]).max() > 0


def test_a_penalty_on_nothing_that_is_trained_is_refused():
    freezing = Freezing(frozen=".*/scale")
    tx = optimizers.l1(0.1, penalized=".*/scale", freezing=freezing)
    params = variables()["params"]
    with pytest.raises(BadInput, match=r"scale_l1: optimizer.frozen has all that"):
        tx.update(params, tx.init(params), params)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_an_optimizer_of_which_nothing_is_asked_has_the_state_that_it_had(clip):
    """Checkpoints of older runs go on."""
    stage = {
        "kind": "finetune",
        "encoder": {"name": "cnn", "widths": [4]},
        "views": {"recipe": "eval"},
        "steps": 10,
        "batch": 4,
        "optimizer": {
            "name": "adamw",
            "learning_rate": 0.1,
            "weight_decay": 0.1,
            "clip_norm": clip,
        },
    }
    params = variables()["params"]
    tx = build.optimizer(parse.parse(config.Stage, stage), names=tuple)
    alone = optax.adamw(lambda step: 0.1, mask=lambda params: tree.match(params, ".*/kernel"))
    clipped = [] if clip is None else [optax.clip_by_global_norm(clip)]
    expected = optax.chain(*clipped, alone).init(params)
    assert jax.tree.structure(tx.init(params)) == jax.tree.structure(expected)
