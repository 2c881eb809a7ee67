import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import tree
from kdjax.quant import (
    RANGES,
    Quantized,
    Rule,
    calibrate,
    fake_activation,
    fake_weights,
    scale_of,
)
from kdjax.shrink import Narrowed
from tests.quant.quantized import lively, normal

KEY = jax.random.key(0)
NAMES = ["stem/kernel", "a/kernel", "b/kernel", "head/kernel"]
INT8 = dict.fromkeys(NAMES, Rule())


class Net(nn.Module):
    """A residual network with a dropout and two outputs."""

    width: int = 6

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.relu(nn.Conv(4, (3, 3), name="stem")(x))
        y = nn.relu(nn.Conv(self.width, (1, 1), name="a")(x))
        x = nn.relu(x + nn.Conv(4, (3, 3), name="b")(y))
        features = nn.Dropout(0.5, deterministic=not train)(x.mean((1, 2)))
        return {"features": features, "logits": nn.Dense(3, name="head")(features)}


@pytest.fixture(scope="module")
def images():
    return normal(0, 8, 4, 4, 3)


@pytest.fixture(scope="module")
def floats(images):
    return lively(Net(), images, train=False)


def _quantized(floats, images, rules=INT8, net=None):
    """The module, and its variables with calibrated ranges."""
    net = net or Net()

    def logits(variables, images):
        return net.apply(variables, images, train=False)["logits"]

    ranges = calibrate(logits, floats, [images], rules=rules)
    module = Quantized(net, rules)
    return module, {**floats, RANGES: jax.tree.map(jnp.asarray, ranges)} if ranges else floats


@pytest.fixture(scope="module")
def int8(floats, images):
    return _quantized(floats, images)


def _logits(module, variables, images):
    return jax.jit(lambda v, x: module.apply(v, x, train=False)["logits"])(variables, images)


def test_its_variables_are_the_models_own_and_the_ranges(floats, images):
    made, own = (
        jax.jit(lambda images, module=module: module.init(KEY, images, train=True))(images)
        for module in (Quantized(Net(), INT8), Net())
    )
    assert made.keys() == {"params", RANGES}
    assert tree.differences(made["params"], own["params"]) == []
    jax.tree.map(np.testing.assert_array_equal, made["params"], own["params"])
    _, calibrated = _quantized(floats, images)
    assert tree.differences(made, calibrated) == []  # what is saved is restored strictly
    assert not np.concatenate(list(made[RANGES].values())).any()
    abstract = jax.eval_shape(lambda: Quantized(Net(), INT8).init(KEY, images, train=True))
    assert tree.differences(abstract, calibrated) == []


def test_weight_only_models_have_no_ranges(floats, images):
    rules = {name: Rule(activations=None) for name in NAMES}
    assert Quantized(Net(), rules).init(KEY, images, train=True).keys() == {"params"}


