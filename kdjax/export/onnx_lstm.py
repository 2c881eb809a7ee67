"""The recurrence of an LSTM as the one operator that ONNX has for it, many times as fast as a loop.

ONNX wants steps first, its gates in the order input, output, forget, cell, and a bias for each of the
two products.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from kdjax import recurrence
from kdjax.export.onnx_places import taken
from kdjax.export.onnx_types import MICROSOFT
from kdjax.quant import Stored

_ORDER = (0, 3, 1, 2)
"""Of ours, as ONNX has them."""


def gates_first(kernel: Float[np.ndarray, "dim 4 hidden"]) -> Float[np.ndarray, "1 gates dim"]:
    """A parameter of the recurrence as ONNX takes it: of one direction, 4 hidden rows."""
    moved = kernel[:, _ORDER].reshape(len(kernel), -1)
    return np.ascontiguousarray(moved.T)[None]


def register() -> None:
    """Tells jax2onnx of the operation, once."""
    from jax2onnx.plugins import plugin_system

    if recurrence.NAME in plugin_system.PLUGIN_REGISTRY:
        return

    class Lowering(plugin_system.PrimitiveLeafPlugin):
        def lower(self, ctx: Any, eqn: Any) -> None:
            _lower(ctx, eqn)

    plugin_system.register_primitive(
        jaxpr_primitive=recurrence.NAME,
        jax_doc="",
        onnx=[],
        since="0",
        context="primitives.kdjax",
        component=recurrence.NAME,
        testcases=[],
    )(Lowering)


def in_integers(file: Any, node: Any, pending: list[Stored]) -> None:
    """Gives an LSTM of a file the integers that a plan has for it.

    Those with what goes in quantized in the call are another operator, of ONNX Runtime alone, which has
    one scale for all that goes in and another for the hidden state at each step.

    Args:
      file: that is rewritten, see `kdjax.export.onnx_integers`.
      node: the operator.
      pending: layers that are still to be found; those of this one are taken out.
    """
    kinds, found = ("recurrence",), []
    for name in node.input[1:3]:
        layer = taken(pending, file.arrays[name], kinds, of=lambda layer: _of(layer, layer.weights))
        if layer is None:
            return
        found.append(layer)
    if not all(layer.dynamic for layer in found):
        for place, layer in enumerate(found, 1):
            if layer.bits:
                scale = _scale(layer)
                node.input[place] = file.integers(
                    node, layer.name, _of(layer, layer.integers), scale, bits=layer.bits, axis=1
                )
        return
    stored = [_called(file, node, layer) for layer in found]
    bias = list(node.input[3:])
    bias += [""] * (5 - len(bias))
    scales = []
    for layer in found:
        scales += [
            file.keep(f"{layer.name}.scale", _scale(layer)[None]),
            file.keep(f"{layer.name}.zero", np.zeros((1, layer.scale.size), np.int8)),
        ]
    inputs = [node.input[0], *stored, *bias[:4], "", *scales]
    node.op_type, node.domain = "DynamicQuantizeLSTM", MICROSOFT
    del node.input[:]
    node.input.extend(inputs)
    file.require(MICROSOFT)


def _called(file: Any, node: Any, layer: Stored) -> str:
    """The integers of a product as the operator takes them: [1, in, gates]."""
    values = np.swapaxes(_of(layer, layer.integers), 1, 2)
    return file.bytes(node, layer, values)


def _of(layer: Stored, values: np.ndarray) -> np.ndarray:
    return gates_first(values.reshape(len(values), 4, -1))


def _scale(layer: Stored) -> Float[np.ndarray, " gates"]:
    return layer.scale.reshape(4, -1)[list(_ORDER)].reshape(-1).astype(np.float32)


def _lower(ctx: Any, equation: Any) -> None:
    import onnx_ir as ir
    from jax2onnx.converter.ir_builder import _dtype_to_ir
    from jax2onnx.plugins._ir_shapes import _ensure_value_metadata, _stamp_type_and_shape

    params, make = equation.params, ctx.builder
    x, *parameters = equation.invars[:4]
    kernel, recurrent, bias = map(ctx.try_evaluate_const, parameters)
    if kernel is None or recurrent is None or bias is None:
        raise ValueError("the parameters of an LSTM are computed in the call")
    hidden, kind = len(recurrent), ir.TensorType(_dtype_to_ir(np.dtype(np.float32), False))

    def keep(name: str, array: np.ndarray) -> Any:
        return make.add_initializer_from_array(name=ctx.fresh_name(name), array=array)

    def known(variable: Any) -> Any:
        return ctx.get_value_for_var(variable, name_hint=ctx.fresh_name("lstm_in"))

    def typed(name: str, operator: Any, *inputs: Any, **attributes: Any) -> Any:
        made = operator(*inputs, **attributes, _outputs=[ctx.fresh_name(f"lstm_{name}")])
        made.type = kind
        return made

    rest = [known(variable) for variable in equation.invars[4:]]
    length = rest.pop() if params["ragged"] else None
    one, direction = (keep("lstm_axis", np.asarray([axis], np.int64)) for axis in (0, 1))
    state = [typed("state", make.Unsqueeze, each, one) for each in rest]
    biases = np.zeros((1, 8 * hidden), np.float32)
    biases[0, : 4 * hidden] = np.asarray(bias)[list(_ORDER)].reshape(-1)
    found = make.LSTM(
        typed("steps", make.Transpose, known(x), perm=[1, 0, 2]),
        keep("lstm_kernel", gates_first(np.asarray(kernel, np.float32))),
        keep("lstm_recurrent", gates_first(np.asarray(recurrent, np.float32))),
        keep("lstm_bias", biases),
        length,
        *state,
        hidden_size=hidden,
        direction="reverse" if params["reverse"] else "forward",
        _outputs=[ctx.fresh_name(f"lstm_{name}") for name in ("all", "hidden", "cell")],
    )
    for value in found:
        value.type = kind
    every = typed("every", make.Squeeze, found[0], direction)
    results = [
        typed("y", make.Transpose, every, perm=[1, 0, 2]),
        *(typed("last", make.Squeeze, each, one) for each in found[1:]),
    ]
    for variable, value in zip(equation.outvars, results, strict=True):
        _stamp_type_and_shape(value, variable.aval.shape)
        _ensure_value_metadata(ctx, value)
        ctx.bind_value_for_var(variable, value)
