"""Every family in integers: each file of it against the live model that rounds."""

import importlib.util
from collections import Counter

import jax
import numpy as np
import onnx
import pytest

from kdjax import config, quant
from kdjax.export import ONNX, LiteRT, load_litert, load_onnx, quantize_in_the_call
from kdjax.stages import quantize
from kdjax.stages.export import exported
from kdjax.types import BadInput
from tests.export.conftest import ENCODERS, THOROUGH, made
from tests.some import some

LITERT = all(importlib.util.find_spec(n) for n in ("litert_converter", "ai_edge_litert"))


def _quantized(name, activations):
    deployed = made(name)
    c = config.Quantize(kind="quantize", model="m", rules=(config.Layers(activations=activations),))
    images = deployed.images(64)
    inputs = {"image": images}
    spec, variables, _ = quantize.quantized(deployed.spec, deployed.variables, inputs, c)
    live = np.asarray(jax.jit(spec.predict)(variables, inputs))
    return spec, variables, images, live


def _assert_close(found, live, mean):
    assert np.abs(found - live).mean() < mean * np.abs(live).max()


# A rounding that falls the other way goes through all layers behind it, of a few channels each.
MEANS = {
    "mobilenet_v2": 0.06,
    "mobilenet_v3": 0.04,
    "efficientnet_b0": 0.06,
    "efficientnet_lite0": 0.06,
    "shufflenet_v2": 0.04,
}


MUCH = (  # slow to convert
    "mobilenet_v2",
    "efficientnet_b0",
    "efficientnet_lite0",
    "resnet50",
    "convnext",
    "vit_tiny",
)


@pytest.mark.parametrize(
    "name",
    some(ENCODERS, *MUCH, *THOROUGH),
)
def test_ranges_found_once(name, tmp_path):
    spec, variables, images, live = _quantized(name, "int8")
    mean = MEANS.get(name, 0.02)
    ONNX().write(exported(spec, variables), tmp_path / "model.onnx")
    _assert_close(load_onnx(tmp_path / "model.onnx", threads=1)(images), live, mean)
    graph = onnx.load(str(tmp_path / "model.onnx")).graph
    assert sum(t.name.endswith("kernel.integers") for t in graph.initializer) == len(spec.rules)
    if LITERT:
        LiteRT().write(exported(spec, variables), tmp_path / "model.tflite")
        _assert_close(load_litert(tmp_path / "model.tflite", threads=1)(images), live, mean)


# Of squeeze-and-excitation, found once: above.
@pytest.mark.parametrize("name", some(["vit", "resnet8", "mobilenet_v3"], "mobilenet_v3"))
def test_ranges_of_the_call(name, tmp_path):
    spec, variables, images, live = _quantized(name, "dynamic")
    mean = MEANS.get(name, 0.02)
    ONNX().write(exported(spec, variables), tmp_path / "model.onnx")
    _assert_close(load_onnx(tmp_path / "model.onnx", threads=1)(images), live, mean)
    kinds = Counter(node.op_type for node in onnx.load(str(tmp_path / "model.onnx")).graph.node)
    assert kinds["MatMulInteger"] + kinds["ConvInteger"] == len(spec.rules)
    if not LITERT:
        return
    interpreter = importlib.import_module("ai_edge_litert.interpreter")
    LiteRT().write(exported(spec, variables), tmp_path / "model.tflite")
    # Its scales are of a row or an image, not of all examples together.
    _assert_close(load_litert(tmp_path / "model.tflite", threads=1)(images), live, 1.5 * mean)
    file = interpreter.Interpreter(
        str(tmp_path / "model.tflite"),
        experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    dtypes = {tensor["index"]: tensor["dtype"] for tensor in file.get_tensor_details()}
    operators = file._get_ops_details()
    hybrid = [
        operator
        for operator in operators
        if len(operator["inputs"]) > 1
        and (dtypes[operator["inputs"][0]], dtypes.get(operator["inputs"][1]))
        == (np.float32, np.int8)
    ]
    assert len(hybrid) == len(spec.rules)
    assert not any(operator["op_name"] == "DEQUANTIZE" for operator in operators)


@pytest.mark.skipif(not LITERT, reason="needs the extra: pip install 'kdjax[litert]'")
def test_a_layer_that_litert_has_not_as_one_product_is_named(tmp_path):
    spec, variables, *_ = _quantized("cnn", "dynamic")
    path = tmp_path / "model.tflite"
    LiteRT().write(exported(spec, variables), path)
    before = path.read_bytes()
    layer = quant.Stored(
        "gone/kernel",
        np.ones((3, 4)),
        False,
        False,
        np.ones((3, 4)),
        np.ones(4),
        8,
        None,
        None,
        True,
    )
    with pytest.raises(BadInput, match=r"rules: gone/kernel is no single product in the LiteRT"):
        quantize_in_the_call(path, quant.Plan((layer,), (), {}))
    assert path.read_bytes() == before
    quantize_in_the_call(path, quant.Plan((), (), {}))
    assert path.read_bytes() == before