def test_without_a_rule_that_applies_it_is_the_model_itself(floats, images):
    module = Quantized(Net(), {})
    found = jax.jit(lambda v: module.apply(v, images, train=False))(floats)
    expected = jax.jit(lambda v: Net().apply(v, images, train=False))(floats)
    assert found.keys() == expected.keys() == {"features", "logits"}
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_golden(floats, images, int8):
    """The network written out with its rounding."""
    module, variables = int8
    params, ranges = variables["params"], variables[RANGES]

    def conv(name, x, padding="SAME"):
        w = fake_weights(params[name]["kernel"], Rule(), channels=(3,))
        y = jax.lax.conv_general_dilated(
            x, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + params[name]["bias"].reshape(1, 1, 1, -1)

    def rounded(name, x):
        return fake_activation(x, ranges[name])

    @jax.jit
    def expected(x):
        x = rounded("input0", x)
        x = rounded("stem/kernel:out", nn.relu(conv("stem", x)))
        y = rounded("a/kernel:out", nn.relu(conv("a", x)))
        y = rounded("b/kernel:out", conv("b", y))
        x = rounded("sum0:out", nn.relu(x + y)).mean((1, 2))
        w = fake_weights(params["head"]["kernel"], Rule(), channels=(1,))
        return rounded("head/kernel:in", x) @ w + params["head"]["bias"][None]

    assert len(ranges) == 6
    found = _logits(module, variables, images)
    np.testing.assert_allclose(found, expected(images), rtol=1e-5, atol=1e-5)
    exact = Net().apply(floats, images, train=False)["logits"]
    difference = np.abs(found - exact).max() / np.abs(exact).max()
    assert 1e-5 < difference < 0.05


def test_each_layer_has_the_numbers_of_its_rule(floats, images):
    rules = {"a/kernel": Rule(weights="binary", activations=None)}
    module, variables = _quantized(floats, images, rules)
    found = _logits(module, variables, images)
    params = dict(floats["params"])
    kernel = fake_weights(params["a"]["kernel"], rules["a/kernel"], channels=(3,))
    params["a"] = {**params["a"], "kernel": kernel}
    np.testing.assert_allclose(found, _logits(Net(), {"params": params}, images), rtol=1e-5)


def _step(module, optimizer):
    """One step of training, without a word on what is being trained."""

    def step(variables, state, images, label, key):
        def loss(params):
            outputs = module.apply(
                {**variables, "params": params}, images, train=True, rngs={"dropout": key}
            )
            logits = outputs["logits"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

        value, grads = jax.value_and_grad(loss)(variables["params"])
        updates, state = optimizer.update(grads, state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return {**variables, "params": params}, state, value, grads

    return step


def test_training_goes_on_with_rounding_and_leaves_the_ranges(images, int8):
    module, variables = int8
    optimizer = optax.sgd(0.2)
    step = jax.jit(_step(module, optimizer))
    label = jnp.arange(8) % 3
    state, trained, losses = optimizer.init(variables["params"]), variables, []
    for i in range(30):
        trained, state, loss, grads = step(
            trained, state, images, label, jax.random.fold_in(KEY, i)
        )
        losses.append(float(loss))
        if i == 0:
            for name, grad in tree.named_leaves(grads).items():
                assert np.isfinite(grad).all(), name
                assert np.abs(grad).max() > 0, name
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    jax.tree.map(np.testing.assert_array_equal, trained[RANGES], variables[RANGES])
    assert step._cache_size() == 1


def test_dropout_is_at_random_in_training_alone(images, int8):
    module, variables = int8
    run = jax.jit(
        lambda key: module.apply(variables, images, train=True, rngs={"dropout": key})["features"]
    )
    a, again, b = (np.asarray(run(jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, again)
    assert ((a == 0) != (b == 0)).any()
    assert 0.2 < (a == 0).mean() < 0.8
    evaluated = module.apply(variables, images, train=False)["features"]
    assert np.asarray(evaluated).all()


def test_jit_is_eager(images, int8):
    module, variables = int8
    eager = module.apply(variables, images, train=False)["logits"]
    np.testing.assert_allclose(_logits(module, variables, images), eager, rtol=1e-4, atol=1e-5)


def test_many_students_at_once_are_as_they_are_alone(floats, images, int8):
    module, variables = int8
    students = [variables, jax.tree.map(lambda leaf: 1.5 * leaf, variables)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *students)
    many = jax.jit(jax.vmap(lambda v: module.apply(v, images, train=False)["logits"]))(stacked)
    for student, found in zip(students, many, strict=True):
        scale = np.abs(found).max()
        np.testing.assert_allclose(found, _logits(module, student, images), atol=1e-5 * scale)


def test_one_device_is_many(images, int8):
    module, variables = int8
    devices = jax.devices()[:4]
    optimizer = optax.sgd(0.1)
    whole = _step(module, optimizer)
    label = jnp.arange(8) % 3

    def grads(variables, images, label):
        return whole(variables, optimizer.init(variables["params"]), images, label, KEY)[3]

    # Without dropout, whose masks would differ.
    still = dataclasses.replace(module, parent=None)
    whole = _step(_Evaluated(still), optimizer)
    expected = jax.jit(grads)(variables, images, label)
    split = jax.pmap(
        lambda *args: jax.lax.pmean(grads(*args), "devices"),
        "devices",
        in_axes=(None, 0, 0),
        devices=devices,
    )
    found = split(variables, images.reshape(4, 2, 4, 4, 3), label.reshape(4, 2))
    assert len(found["head"]["bias"].sharding.device_set) == 4
    for name, leaf in tree.named_leaves(found).items():
        value = tree.named_leaves(expected)[name]
        np.testing.assert_allclose(leaf[3], value, rtol=1e-3, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class _Evaluated:
    """A module that is always in evaluation."""

    module: nn.Module

    def apply(self, variables, images, *, train, rngs):
        return self.module.apply(variables, images, train=False)


def test_around_a_shrunk_model(images):
    shrunk = Narrowed(Net(), {"a": {"features": 3}})
    floats = lively(shrunk, images, train=False)
    assert floats["params"]["a"]["kernel"].shape == (1, 1, 4, 3)
    module, variables = _quantized(floats, images, net=shrunk)
    made = jax.eval_shape(lambda: module.init(KEY, images, train=True))
    assert tree.differences(made, variables) == []
    written, same = _quantized(floats, images, net=Net(width=3))
    jax.tree.map(np.testing.assert_array_equal, same, variables)
    np.testing.assert_array_equal(
        _logits(module, variables, images), _logits(written, variables, images)
    )


def test_bfloat16_inside_of_it(images):
    class Half(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            x = nn.relu(nn.Conv(4, (3, 3), dtype=jnp.bfloat16, name="stem")(x))
            x = nn.Dense(3, dtype=jnp.bfloat16, name="head")(x.mean((1, 2)))
            return {"logits": x.astype(jnp.float32)}

    rules = {"stem/kernel": Rule(), "head/kernel": Rule()}
    module, variables = _quantized(lively(Half(), images, train=False), images, rules, net=Half())
    logits, back = jax.vjp(lambda v: _logits(module, v, images), variables)
    assert logits.dtype == jnp.float32
    (grads,) = back(jnp.ones_like(logits))
    for name, grad in tree.named_leaves(grads["params"]).items():
        assert grad.dtype == jnp.float32
        assert np.isfinite(grad).all()
        assert np.abs(grad).max() > 0, name
    exact = _logits(Half(), variables, images)
    np.testing.assert_allclose(logits, exact, atol=0.1 * np.abs(exact).max())


def test_features_are_multiples_of_their_scale(images, int8):
    module, variables = int8
    features = module.apply(variables, images, train=False)["features"]
    scale, zero = scale_of(variables[RANGES]["head/kernel:in"])
    steps = np.asarray(features) / float(scale) + float(zero)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert 0 <= np.round(steps.min()) < np.round(steps.max()) <= 255
