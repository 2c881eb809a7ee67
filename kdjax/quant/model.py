"""A linen model with some of its layers in few numbers, as its jaxpr shows them.

The model's code is not changed and does not know: its jaxpr is run with parameters and activations
rounded where a runtime would have integers. So what is trained, measured and exported is one function.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from kdjax import recurrence
from kdjax.quant.fake_quant import fake_activation, fake_dynamic, fake_weights
from kdjax.quant.graph import Layer
from kdjax.quant.layers import graph_of
from kdjax.quant.rules import Rule, static
from kdjax.types import Variables

RANGES = "ranges"
"""The collection of variables that holds the ranges of the activations: `{tensor: [low, high]}`.

And the divisors of `kdjax.quant.smooth`, by the name of the layer with `SMOOTH` behind it.
"""

SMOOTH = ":smooth"
"""Behind the name of a layer, that of its divisors."""


@dataclasses.dataclass(frozen=True)
class _Held:
    """A model that linen does not take for a part of the one that holds it."""

    module: nn.Module


class Quantized(nn.Module):
    """A model whose layers follow rules.

    Its variables are the model's own and a collection `ranges`, which no training step changes: a
    network that is trained further learns to live within the ranges that its file will have.

    Attributes:
      wrapped: the model, BatchNorm folded: a runtime has no layer for it.
      rules: by the name of the layer's parameter.
    """

    wrapped: Any
    rules: Mapping[str, Rule]

    def __post_init__(self):
        """Its variables are in this module's own scope: it is run as a function of them."""
        if isinstance(self.wrapped, nn.Module):
            self.wrapped = _Held(self.wrapped)
        super().__post_init__()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives in these numbers; at first, ranges of [0, 0], for `calibrate`."""
        assert self.scope is not None
        lazy: Any = self.scope.rngs
        # As the model itself has them.
        rngs = {name: rng.as_jax_rng() for name, rng in lazy.items()}
        if self.is_initializing():
            self._first(rngs, args, kwargs)
        ranges = self.variables.get(RANGES, {})

        def fake(name: str, value: Array) -> Array:
            # Training may see a tensor that evaluation has not, such as one after a dropout.
            return fake_activation(value, ranges[name]) if name in ranges else value

        return run(
            self._function({**kwargs, "rngs": rngs}),
            self._own(),
            *args,
            rules=self.rules,
            fake=fake,
            smooth=ranges,
        )

    def _first(self, rngs: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]):
        made = self.wrapped.module.init(rngs, *args, **kwargs)
        evaluated = {**kwargs, "train": False} if "train" in kwargs else kwargs
        graph = graph_of(self._function(evaluated), made, *args)
        ranges = {name: jnp.zeros(2) for name in graph.tensors(static(self.rules)).values()}
        for layer in graph.layers:
            rule = self.rules.get(layer.name)
            if rule is not None and rule.smooth is not None:
                shape = graph.flat.shape(graph.flat.steps[layer.step].operands[layer.place])
                sizes = [shape[axis] for axis in graph.contracted(layer)[1]]
                ranges[f"{layer.name}{SMOOTH}"] = jnp.ones(sizes)
        for collection, variables in {**made, RANGES: ranges}.items():
            for name, value in variables.items():
                self.put_variable(collection, name, value)

    def _own(self) -> Variables:
        return {name: tree for name, tree in self.variables.items() if name != RANGES}

    def _function(self, kwargs: Mapping[str, Any]) -> Callable[..., Any]:
        return lambda variables, *args: self.wrapped.module.apply(variables, *args, **kwargs)


def _rounded(layer: Layer, weights: Array, rule: Rule) -> Array:
    return fake_weights(weights, rule, channels=layer.channels)


def _called(layer: Layer, value: Array, rule: Rule) -> Array:
    return fake_dynamic(value) if _is_called(rule) else value


def _is_called(rule: Rule | None) -> bool:
    return rule is not None and rule.activations == "dynamic"


def run(
    function: Callable[..., Any],
    variables: Variables,
    *inputs: Any,
    rules: Mapping[str, Rule],
    fake: Callable[[str, Array], Array],
    fake_weights: Callable[[Layer, Array, Rule], Array] = _rounded,
    fake_input: Callable[[Layer, Array, Rule], Array] = _called,
    see: Callable[[Layer, Array], None] = lambda layer, value: None,
    smooth: Mapping[str, Any] | None = None,
) -> Any:
    """`function(variables, *inputs)` with what the hooks make of activations and parameters.

    Args:
      function: pure.
      variables: of it.
      *inputs: of it.
      rules: by the name of the layer's parameter.
      fake: `(name, value) -> value` of each activation that has a range.
      fake_weights: of each parameter that is quantized; it is rounded, unless asked otherwise.
      fake_input: of what goes into each of those layers; rounded where the rule is `dynamic`, unless
        asked otherwise.
      see: what goes into each layer.
      smooth: divisors of `kdjax.quant.smooth`, among whatever else.
    """
    graph = graph_of(function, variables, *inputs)
    tensors = graph.tensors(static(rules))
    layers = {(layer.step, layer.place): layer for layer in graph.layers}
    # The hidden state of an LSTM is no operand: what goes in is what its first product takes.
    taking = {layer.step: layer for layer in reversed(graph.layers)}
    rounded = {
        layer.step
        for layer in graph.layers
        if layer.kind == "recurrence" and _is_called(rules.get(layer.name))
    }

    divisors = smooth or {}

    def divided(layer: Layer, rule: Rule, value: Array, side: int) -> Array | None:
        """What a layer's input is times, or its parameter divided by; None for nothing."""
        found = divisors.get(f"{layer.name}{SMOOTH}") if rule.smooth is not None else None
        return None if found is None else along(found, graph.contracted(layer)[side], value.ndim)

    def operand(step: int, place: int, value: Any) -> Any:
        if layer := layers.get((step, place)):
            if (rule := rules.get(layer.name)) is None:
                return value
            if (by := divided(layer, rule, value, 1)) is None:
                return fake_weights(layer, value, rule)
            return fake_weights(layer, value * by, rule) / by
        layer = taking.get(step)
        if layer is None or layer.kind == "lookup" or (layer.kind == "recurrence" and place):
            return value
        rule = rules.get(layer.name)
        see(layer, value)
        if rule is None:
            return value
        if (by := divided(layer, rule, value, 0)) is None:
            return fake_input(layer, value, rule)
        return fake_input(layer, value * (1.0 / by), rule) * by  # as a file has it

    def apply(step: int, given: Sequence[Any], params: Mapping[str, Any]) -> Any:
        return recurrence.again(given, params, rounding=fake_dynamic) if step in rounded else None

    def result(number: int, value: Any) -> Any:
        return fake(tensors[number], value) if number in tensors else value

    leaves = jax.tree.leaves((variables, *inputs))
    found = graph.flat.run(leaves, operand=operand, result=result, apply=apply)
    return jax.tree.unflatten(graph.structure, found)


def along(x: Any, axes: tuple[int, ...], rank: int) -> Array:
    """An array whose axes are these of one of another rank, as it goes with that."""
    order = sorted(range(len(axes)), key=axes.__getitem__)
    moved = jnp.transpose(jnp.asarray(x), order)
    return jnp.expand_dims(moved, [axis for axis in range(rank) if axis not in axes])
