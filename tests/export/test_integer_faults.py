"""What is not in integers in a file is named: here files that were spoilt by hand."""

import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from kdjax import export, quant
from kdjax.types import BadInput


def _layer(**settings):
    stored = {
        "name": "a/kernel",
        "weights": np.ones((2, 3)),
        "bias": False,
        "clipped": False,
        "integers": np.arange(6.0).reshape(2, 3),
        "scale": np.ones(3),
        "bits": 8,
        "input": "input0",
        "output": "a/kernel:out",
    }
    return quant.Plan((quant.Stored(**{**stored, **settings}),), (), {})


def _model(*, given=True, made=True, weights=True, relu=True):
    """x -> Q -> DQ -> MatMul -> Relu -> Q -> DQ -> y, without what is asked for."""
    one, zero = np.asarray(1, np.float32), np.asarray(0, np.uint8)
    integers = np.arange(6, dtype=np.int8).reshape(2, 3)
    stored = {"one": one, "zero": zero, "three": np.ones(3, np.float32)}
    stored |= {"zeros": np.zeros(3, np.int8)}
    stored |= {"a/kernel.integers": integers} if weights else {"w": integers.astype(np.float32)}
    nodes, x = [], "x"

    def node(kind, inputs, result, **attributes):
        nodes.append(helper.make_node(kind, inputs, [result], **attributes))
        return result

    def rounded(x, name):
        x = node("QuantizeLinear", [x, "one", "zero"], f"{name}.q")
        return node("DequantizeLinear", [x, "one", "zero"], f"{name}.dq")

    x = rounded(x, "in") if given else x
    w = "w"
    if weights:
        w = node(
            "DequantizeLinear", ["a/kernel.integers", "three", "zeros"], "a/kernel.values", axis=1
        )
    x = node("MatMul", [x, w], "product")
    x = node("Relu", [x], "relu") if relu else node("Tanh", [x], "tanh")
    x = rounded(x, "out") if made else x
    node("Identity", [x], "y")
    kind = onnx.TensorProto.FLOAT
    values = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, [1, 2])],
        [helper.make_tensor_value_info("y", kind, [1, 3])],
        values,
    )
    return helper.make_model(graph)


def test_a_layer_in_integers_has_no_fault():
    assert export.onnx_faults(_model(), _layer()) == []
    # What comes out of the last layer is float, as the plan says.
    assert export.onnx_faults(_model(made=False), _layer(output=None)) == []
    assert (
        export.onnx_faults(_model(given=False, made=False), _layer(input=None, output=None)) == []
    )


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (_model(given=False), "a/kernel runs in float: what goes in is not rounded"),
        (_model(made=False), "a/kernel runs in float: what comes out is not rounded"),
        (_model(relu=False), "a/kernel runs in float: what comes out is not rounded"),
        (_model(weights=False), "a/kernel has its weights in float"),
    ],
)
def test_a_layer_in_float_is_named(model, line):
    faults = export.onnx_faults(model, _layer())
    assert faults == [line]
    with pytest.raises(BadInput, match=f"^rules: {line} in the ONNX file; leave it in float"):
        export.require_integers(faults, "ONNX")


def _dead(variables, x):
    """A rectification that is 0 on every example."""
    x = jnp.maximum(x @ variables["params"]["a"]["kernel"], 0.0)
    return x @ variables["params"]["b"]["kernel"]


def _calibrated(value):
    kernels = {"a": {"kernel": -jnp.ones((2, 3))}, "b": {"kernel": jnp.ones((3, 2))}}
    rules = {"a/kernel": quant.Rule(), "b/kernel": quant.Rule()}
    return quant.calibrate(_dead, {"params": kernels}, [jnp.full((4, 2), value)], rules=rules)


def test_an_activation_that_is_one_number_is_named():
    assert quant.constant(_calibrated(1.0)) == {"input0": 1.0, "a/kernel:out": 0.0}
    assert quant.constant({"x": np.asarray([-1, 2], np.float32)}) == {}


def test_an_activation_that_is_not_finite_is_refused():
    with pytest.raises(BadInput, match=r"calibration: \S+ is not finite on the examples"):
        _calibrated(jnp.nan)
