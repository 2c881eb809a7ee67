"""A model in which arrays decide what numbers each layer has: one compilation for all of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from kdjax.quant.fake_quant import fake_activation, fake_dynamic, fake_weights
from kdjax.quant.graph import Layer
from kdjax.quant.layers import graph_of
from kdjax.quant.model import run
from kdjax.quant.rules import Rule, static
from kdjax.types import Variables


class Choice(NamedTuple):
    """Which of its candidates each layer has.

    Attributes:
      numbers: by layer, 0 in float, i for the i-th candidate.
      active: by tensor, whether it is rounded in its range.
    """

    numbers: Mapping[str, np.ndarray | Array]
    active: Mapping[str, np.ndarray | Array]


class Choices:
    """The candidates of each layer of a model.

    Args:
      function: `(variables, *inputs) -> outputs`, in evaluation, BatchNorm folded.
      variables: of it, arrays or shapes.
      *inputs: likewise.
      candidates: by the name of the layer's parameter.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        variables: Variables,
        *inputs: Any,
        candidates: Mapping[str, Sequence[Rule]],
    ):
        self.function, self.candidates = function, candidates
        self._graph = graph_of(function, variables, *inputs)
        # Each layer with every number it may have: the ranges that one may need.
        self.rules = {
            name: Rule(activations="int8" if _any(rules, "int8") else None)
            for name, rules in candidates.items()
        }
        self._tensors = self._graph.tensors(static(self.rules))

    def choice(self, chosen: Mapping[str, int]) -> Choice:
        """The numbers of some layers, counted from 1; the others stay in float."""
        numbers = {name: np.asarray(chosen.get(name, 0), np.int32) for name in self.candidates}
        ranged = [
            name
            for name, number in chosen.items()
            if number and self.candidates[name][number - 1].activations == "int8"
        ]
        rounded = self._graph.tensors(ranged)
        active = {name: np.asarray(value in rounded) for value, name in self._tensors.items()}
        return Choice(numbers, active)

    def run(
        self,
        variables: Variables,
        *inputs: Any,
        choice: Choice,
        ranges: Mapping[str, Float[Any, "2"]],
    ) -> Any:
        """The model in the numbers of a choice, which may be traced.

        Args:
          variables: of the function.
          *inputs: of it.
          choice: see above.
          ranges: of `calibrate` with `rules`.
        """

        def switch(layer: Layer, value: Array, of: Callable[[Rule], Callable[[Array], Array]]):
            branches = [_same, *map(of, self.candidates[layer.name])]
            return lax.switch(choice.numbers[layer.name], branches, value)

        def activation(name: str, value: Array) -> Array:
            rounded = fake_activation(value, ranges[name])
            return jnp.where(choice.active[name], rounded, value)

        def parameter(layer: Layer, value: Array, rule: Rule) -> Array:
            return switch(
                layer,
                value,
                lambda rule: lambda w: fake_weights(w, rule, channels=layer.channels),
            )

        def called(layer: Layer, value: Array, rule: Rule) -> Array:
            if not _any(self.candidates[layer.name], "dynamic"):
                return value
            return switch(
                layer,
                value,
                lambda rule: fake_dynamic if rule.activations == "dynamic" else _same,
            )

        return run(
            self.function,
            variables,
            *inputs,
            rules=self.rules,
            fake=activation,
            fake_weights=parameter,
            fake_input=called,
        )


def _same(value: Array) -> Array:
    return value


def _any(rules: Sequence[Rule], activations: str) -> bool:
    return any(rule.activations == activations for rule in rules)
