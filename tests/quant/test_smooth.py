"""Outliers of activations moved into the weights: the divisors, the live model, its file."""

import collections
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config, parse, quant
from kdjax.export import load_onnx, write_onnx
from kdjax.export.onnx_integers import write_quantized
from kdjax.quant import RANGES, SMOOTH, Quantized, Rule, fake_dynamic, fake_weights
from kdjax.types import BadInput, Field

DIM, STEPS = 8, 6
SMOOTHED = {".*": Rule(activations="dynamic", smooth=0.75)}


class Block(nn.Module):
    """Attention and an MLP, as of a transformer; one product reads what three others read as well."""

    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm(name="norm")(x)
        x = x + nn.MultiHeadDotProductAttention(2, name="attention", deterministic=True)(y)
        x = x + nn.Dense(DIM, name="beside")(y)
        return x + nn.Dense(DIM, name="out")(nn.gelu(nn.Dense(16, name="into")(x)))


@pytest.fixture(scope="module")
def net():
    """A block whose first LayerNorm makes one entry thirty times as large as the others."""
    module, random = Block(), np.random.default_rng(0)
    batches = [jnp.asarray(random.normal(size=(4, STEPS, DIM)), jnp.float32) for _ in range(3)]
    variables = module.init(jax.random.key(0), batches[0])
    scale = variables["params"]["norm"]["scale"].at[3].set(30.0)
    variables = {
        "params": {**variables["params"], "norm": {"scale": scale, "bias": jnp.zeros(DIM)}}
    }

    def forward(variables, x):
        return module.apply(variables, x)

    graph = quant.graph_of(forward, variables, batches[0])
    return module, forward, variables, batches, graph


def _run(net, rules, x, ranges):
    _, forward, variables, _, _ = net
    return quant.run(forward, variables, x, rules=rules, fake=lambda name, x: x, smooth=ranges)


def _chosen(net, rules):
    graph = net[-1]
    return quant.choose(rules, [*graph.kinds], kinds=graph.kinds)


def _ranges(net, rules):
    _, forward, variables, batches, _ = net
    return quant.calibrate(forward, variables, batches[:2], rules=rules)


