import functools
import sys
from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from kdjax.config.encoders.cnn import CNN
from kdjax.config.encoders.mobilenet import MobileNetV2
from kdjax.config.encoders.resnet import CifarResNet
from kdjax.config.encoders.vgg import VGG
from kdjax.config.encoders.vit import ViT
from kdjax.export import write_quantized
from kdjax.export.simplified import simplify
from kdjax.models import Classifier, Compute
from kdjax.quant import Rule, fake_weights, quantize_weights
from kdjax.types import BadInput
from tests.quant.quantized import File, Quantized, lively, normal, session
from tests.shrink import nets
from tests.some import some

IMAGES, VECTORS = (4, 6, 6, 3), (4, 5)
FAMILIES = {
    "cnn": CNN(name="cnn", widths=(8, 8)),
    "cifar_resnet": CifarResNet(name="cifar_resnet", depth=8),
    "vgg": VGG(name="vgg", depth=8, width=8),
    "mobilenet_v2": MobileNetV2(name="mobilenet_v2", multiplier=0.2),
    "vit": ViT(name="vit", width=8, depth=1, heads=2, mlp=6, patch=8),
}


@functools.cache
def _family(name):
    module = Classifier(FAMILIES[name].module(Compute(folded=True)), 10)
    x = normal(1, 4, 16, 16, 3)
    variables = lively(module, x, train=False)
    patterns = {".*/(stem|patches|conv0).*": None, ".*": Rule()}
    names = str(jax.tree.structure(variables))
    if "stem" not in names:
        patterns = {".*": Rule()}
    return Quantized(lambda v, x: module.apply(v, x, train=False)["logits"], variables, x, patterns)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    quantized = _family(request.param)
    file = File(quantized, tmp_path_factory.mktemp(request.param))
    return request.param, quantized, file


def _net(function):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return function(x)

    return Net()


def _assert_close(file, quantized, *, mean=0.002):
    live = quantized.live()
    difference = np.abs(file.run(quantized.x) - live)
    assert difference.mean() < mean * np.abs(live).max()


