import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models, prune, tree
from kdjax.train import recalibrate
from kdjax.types import BadInput

EPSILON, ROWS = 1e-5, 8
RNG = np.random.default_rng(0)


class Net(nn.Module):
    """A convolution and a dense layer, each with its normalisation."""

    momenta: tuple[float, float] = (0.9, 0.5)
    second_frozen: bool = False

    @nn.compact
    def __call__(self, x, *, train):
        first, second = self.momenta
        x = nn.Conv(3, (1, 1), use_bias=False, name="conv")(x)
        norm = nn.BatchNorm(not train, momentum=first, epsilon=EPSILON, name="norm1")
        x = nn.relu(norm(x)).mean((1, 2))
        x = nn.Dense(4, name="dense")(x)
        frozen = self.second_frozen or not train
        return nn.BatchNorm(frozen, momentum=second, epsilon=EPSILON, name="norm2")(x)


def _forward(model):
    return lambda variables, batch: model.apply(
        variables, batch["inputs"], train=True, mutable=["batch_stats"]
    )[1]


def _images(*rows):
    # Off centre and of another scale each, so that their means differ.
    return [
        {"inputs": jnp.asarray(RNG.normal(i - 1, 1 + i, (n, 4, 4, 2)), jnp.float32)}
        for i, n in enumerate(rows)
    ]


def _variables(model):
    """With statistics that are far from any that a batch has."""
    variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)), train=True)
    stats = jax.tree.map(lambda s: s + 100.0, variables["batch_stats"])
    return {**variables, "batch_stats": stats}


VARIABLES, BATCHES = _variables(Net()), _images(ROWS, ROWS, ROWS)