def test_divisors_are_those_of_the_paper(net):
    """Equation 4, of layers that read one value together; with all axes that a product sums over."""
    _, _, variables, batches, _ = net
    rules = _chosen(net, SMOOTHED)
    found = _ranges(net, rules)
    assert found.keys() == {f"{name}{SMOOTH}" for name in rules}
    params = variables["params"]
    x = np.concatenate([np.asarray(b) for b in batches[:2]]).reshape(-1, DIM)
    normed = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    most = np.abs(normed * np.asarray(params["norm"]["scale"])).max(0)
    kernels = [params["attention"][n]["kernel"].reshape(DIM, -1) for n in ("query", "key", "value")]
    weights = np.max([np.abs(w).max(1) for w in [*kernels, params["beside"]["kernel"]]], axis=0)
    for name in ("attention/query", "attention/key", "attention/value", "beside"):
        np.testing.assert_allclose(
            found[f"{name}/kernel{SMOOTH}"], most**0.75 / weights**0.25, rtol=1e-4
        )
    assert found[f"attention/out/kernel{SMOOTH}"].shape == (2, DIM // 2)


def test_nothing_but_the_rounding_is_another(net):
    """Divided and multiplied again, in float."""
    _, forward, variables, batches, _ = net
    rules = _chosen(net, SMOOTHED)
    found = quant.run(
        forward,
        variables,
        batches[2],
        rules=rules,
        fake=lambda name, x: x,
        fake_weights=lambda layer, value, rule: value,
        fake_input=lambda layer, value, rule: value,
        smooth=_ranges(net, rules),
    )
    np.testing.assert_allclose(found, forward(variables, batches[2]), atol=1e-4)


def test_outliers_cost_less(net):
    _, forward, variables, batches, _ = net
    exact, wrong = forward(variables, batches[2]), {}
    for smooth in (None, 0.75):
        rules = _chosen(net, {".*": Rule(activations="dynamic", smooth=smooth)})
        found = _run(net, rules, batches[2], _ranges(net, rules))
        wrong[smooth] = float(jnp.abs(found - exact).mean())
    assert 0 < wrong[0.75] < 0.7 * wrong[None]


def test_one_layer_by_hand(net):
    _, _, variables, batches, _ = net
    rules = {"into/kernel": Rule(activations="dynamic", smooth=0.5)}
    module, kernel = nn.Dense(16, use_bias=False), variables["params"]["into"]["kernel"]

    def forward(variables, x):
        return module.apply({"params": {"kernel": variables["params"]["into"]["kernel"]}}, x)

    by = jnp.asarray(np.linspace(0.5, 3.0, DIM), jnp.float32)
    ranges = {f"into/kernel{SMOOTH}": by}
    found = quant.run(
        forward, variables, batches[0], rules=rules, fake=lambda name, x: x, smooth=ranges
    )
    rule, column = rules["into/kernel"], jnp.expand_dims(by, 1)
    weights = fake_weights(kernel * column, rule, channels=(1,)) / column
    x = fake_dynamic(batches[0] * (1.0 / jnp.expand_dims(by, (0, 1)))) * jnp.expand_dims(by, (0, 1))
    np.testing.assert_allclose(found, jnp.einsum("btd,dh->bth", x, weights), atol=1e-5)


def test_a_model_keeps_its_divisors(net):
    module, _, variables, batches, _ = net
    rules = _chosen(net, SMOOTHED)
    ranges = _ranges(net, rules)
    model = Quantized(module, rules)
    made = model.init(jax.random.key(0), batches[0])
    shapes = {name: np.shape(x) for name, x in ranges.items()}
    assert {name: x.shape for name, x in made[RANGES].items()} == shapes
    found = model.apply({**variables, RANGES: ranges}, batches[2])
    np.testing.assert_array_equal(found, _run(net, rules, batches[2], ranges))
    slope = jax.grad(lambda v: model.apply(v, batches[2]).sum())({**variables, RANGES: ranges})
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(slope["params"]["into"]))


def test_a_file_divides_once_for_all_that_read_alike(net, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
    pytest.importorskip("jax2onnx", reason="the extra export is not installed")
    _, forward, variables, batches, _ = net
    rules = _chosen(net, SMOOTHED)
    ranges = _ranges(net, rules)
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    fields = {"x": Field((STEPS, DIM), "float32")}
    write_onnx(lambda x: forward(variables, x), source, inputs=fields, output="y")
    plan = quant.plan_of(forward, variables, batches[0], rules=rules, ranges=ranges)
    write_quantized(source, target, plan)
    nodes = collections.Counter(node.op_type for node in onnx.load(target).graph.node)
    assert nodes["MatMulInteger"] == 7
    assert nodes["DynamicQuantizeLinear"] == 4  # four products read one value, three have their own
    run, wrong = load_onnx(target, threads=1), []
    for x in batches:
        wrong.append(np.abs(run(np.asarray(x)) - _run(net, rules, x, ranges)).max())
    # What lies between two integers may become either.
    assert np.median(wrong) < 1e-4
    apart = np.abs(_run(net, rules, batches[0], ranges) - forward(variables, batches[0])).max()
    assert max(wrong) < 0.5 * apart


def test_it_is_of_products_that_are_rounded_in_the_call():
    with pytest.raises(
        BadInput, match=r"^config.smooth: 0.5 is of ranges of the call, and activations"
    ):
        parse.parse(config.Layers, {"smooth": 0.5}, "config")
    assert parse.parse(config.Layers, {"smooth": 0.5, "activations": "dynamic"}).rule == Rule(
        activations="dynamic", smooth=0.5
    )
    kinds = {"a/kernel": "convolution", "b/embedding": "lookup", "c/kernel": "product"}
    rule = Rule(activations="dynamic", smooth=0.5)
    found = quant.choose({".*": rule}, [*kinds], kinds=kinds)
    assert found["a/kernel"] == dataclasses.replace(rule, smooth=None)
    assert found["b/embedding"] == Rule(activations=None)
    assert found["c/kernel"] == rule
    assert rule.name == "int8 dynamic smooth 0.5"
