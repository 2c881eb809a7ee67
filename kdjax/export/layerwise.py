"""Where a file and its live model part: what goes into each layer, in both."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Shaped

from kdjax.export.model import Model
from kdjax.export.runtime import Path, Runtime
from kdjax.quant import Layer, fake_activation, graph_of, run
from kdjax.types import Variables


def layer_differences(
    runtime: Runtime, path: Path, model: Model, *inputs: Shaped[np.ndarray, "batch ..."]
) -> dict[str, float]:
    """How far apart what goes into each layer is, relative to the largest live value there.

    The file's products with constants are taken for the model's layers, in order. Of a file that has
    another number of them, or does not show them, nothing is said: an empty dict. A converter may move
    a factor into the weights that come next, so one common factor makes no difference.

    Args:
      runtime: of the file's format.
      path: of the file.
      model: that it was made of.
      *inputs: raw, in the order of the file.
    """
    found = runtime.seen(path, inputs)
    if found is None:
        return {}
    live = _live(model, inputs, channels_first=runtime.channels_first)
    if len(found) != len(live):
        return {}
    apart = {}
    for (name, expected), value in zip(live.items(), found, strict=True):
        if value.size != expected.size:
            return {}
        value = value.reshape(expected.shape)
        factor = np.vdot(value, expected) / max(np.vdot(value, value), 1e-30)
        difference = min(np.abs(f * value - expected).max() for f in (1.0, factor))
        apart[name] = float(difference / max(np.abs(expected).max(), 1e-30))
    return apart


def _live(
    model: Model, inputs: Sequence[np.ndarray], *, channels_first: bool
) -> dict[str, np.ndarray]:
    """What goes into each layer, axes as the file has them."""

    def function(variables: Variables, *arrays: Any) -> Any:
        return model.raw(lambda inputs: model.forward(variables, inputs))(*arrays)

    variables, ranges = model.variables, model.ranges
    graph = graph_of(function, variables, *inputs)
    orders = {
        layer.name: graph.flat.steps[layer.step].equation.params["dimension_numbers"].lhs_spec
        for layer in graph.layers
        if layer.convolution and channels_first
    }
    seen: dict[str, Array] = {}

    def see(layer: Layer, value: Array) -> None:
        order = orders.get(layer.name)
        seen[layer.name] = value if order is None else value.transpose(order)

    @jax.jit
    def forward(variables, inputs):
        run(
            function,
            variables,
            *inputs,
            rules=model.rules,
            fake=lambda name, x: fake_activation(x, ranges[name]),
            see=see,
        )
        return {layer.name: seen[layer.name] for layer in graph.layers if layer.ranged}

    values = jax.device_get(forward(variables, inputs))  # jax sorts them
    return {layer.name: values[layer.name] for layer in graph.layers if layer.ranged}