def _by_hand(variables, batches):
    """Statistics of both layers in float64, each batch normalised by itself on the way."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), variables["params"])
    kept, sizes = {"norm1": [], "norm2": []}, [len(batch["inputs"]) for batch in batches]
    for batch in batches:
        x = np.asarray(batch["inputs"], np.float64) @ params["conv"]["kernel"][0, 0]
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        kept["norm1"].append((mean, var))
        x = (x - mean) / np.sqrt(var + EPSILON)
        x = np.maximum(x * params["norm1"]["scale"] + params["norm1"]["bias"], 0).mean((1, 2))
        x = x @ params["dense"]["kernel"] + params["dense"]["bias"]
        kept["norm2"].append((x.mean(0), x.var(0)))
    weights, found = np.array(sizes) / sum(sizes), {}
    for name, moments in kept.items():
        means, variances = (np.stack(part) for part in zip(*moments, strict=True))
        mean = weights @ means
        found[name] = {"mean": mean, "var": weights @ variances + weights @ (means - mean) ** 2}
    return found


def _close(found, expected, rtol=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), found, expected
    )


@pytest.mark.parametrize("momenta", [(0.9, 0.5), (0.0, 0.999)])
@pytest.mark.parametrize("rows", [(ROWS,), (ROWS, ROWS), (ROWS, 3, 5)])
def test_golden_whatever_the_momentum(momenta, rows):
    batches = _images(*rows)
    found = recalibrate(_forward(Net(momenta)), VARIABLES, batches)
    _close(found["batch_stats"], _by_hand(VARIABLES, batches))
    assert found["params"] is VARIABLES["params"]
    for leaf, old in zip(*map(jax.tree.leaves, (found, VARIABLES)), strict=True):
        assert (leaf.dtype, leaf.shape) == (old.dtype, old.shape)


def test_the_first_layer_has_the_statistics_of_all_rows_at_once():
    batches = _images(ROWS, 3, 5)
    whole = {"inputs": jnp.concatenate([batch["inputs"] for batch in batches])}
    apart, once = (
        recalibrate(_forward(Net()), VARIABLES, given)["batch_stats"]
        for given in (batches, [whole])
    )
    _close(apart["norm1"], once["norm1"])
    # Later ones see batches that have been normalised each by itself.
    assert not np.allclose(apart["norm2"]["var"], once["norm2"]["var"], rtol=1e-2)


def test_neither_the_order_of_batches_nor_what_was_there_matters():
    fresh = Net().init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)), train=True)
    forwards = recalibrate(_forward(Net()), VARIABLES, BATCHES)["batch_stats"]
    backwards = recalibrate(_forward(Net()), fresh, iter(BATCHES[::-1]))["batch_stats"]
    _close(backwards, forwards, rtol=1e-6)


def test_what_is_not_run_in_training_is_left_alone():
    """A layer that is frozen, one that is not run, and a leaf that is no mean or variance."""
    extra = {"head": {"mean": jnp.ones(2), "var": jnp.ones(2)}, "norm3": {"sigma": jnp.ones(())}}
    variables = {**VARIABLES, "batch_stats": {**VARIABLES["batch_stats"], **extra}}
    found = recalibrate(_forward(Net(second_frozen=True)), variables, BATCHES)["batch_stats"]
    for name in ("norm2", "head", "norm3"):
        jax.tree.map(np.testing.assert_array_equal, found[name], variables["batch_stats"][name])
    _close(found["norm1"], _by_hand(VARIABLES, BATCHES)["norm1"])


def test_a_layer_before_a_frozen_one_is_normalised_by_its_own_batch():
    class Frozen(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            x = nn.BatchNorm(True, name="frozen")(x.mean((1, 2)))
            return nn.BatchNorm(not train, momentum=0.7, name="norm")(x)

    variables = Frozen().init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)), train=True)
    stats = {**variables["batch_stats"], "frozen": {"mean": jnp.ones(2), "var": 4 * jnp.ones(2)}}
    found = recalibrate(_forward(Frozen()), {**variables, "batch_stats": stats}, BATCHES[:1])
    x = np.asarray(BATCHES[0]["inputs"], np.float64).mean((1, 2))
    x = (x - 1) / np.sqrt(4 + EPSILON)
    _close(found["batch_stats"]["norm"], {"mean": x.mean(0), "var": x.var(0)})
    assert (found["batch_stats"]["frozen"]["var"] == 4).all()


def test_gradients_of_its_own_are_no_obstacle():
    """Rounding with a straight-through gradient, as quantization has it."""

    @jax.custom_vjp
    def rounded(x):
        return jnp.round(x)

    rounded.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))

    class Rounded(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            x = nn.BatchNorm(not train, name="norm1")(x)
            return nn.BatchNorm(not train, name="norm2")(rounded(2 * x).mean((1, 2)))

    variables = Rounded().init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)), train=True)
    found = recalibrate(_forward(Rounded()), variables, BATCHES[:1])["batch_stats"]
    x = np.asarray(BATCHES[0]["inputs"], np.float64)
    x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + EPSILON)
    x = np.round(2 * x).mean((1, 2))
    _close(found["norm2"], {"mean": x.mean(0), "var": x.var(0)}, rtol=1e-4)


def test_a_model_of_ours_after_pruning():
    """Evaluated with the new statistics, each channel is normalised over what it was shown."""
    model = models.CNN((4,))
    variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)), train=True)
    weights = variables["params"]
    masks = prune.random_masks(jax.random.key(1), weights, {"block0/conv/kernel": 0.5})
    variables = {**variables, "params": tree.apply_masks(masks, weights)}
    found = recalibrate(_forward(model), variables, BATCHES[:1])
    live, _ = model.apply(found, BATCHES[0]["inputs"], train=True, mutable=["batch_stats"])
    still = model.apply(found, BATCHES[0]["inputs"], train=False)
    np.testing.assert_allclose(still, live, rtol=1e-4, atol=1e-5)
    old = model.apply(variables, BATCHES[0]["inputs"], train=False)
    assert not np.allclose(old, live, atol=0.1)


def test_batches_of_a_size_are_compiled_once():
    traces, run = [], _forward(Net())

    def forward(variables, batch):
        traces.append(0)
        return run(variables, batch)

    recalibrate(forward, VARIABLES, BATCHES[:1])
    once = len(traces)
    recalibrate(forward, VARIABLES, BATCHES)
    assert len(traces) == 2 * once


def test_without_statistics_nothing_is_run():
    def forward(variables, batch):
        raise AssertionError("there is nothing to run for")

    for variables in ({"params": VARIABLES["params"]}, {"params": {}, "batch_stats": {}}):
        assert recalibrate(forward, variables, BATCHES) is variables


def test_a_momentum_of_one_is_refused():
    model = Net((0.9, 1.0))
    with pytest.raises(BadInput, match=r"recalibrate\.variables: 'norm2/mean' is not moved"):
        recalibrate(_forward(model), VARIABLES, BATCHES)


def test_no_batch_is_refused():
    with pytest.raises(BadInput, match=r"recalibrate\.batches: there is none; give one or more"):
        recalibrate(_forward(Net()), VARIABLES, [])
