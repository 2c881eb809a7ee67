"""What each input of a product is divided by before it is rounded, and its weights multiplied by.

Activations of transformers have a few entries that are many times as large as all others, and one range
for a tensor leaves these few numbers. A part of that is moved into the weights, which have a scale for
each output: the product is what it was.

Reference: Xiao et al. 2022, SmoothQuant, https://arxiv.org/abs/2211.10438, eq. 4.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from kdjax.quant.graph import Graph, Layer
from kdjax.quant.layers import graph_of
from kdjax.quant.model import SMOOTH, run
from kdjax.quant.rules import Rule
from kdjax.types import Variables

_LEAST = 1e-5


def smoothed(rules: Mapping[str, Rule]) -> list[str]:
    """The layers with such divisors."""
    return [name for name, rule in rules.items() if rule.smooth is not None]


def divisors(
    function: Callable[..., Any],
    variables: Variables,
    batches: Iterable[Any],
    *,
    rules: Mapping[str, Rule],
) -> dict[str, Float32[np.ndarray, "..."]]:
    """`{layer:smooth: divisors}`, with the axes of the parameter that the product sums over.

    Layers that read one value have the same ones, by the largest of their weights, so that it is rounded
    once.

    Args:
      function: `(variables, batch) -> outputs`, the model in evaluation.
      variables: of it.
      batches: one or more, of one shape.
      rules: by the name of the layer's parameter.
    """
    names = set(smoothed(rules))
    if not names:
        return {}
    batches = list(batches)
    graph = graph_of(function, variables, batches[0])
    layers = [layer for layer in graph.layers if layer.name in names]

    @jax.jit
    def look(variables: Variables, batch: Any) -> dict[str, Array]:
        found: dict[str, Array] = {}

        def see(layer: Layer, value: Array) -> None:
            if layer.name in names:
                found[layer.name] = _largest(value, graph.contracted(layer)[0])

        run(function, variables, batch, rules={}, fake=lambda name, x: x, see=see)
        return found

    every = [jax.device_get(look(variables, batch)) for batch in batches]
    weights = {
        layer.name: np.asarray(_largest(jnp.asarray(value), graph.contracted(layer)[1]))
        for layer, value in graph.parameters(variables, batches[0], names=names)
    }
    together = _together(graph, layers, rules)
    found = {}
    for layer in layers:
        share = float(rules[layer.name].smooth or 0.0)
        values = np.max([seen[layer.name] for seen in every], axis=0)
        kernel = np.max([weights[name] for name in together[layer.name]], axis=0)
        values, kernel = (np.maximum(x, _LEAST * max(x.max(), _LEAST)) for x in (values, kernel))
        found[f"{layer.name}{SMOOTH}"] = (values**share / kernel ** (1 - share)).astype(np.float32)
    return found


def _together(graph: Graph, layers: list[Layer], rules: Mapping[str, Rule]) -> dict[str, list[str]]:
    """By layer, all that read the same value alike, itself among them."""

    def read(layer: Layer) -> Any:
        return layer.input, graph.contracted(layer)[0], rules[layer.name].smooth

    return {
        layer.name: [other.name for other in layers if read(other) == read(layer)]
        for layer in layers
    }


def _largest(x: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
    """The largest absolute values along these axes, which are left in this order."""
    rest = tuple(axis for axis in range(x.ndim) if axis not in axes)
    order = np.argsort(np.argsort(axes))
    return jnp.transpose(jnp.abs(x.astype(jnp.float32)).max(rest), tuple(int(i) for i in order))