def test_every_family_is_in_integers(family):
    _, quantized, file = family
    onnx.checker.check_model(onnx.load(file.path), full_check=True)
    made = {name: node.op_type for node in file.graph.node for name in node.output}
    products = [n for n in file.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    integer = [n for n in products if made.get(n.input[1]) == "DequantizeLinear"]
    assert len(integer) == len(quantized.rules)
    for node in integer:
        assert made[node.input[0]] == "DequantizeLinear"
        if len(node.input) > 2:
            assert made[node.input[2]] == "DequantizeLinear"
    assert set(file.values) == set(quantized.ranges)


def test_every_family_gives_the_live_logits(family):
    name, quantized, file = family
    # One step of rounding the other way goes through fifty layers of a few channels each.
    mean = 0.06 if name == "mobilenet_v2" else 0.02
    _assert_close(file, quantized, mean=mean)
    for batch in (1, 7):
        x = normal(batch, batch, 16, 16, 3)
        live = quantized.live(x)
        found = file.run(x)
        assert found.shape == (batch, 10)
        assert np.abs(found - live).mean() < mean * np.abs(live).max()
    # As is, and as the runtime rewrites it.
    plain = file.run(x, level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    assert np.abs(plain - live).mean() < mean * np.abs(live).max()


def test_the_stored_integers_are_the_live_ones(family):
    _, quantized, file = family
    for name, layer in quantized.layers.items():
        if name not in quantized.rules:
            assert f"{name}.integers" not in file.stored
            continue
        step = quantized.graph.flat.steps[layer.step]
        kernel = quantized.variables["params"]
        for part in name.split("/"):
            kernel = kernel[part]
        expected = quantize_weights(kernel, quantized.rules[name], channels=layer.channels)
        found = file.stored[f"{name}.integers"]
        assert found.dtype == np.int8
        values = np.asarray(expected.integers)
        if step.name == "conv_general_dilated":
            values = np.transpose(values, (3, 2, 0, 1))
        elif values.ndim == 2:
            values = values if found.shape == values.shape else values.T
        else:  # of heads
            values = values.reshape(found.shape)
        np.testing.assert_array_equal(found, values)
        np.testing.assert_allclose(
            np.sort(file.stored[f"{name}.scale"]), np.sort(np.ravel(expected.scale)), rtol=1e-6
        )


@pytest.mark.parametrize("name", ["cifar_resnet", "mobilenet_v2"])
def test_the_runtime_has_integer_kernels_for_it(name, tmp_path):
    file = File(_family(name), tmp_path)
    session(file.path, optimized=tmp_path / "optimized.onnx")
    kinds = Counter(n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node)
    convolutions = sum(layer.convolution for layer in _family(name).graph.layers)
    assert kinds["QLinearConv"] == convolutions - 1
    assert kinds["Conv"] + kinds["FusedConv"] == 1  # the first
    assert kinds["QLinearAdd"] == len(_family(name).graph.sums)
    assert kinds["Add"] == 0


# What a file may do otherwise than the model: share, fold, move, add what is no bias.
def _relu_twice(x):
    x = nn.Dense(6, name="a")(x)
    return nn.Dense(3, name="b")(nn.relu(x)) + nn.Dense(3, name="c")(nn.relu(x))


def _plus_one(x):
    return nn.Dense(3, name="b")(nn.Dense(6, use_bias=False, name="a")(x) + 1.0)


def _rectified_then_added(x):
    x = nn.relu(nn.Dense(6, name="a", use_bias=False)(x))
    return nn.Dense(3, name="b")(x + jnp.arange(1.0, 7.0)[None])


def _positions(x):
    x = nn.Conv(6, (3, 3), use_bias=False, name="a")(x)
    x = nn.relu(x + 2 * normal(3, 1, 6, 6, 6))
    return nn.Dense(3, name="b")(x.mean((1, 2)))


def _both_halves(x):
    a, b = jax.jit(lambda x: (nn.relu(x), jnp.minimum(x, 0.0)))(nn.Dense(6, name="a")(x))
    return nn.Dense(3, name="b")(a) + nn.Dense(3, name="c")(b)


def _read_before_it_is_moved(x):
    x = nn.gelu(nn.Conv(6, (3, 3), name="a")(x))
    y = nn.Dense(3, name="b")(jnp.max(x, (1, 2)))
    return y + 30 * x.mean((1, 2))[:, :3]


def _preactivated(x):
    x = nn.Conv(6, (3, 3), name="stem")(x)
    x = x + nn.Conv(6, (3, 3), name="a")(nn.relu(x))
    return nn.Dense(3, name="head")(nn.relu(x).mean((1, 2)))


def _truncated(x):
    x = nn.Dense(6, name="a")(x)
    return nn.Dense(3, name="b")((3 * x).astype(jnp.int32).astype(jnp.float32))


def _swished(x):
    x = jax.nn.hard_swish(nn.Conv(6, (3, 3), name="a")(x))
    x = jax.nn.hard_swish(nn.Conv(6, (3, 3), name="b")(x)) + x
    return nn.Dense(3, name="head")(x.mean((1, 2)))


def _hard_excited(x):
    x = jax.nn.hard_swish(nn.Conv(6, (3, 3), name="a")(x))
    gate = nn.relu(nn.Dense(4, name="reduce")(x.mean((1, 2))))
    gate = jax.nn.hard_sigmoid(nn.Dense(6, name="expand")(gate))
    x = nn.Conv(6, (1, 1), name="b")(x * gate[:, None, None])
    return nn.Dense(3, name="head")(x.mean((1, 2)))


def _swished_twice(x):
    x = nn.Dense(6, name="a")(x)
    y = nn.Dense(3, name="b")(jax.nn.hard_swish(x))
    return y + nn.Dense(3, name="c")(jax.nn.hard_swish(x))


def _one_gate_of_two(x):
    a, b, c = (nn.Dense(6, name=name)(x) for name in "abc")
    gate = jax.nn.hard_sigmoid(c)
    return nn.Dense(3, name="d")(nn.relu(a) * gate) - nn.Dense(3, name="e")(b * gate)


SMALL = [
    (_net(_swished_twice), VECTORS),
    (_net(_one_gate_of_two), VECTORS),
    (_net(_swished), IMAGES),
    (_net(_hard_excited), IMAGES),
    (_net(_relu_twice), VECTORS),
    (_net(_plus_one), VECTORS),
    (_net(_rectified_then_added), VECTORS),
    (_net(_positions), IMAGES),
    (_net(_both_halves), VECTORS),
    (_net(_read_before_it_is_moved), IMAGES),
    (_net(_preactivated), IMAGES),
    (_net(_truncated), VECTORS),
    (nets.Concatenated(), IMAGES),
    (nets.Excited(), IMAGES),
    (nets.Grouped(), IMAGES),
    (nets.Attention(), (4, 4, 5)),
    (nets.GeneralDense(), VECTORS),
    (nets.Twice(), VECTORS),
    (nets.TwiceApart(), VECTORS),
    (nets.PaddedChannels(), VECTORS),
]


@functools.cache
def _small(module, shape):
    return Quantized.of(module, normal(1, *shape))


@pytest.mark.parametrize(("module", "shape"), SMALL)
def test_a_file_computes_what_the_model_does(module, shape, tmp_path):
    quantized = _small(module, shape)
    file = File(quantized, tmp_path)
    _assert_close(file, quantized, mean=0.004)
    x = normal(9, 7, *shape[1:])
    live = quantized.live(x)
    assert np.abs(file.run(x) - live).mean() < 0.01 * np.abs(live).max()


@pytest.mark.parametrize("weights", some(["int8", "int4"], "int4"))
@pytest.mark.parametrize(("module", "shape"), SMALL)
def test_ranges_of_the_call_are_those_of_the_model(module, shape, weights, tmp_path):
    quantized = _small(module, shape).ruled({".*": Rule(weights, "dynamic")})
    assert quantized.ranges == {}
    file = File(quantized, tmp_path)
    _assert_close(file, quantized, mean=0.004)
    # Other numbers, of which one is far out, have other ranges.
    x = 5 * np.array(normal(9, 7, *shape[1:]))
    x[3] *= 7
    live = quantized.live(x)
    assert np.abs(file.run(x) - live).mean() < 0.01 * np.abs(live).max()
    kinds = Counter(node.op_type for node in file.graph.node)
    assert kinds["MatMulInteger"] + kinds["ConvInteger"] == len(quantized.rules)
    assert "QuantizeLinear" not in kinds
    assert not [n for n in file.graph.node if n.op_type in ("Conv", "Gemm") and n.input[1]]
    kept = {value.dtype.name for n, value in file.stored.items() if n.endswith(".integers")}
    assert kept == {weights}


def test_some_ranges_are_of_the_call_and_some_are_found_once(tmp_path):
    rules = {"a/.*": Rule(), "b/.*": Rule(activations="dynamic"), ".*": Rule(activations=None)}
    for function in (_relu_twice, _both_halves):
        folder = tmp_path / function.__name__
        folder.mkdir()
        quantized = Quantized.of(_net(function), normal(1, *VECTORS), rules)
        file = File(quantized, folder)
        _assert_close(file, quantized)
        assert "MatMulInteger" in {node.op_type for node in file.graph.node}
        # What b is given has been rounded for it by a.
        assert set(file.values) == {"input0", "a/kernel:out"}


def test_the_runtime_fuses_a_product_of_the_call(tmp_path):
    quantized = _family("vit").ruled({".*": Rule(activations="dynamic")})
    file = File(quantized, tmp_path)
    session(file.path, optimized=tmp_path / "optimized.onnx")
    kinds = Counter(n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node)
    fused = kinds["DynamicQuantizeMatMul"] + kinds["MatMulIntegerToFloat"]
    assert fused == sum(not layer.convolution for layer in quantized.graph.layers)
    assert kinds["MatMulInteger"] == 0


@pytest.mark.parametrize("function", [_swished, _hard_excited])
def test_gates_are_integers_from_end_to_end(function, tmp_path):
    """As it is and with channels first: nothing between the first and the last layer is in float."""
    quantized = Quantized.of(_net(function), normal(1, *IMAGES))
    file = File(quantized, tmp_path)
    model = onnx.load(file.source)
    simplify(model)
    onnx.save(model, tmp_path / "simplified.onnx")
    values = write_quantized(tmp_path / "simplified.onnx", file.path, file.plan)
    assert set(values) == set(quantized.ranges)
    _assert_close(file, quantized, mean=0.004)
    session(file.path, optimized=tmp_path / "optimized.onnx")
    kinds = Counter(n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node)
    integers = {
        "QLinearConv",
        "QLinearAdd",
        "QLinearMul",
        "QGemm",
        "QLinearGlobalAveragePool",
        "Transpose",
        "Flatten",
    }
    assert kinds.keys() <= integers | {"QuantizeLinear"}
    assert kinds["QuantizeLinear"] == 1  # of the image
    gates = len(file.plan.gated)
    assert kinds["QLinearMul"] == gates == 2
    assert kinds["QLinearAdd"] == gates + len(quantized.graph.sums)


@pytest.mark.parametrize("range", [[0.0, 0.4], [-0.5, 1.5], [0.0, 1.5]])
def test_a_gate_ends_where_the_live_one_does(range, tmp_path):
    """Also where its range is not that of a gate, as after training has moved on."""
    quantized = Quantized.of(_net(_swished), 3 * normal(1, *IMAGES))
    quantized.ranges["gate0:out"] = np.float32(range)
    file = File(quantized, tmp_path)
    clipped = any(node.op_type == "Clip" for node in file.graph.node)
    assert clipped == (range != [0.0, 0.4])
    _assert_close(file, quantized, mean=0.004)


def test_a_gate_that_is_no_operator_of_the_file_is_named(tmp_path):
    """The file was made of the operations one by one."""
    quantized = Quantized.of(_net(_swished), normal(1, *IMAGES))
    file = File(quantized, tmp_path)
    model = onnx.load(file.source)
    for node in model.graph.node:
        if node.op_type == "HardSwish":
            node.op_type = "Sigmoid"
    onnx.save(model, file.source)
    with pytest.raises(BadInput, match="rules: the gate that is made of a/kernel is no single"):
        write_quantized(file.source, tmp_path / "other.onnx", file.plan)
    assert not (tmp_path / "other.onnx").exists()


def _equal(x):
    x = nn.relu(nn.Dense(4, name="a")(x))
    x = nn.relu(nn.Dense(4, name="b")(3 * x))
    return nn.Dense(3, name="c")(x)


@pytest.mark.parametrize("in_float", [[], ["a/kernel"], ["b/kernel"]])
def test_layers_with_equal_weights_are_not_taken_for_each_other(in_float, tmp_path):
    x = normal(1, 8, 4)
    variables = lively(_net(_equal), x)
    params = dict(variables["params"])
    params["b"] = {**params["b"], "kernel": params["a"]["kernel"]}
    patterns = {**dict.fromkeys(in_float), ".*": Rule()}
    quantized = Quantized(_net(_equal).apply, {"params": params}, x, patterns)
    file = File(quantized, tmp_path)
    _assert_close(file, quantized)
    assert [n for n in ("a/kernel", "b/kernel") if f"{n}.integers" not in file.stored] == in_float


@pytest.mark.parametrize("weights", ["int4", "ternary", "binary"])
def test_few_bits_are_exact_and_small(weights, tmp_path):
    module, x = nets.Residual(), normal(1, 4, 64)
    quantized = Quantized.of(module, x, {".*": Rule(weights=weights, activations=None)})
    file = File(quantized, tmp_path)
    live = quantized.live()
    # As is: ONNX Runtime may round what goes into an int4 matrix on its own account.
    found = file.run(x, level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    np.testing.assert_allclose(found, live, atol=1e-5 * np.abs(live).max())
    assert {v.dtype.name for n, v in file.stored.items() if n.endswith(".integers")} == {"int4"}
    assert file.values == {}
    int8 = tmp_path / "int8"
    int8.mkdir()
    more = File(quantized.ruled({".*": Rule(activations=None)}), int8)
    assert file.path.stat().st_size < more.path.stat().st_size


@pytest.mark.parametrize("weights", ["int8", "int4", "ternary", "binary"])
def test_zeros_and_channels_of_zeros_stay(weights, tmp_path):
    """A channel of zeros still has its bias."""
    x = normal(1, 8, 6, 6, 3)
    module = nets.Grouped()
    variables = lively(module, x)
    params = jax.tree.map(np.array, variables["params"])
    for layer in params.values():
        layer["kernel"][..., 0] = 0.0
        layer["kernel"][layer["kernel"] < -0.5] = 0.0
        layer["bias"][0] = 1.0
    quantized = Quantized(module.apply, {"params": params}, x, {".*": Rule(weights=weights)})
    file = File(quantized, tmp_path)
    for name, layer in params.items():
        integers = file.stored[f"{name}/kernel.integers"]
        kernel = layer["kernel"]
        kernel = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel
        assert not integers[kernel == 0].astype(np.int8).any()
        if weights == "binary":
            assert integers[kernel != 0].astype(np.int8).all()
    _assert_close(file, quantized, mean=0.01)  # a bias on its own may be a tie


@pytest.mark.parametrize("size", [1e-4, 1e-8, 1e-12])
def test_a_shut_channel_keeps_its_bias(size, tmp_path):
    """Folding shuts a channel whose normalisation has a scale near zero; only its bias is left."""
    x = normal(1, *IMAGES)
    module = nets.Grouped()
    params = jax.tree.map(np.array, lively(module, x)["params"])
    for layer in params.values():
        layer["kernel"][..., 0] *= size
        layer["bias"][0] = 2.0
    quantized = Quantized(module.apply, {"params": params}, x)
    _assert_close(File(quantized, tmp_path), quantized)


@pytest.mark.parametrize(("size", "dropped"), [(0.1, True), (30.0, True)])
def test_a_rectification_that_cuts_nothing_is_dropped(size, dropped, tmp_path):
    def net(x):
        x = nn.relu6(nn.Conv(6, (3, 3), name="a")(size * x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))

    quantized = Quantized.of(_net(net), normal(1, *IMAGES))
    file = File(quantized, tmp_path)
    left = {n.op_type for n in file.graph.node} & {"Relu", "Clip", "Min", "Max"}
    assert not left
    _assert_close(file, quantized)


def test_a_rectification_that_cuts_is_kept(tmp_path):
    """The range goes beyond it, as after training has moved on from the calibration."""

    def net(x):
        x = jnp.clip(nn.Conv(6, (3, 3), name="a")(x), -0.5, 0.5)
        return nn.Dense(3, name="head")(x.mean((1, 2)))

    quantized = Quantized.of(_net(net), normal(1, *IMAGES))
    quantized.ranges["a/kernel:out"] = np.float32([-2, 2])
    file = File(quantized, tmp_path)
    assert {n.op_type for n in file.graph.node} & {"Clip", "Min", "Max"}
    _assert_close(file, quantized)


def test_a_layer_that_is_no_product_in_the_file(tmp_path):
    quantized = Quantized.of(nets.Transposed(), normal(1, *IMAGES))
    line = "larger/kernel is no single product in the ONNX file; leave it in float"
    with pytest.raises(BadInput, match=line):
        File(quantized, tmp_path)
    assert not (tmp_path / "integers.onnx").exists()
    rules = {"larger/kernel": None, ".*": Rule()}  # as the line says
    quantized = Quantized.of(nets.Transposed(), normal(1, *IMAGES), rules)
    _assert_close(File(quantized, tmp_path), quantized)


def test_without_onnx_there_is_one_line(tmp_path, monkeypatch):
    plan = Quantized.of(nets.Twice(), normal(1, *VECTORS)).plan()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BadInput, match=r"int8 needs ONNX: pip install 'kdjax\[export\]'"):
        write_quantized(tmp_path / "float.onnx", tmp_path / "integers.onnx", plan)


def test_the_plan_has_the_live_numbers():
    quantized = Quantized.of(nets.Residual(), normal(1, *VECTORS))
    plan = quantized.plan()
    assert [stored.name for stored in plan.layers] == list(quantized.layers)
    for stored in plan.layers:
        kernel = quantized.variables["params"][stored.name.split("/")[0]]["kernel"]
        np.testing.assert_array_equal(stored.weights, kernel)
        fake = fake_weights(kernel, Rule(), channels=(1,))
        np.testing.assert_allclose(stored.integers * stored.scale[None], fake, rtol=1e-6)
    assert [tuple(added)[:3] for added in plan.sums] == [
        ("stem/kernel:out", "back/kernel:out", "sum0:out")
    ]
    assert plan.scales.keys() == quantized.ranges.keys()
    assert plan.layers[-1].output is None  # the logits
