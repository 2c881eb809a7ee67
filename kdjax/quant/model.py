"""A linen model with some of its layers in few numbers, as its jaxpr shows them.

The model's code is not changed and does not know: its jaxpr is run with parameters and activations
rounded where a runtime would have integers. So what is trained, measured and exported is one function.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.quant.layers import Layer, graph_of
from kdjax.quant.numbers import fake_activation, fake_weights
from kdjax.quant.rules import Rule
from kdjax.types import Variables

RANGES = "ranges"
"""The collection of variables that holds the ranges of the activations: `{tensor: [low, high]}`."""


class Quantized(nn.Module):
    """A model whose layers follow rules.

    Its variables are the model's own and a collection `ranges`, which no training step changes: a
    network that is trained further learns to live within the ranges that its file will have.

    Attributes:
      model: what is quantized, BatchNorm folded: a runtime has no layer for it.
      rules: by the name of the layer's parameter.
    """

    model: nn.Module
    rules: Mapping[str, Rule]

    def setup(self):
        """The model's variables are in this module's own scope."""
        nn.share_scope(self, self.model)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives in these numbers; at first, ranges of [0, 0], for `calibrate`."""
        if self.is_initializing():
            outputs = self.model(*args, **kwargs)
            self._first_ranges(args, kwargs)
            return outputs
        ranges = self.variables.get(RANGES, {})
        rngs = {name: self.make_rng(name) for name in self.scope.rngs} if self.scope else {}

        def fake(name: str, value: Array) -> Array:
            # Training may see a tensor that evaluation has not, such as one after a dropout.
            return fake_activation(value, ranges[name]) if name in ranges else value

        return run(
            self._function({**kwargs, "rngs": rngs}),
            self._own(),
            *args,
            rules=self.rules,
            fake=fake,
            fake_weights=lambda layer, w, rule: fake_weights(w, rule, channels=layer.channels),
        )

    def _first_ranges(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        evaluated = {**kwargs, "train": False} if "train" in kwargs else kwargs
        graph = graph_of(self._function(evaluated), self._own(), *args)
        active = [name for name, rule in self.rules.items() if rule.activations]
        for name in graph.tensors(active).values():
            self.put_variable(RANGES, name, jnp.zeros(2))

    def _own(self) -> Variables:
        return {name: tree for name, tree in self.variables.items() if name != RANGES}

    def _function(self, kwargs: Mapping[str, Any]) -> Callable[..., Any]:
        module = self.model.clone(parent=None)
        return lambda variables, *args: module.apply(variables, *args, **kwargs)


def run(
    function: Callable[..., Any],
    variables: Variables,
    *inputs: Any,
    rules: Mapping[str, Rule],
    fake: Callable[[str, Array], Array],
    fake_weights: Callable[[Layer, Array, Rule], Array],
) -> Any:
    """`function(variables, *inputs)` with what the hooks make of activations and parameters.

    Args:
      function: pure.
      variables: of it.
      *inputs: of it.
      rules: by the name of the layer's parameter.
      fake: `(name, value) -> value` of each activation that is quantized.
      fake_weights: of each parameter that is.
    """
    graph = graph_of(function, variables, *inputs)
    tensors = graph.tensors([name for name, rule in rules.items() if rule.activations])
    parameters = {(layer.step, layer.place): layer for layer in graph.layers if layer.name in rules}

    def operand(step: int, place: int, value: Any) -> Any:
        layer = parameters.get((step, place))
        return value if layer is None else fake_weights(layer, value, rules[layer.name])

    def result(number: int, value: Any) -> Any:
        return fake(tensors[number], value) if number in tensors else value

    found = graph.flat.run(jax.tree.leaves((variables, *inputs)), operand=operand, result=result)
    shape = jax.eval_shape(function, variables, *inputs)
    return jax.tree.unflatten(jax.tree.structure(shape), found)
