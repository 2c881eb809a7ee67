import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.quant import Rule, calibrate, fake_weights, graph_of
from kdjax.types import BadInput
from tests.quant.quantized import lively, normal

INT8 = Rule()
RULES = {"a/kernel": INT8, "b/kernel": INT8, "head/kernel": INT8}


class Net(nn.Module):
    """Two branches, their rectified sum, a product."""

    @nn.compact
    def __call__(self, x):
        a, b = nn.Dense(4, name="a")(x), nn.relu(nn.Dense(4, name="b")(x))
        return nn.Dense(3, name="head")(nn.relu(a + b))


@pytest.fixture(scope="module")
def batches():
    return [normal(seed, 16, 5) * (1 + seed) for seed in range(3)]


@pytest.fixture(scope="module")
def variables(batches):
    return lively(Net(), batches[0])


def _tensors(variables, x):
    """The activations, in NumPy, with the rounded weights."""

    def dense(name, x):
        layer = variables["params"][name]
        kernel = fake_weights(layer["kernel"], INT8, channels=(1,))
        return np.asarray(x) @ np.asarray(kernel) + np.asarray(layer["bias"])

    a, b = dense("a", x), np.maximum(dense("b", x), 0)
    total = np.maximum(a + b, 0)
    return {"input0": np.asarray(x), "a/kernel:out": a, "b/kernel:out": b, "sum0:out": total}


def test_minmax_is_the_extremes_of_what_was_seen(variables, batches):
    found = calibrate(Net().apply, variables, batches, rules=RULES)
    seen = [_tensors(variables, x) for x in batches]
    assert found.keys() == seen[0].keys()  # the logits are not among them
    for name, range in found.items():
        assert range.dtype == np.float32
        every = np.concatenate([tensors[name] for tensors in seen])
        np.testing.assert_allclose(range, [every.min(), every.max()], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_batches_may_be_split_and_ordered_anyhow(variables, batches, method):
    def found(batches):
        return calibrate(
            Net().apply, variables, batches, rules=RULES, method=method, percentile=97.0
        )

    whole = found([jnp.concatenate(batches)])
    for other in (found(iter(batches[::-1])), found(jnp.concatenate(batches).reshape(6, 8, 5))):
        for name, range in whole.items():
            np.testing.assert_allclose(other[name], range, rtol=0.01, atol=1e-3)


def _range_of(values, method, percentile=99.0):
    """Of one tensor: what goes into a single layer whose results are the outputs."""
    values = jnp.asarray(values, jnp.float32)

    def function(variables, x):
        return x[:, None] @ variables["params"]["w"]

    variables = {"params": {"w": jnp.ones((1, 1))}}
    rules = {"w": INT8}
    (graph,) = (graph_of(function, variables, values),)
    assert [layer.name for layer in graph.layers] == ["w"]
    found = calibrate(
        function, variables, [values], rules=rules, method=method, percentile=percentile
    )
    (range,) = found.values()
    return range


LONG_TAILS = np.random.default_rng(0).laplace(size=50_000)
SHAPES = {
    "two-sided": LONG_TAILS,
    "rectified": np.maximum(LONG_TAILS, 0),
    "positive": np.abs(LONG_TAILS) + 1,
    "negative": -np.abs(LONG_TAILS),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("percentile", [90.001, 99.001, 99.901])
def test_percentile_against_a_sort(name, percentile):
    values = SHAPES[name]
    found = _range_of(values, "percentile", percentile)
    bin = np.ptp(values) / 2048
    # The values at the two places themselves; in a tail, the next one may be bins away.
    expected = [
        -np.percentile(-values, percentile, method="inverted_cdf"),
        np.percentile(values, percentile, method="inverted_cdf"),
    ]
    np.testing.assert_allclose(found, expected, atol=1.01 * bin)
    outside = [(values < found[0]).mean(), (values > found[1]).mean()]
    assert max(outside) <= 1 - percentile / 100 + 1e-9


def test_percentile_of_a_hundred_is_all(batches):
    values = np.asarray(batches[0]).reshape(-1)
    found = _range_of(values, "percentile", 100.0)
    np.testing.assert_allclose(found, [values.min(), values.max()], rtol=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_mse_against_brute_force(name):
    values = np.float32(SHAPES[name])
    ends = np.array([values.min(), values.max()], np.float64)

    def error(range):
        low, high = min(range[0], 0), max(range[1], 0)
        scale = (high - low) / 255
        zero = np.round(-low / scale)
        integers = np.clip(np.round(values / scale) + zero, 0, 255)
        return (((integers - zero) * scale - values) ** 2).mean()

    found = _range_of(values, "mse")
    best = min(error(ends * factor) for factor in np.linspace(1, 0.05, 96))
    assert error(found) < 1.05 * best
    assert error(found) < 1.01 * error(ends)
    if name == "two-sided":
        assert np.ptp(found) < 0.95 * np.ptp(ends)  # the tails are worth cutting
    np.testing.assert_allclose(found[0] * ends[1], found[1] * ends[0], rtol=1e-5)  # one factor


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
@pytest.mark.parametrize("value", [0.0, -2.0, 3.0])
def test_a_constant_is_its_own_range(method, value):
    found = _range_of(np.full(64, value), method)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, [value, value], rtol=1e-6)


def test_bins_hold_more_than_floats_count():
    """Of 2^24 equal values and more, each counts; so do those of bfloat16, in bins as fine."""
    rare = 1 << 12
    values = jnp.zeros((1 << 24) + (1 << 22), jnp.bfloat16).at[:rare].set(1.0)
    share = 100 * (1 - rare / len(values))

    def function(variables, x):
        return x.reshape(-1, 1) @ variables["params"]["w"].astype(x.dtype)

    variables = {"params": {"w": jnp.ones((1, 1))}}

    def top(percentile):
        found = calibrate(
            function,
            variables,
            [values],
            rules={"w": INT8},
            method="percentile",
            percentile=percentile,
        )
        (range,) = found.values()
        return range[1]

    assert top(share * 1.00001) == 1.0
    assert top(share * 0.99999) < 0.01


def test_weight_only_rules_have_no_ranges(variables, batches):
    rules = {name: Rule(activations=None) for name in RULES}
    for method in ("minmax", "mse"):
        assert calibrate(Net().apply, variables, batches, rules=rules, method=method) == {}


def test_only_what_the_rules_need_is_looked_at(variables, batches):
    rules = {"a/kernel": INT8, "head/kernel": Rule(activations=None)}
    assert {*calibrate(Net().apply, variables, batches, rules=rules)} == {"input0", "a/kernel:out"}
    assert {*calibrate(Net().apply, variables, batches, rules={"head/kernel": INT8})} == {
        "sum0:out"
    }


@pytest.mark.parametrize("percentile", [50.0, 100.1, -1.0])
def test_bad_percentiles(variables, batches, percentile):
    with pytest.raises(BadInput, match=r"percentile: .* is not in \(50, 100\]"):
        calibrate(Net().apply, variables, batches, rules=RULES, percentile=percentile)


def test_no_batch_is_bad_input(variables):
    with pytest.raises(BadInput, match=r"calibration_examples: .* at least one example, found 0"):
        calibrate(Net().apply, variables, iter(()), rules=RULES)


def test_more_batches_are_not_traced_again(variables, batches):
    def traced(batches):
        seen = []

        def function(variables, x):
            seen.append(x)
            return Net().apply(variables, x)

        calibrate(function, variables, batches, rules=RULES, method="mse")
        return len(seen)

    assert traced(batches) == traced(batches[:1]) > 0
