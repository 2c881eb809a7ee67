"""What of a model can be quantized: its layers, the sums and gates between them, and their tensors."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float32

from kdjax.jaxprs import Flat
from kdjax.types import PyTree

Kind = Literal["product", "convolution", "recurrence", "lookup"]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A product of an activation with a parameter, or rows of it that an activation chooses.

    Attributes:
      name: of the parameter, `encoder/stem/conv/kernel`; a second product with it is `...#2`.
      step: number of the operation in the flat jaxpr.
      place: which operand the parameter is.
      channels: axes of that operand that the result has, each entry with a scale of its own.
      kind: `recurrence` is one of the two products of an LSTM, whose activations have no range that is
        found once; `lookup` is one of rows, into which no activation goes that could be rounded.
      input: the value that goes in; the hidden state of an LSTM is none, and then it is all that goes in.
      output: what comes out, after bias and rectification.
      bias: whether there is a bias.
      clipped: whether there is a rectification.
    """

    name: str
    step: int
    place: int
    channels: tuple[int, ...]
    kind: Kind
    input: int
    output: int
    bias: bool
    clipped: bool

    @property
    def convolution(self) -> bool:
        """Whether it is one."""
        return self.kind == "convolution"

    @property
    def ranged(self) -> bool:
        """Whether its activations can have ranges that are found once."""
        return self.kind in ("product", "convolution")


@dataclasses.dataclass(frozen=True)
class Sum:
    """A sum of two activations of one shape; `output` is it after a rectification, if `clipped`."""

    left: int
    right: int
    output: int
    clipped: bool


@dataclasses.dataclass(frozen=True)
class Gated:
    """An activation times a gate, `output = value * gate`, `gate = clip(of + offset, 0, size) / size`.

    With the activation itself for `of`, an offset of 3 and a size of 6 it is a hard swish; with what a
    dense layer makes of the mean over space, a squeeze-and-excitation.
    """

    value: int
    of: int
    gate: int
    output: int
    offset: float
    size: float


@dataclasses.dataclass(frozen=True)
class Graph:
    """What of a model can be quantized.

    Attributes:
      flat: its jaxpr.
      inputs: of the values, the activations that it is given.
      layers: in order.
      sums: in order.
      gated: in order.
      sources: by value, the one that it has its entries from, moved about or chosen.
      final: values that nothing but the caller reads, moved about or chosen.
      structure: of what the function returns.
    """

    flat: Flat
    inputs: tuple[int, ...]
    layers: tuple[Layer, ...]
    sums: tuple[Sum, ...]
    gated: tuple[Gated, ...]
    sources: Mapping[int, int]
    final: frozenset[int]
    structure: Any

    def source(self, value: int) -> int:
        """Where the entries of a value are from."""
        while value in self.sources:
            value = self.sources[value]
        return value

    @property
    def kinds(self) -> dict[str, Kind]:
        """Of the layers, by name."""
        return {layer.name: layer.kind for layer in self.layers}

    @property
    def edges(self) -> tuple[str, ...]:
        """The layers that see the model's input, and those that give what it returns.

        What no layer has made is the input, too, such as the spectra of sound; to a recurrence it is not,
        which has no ranges that a few large values could spoil.
        """
        seen = self._before_layers
        return tuple(
            layer.name
            for layer in self.layers
            if layer.kind != "lookup"
            and (
                self.source(layer.input) in self.inputs
                or (layer.ranged and layer.input in seen)
                or layer.output in self.final
            )
        )

    @property
    def _before_layers(self) -> set[int]:
        """The values that are made of inputs, and of nothing that a layer has made."""
        made, found, products = set(), {*self.inputs}, {layer.step for layer in self.layers}
        for i, step in enumerate(self.flat.steps):
            operands = {value for value in step.operands if isinstance(value, int)}
            if i in products or operands & made:
                made.update(step.results)
            elif operands & found:
                found.update(step.results)
        return found

    def tensors(self, chosen: Collection[str]) -> dict[int, str]:
        """The activations that are quantized if these layers are, with a name each.

        The name is that of the layer, the sum or the gate that makes it, or of the first layer that
        reads it.
        """
        layers = [layer for layer in self.layers if layer.name in chosen]
        made = {layer.output: f"{layer.name}:out" for layer in self.layers}
        made |= {added.output: f"sum{i}:out" for i, added in enumerate(self.sums)}
        made |= {times.gate: f"gate{i}:out" for i, times in enumerate(self.gated)}
        made |= {times.output: f"gated{i}:out" for i, times in enumerate(self.gated)}
        made |= {n: f"input{i}" for i, n in enumerate(self.inputs)}
        found: dict[int, str] = {}
        for layer in layers:
            at = self.source(layer.input)
            found.setdefault(at, made.get(at, f"{layer.name}:in"))
            if layer.output not in self.final:
                found.setdefault(layer.output, made[layer.output])
        # In the order of the operations: what one makes, the next may take.
        for joined in sorted((*self.sums, *self.gated), key=lambda joined: joined.output):
            match joined:
                case Sum(left, right):
                    pair, results = {left, right}, [joined.output]
                case Gated(value, of):
                    pair, results = {value, of}, [joined.gate, joined.output]
            if {*map(self.source, pair)} <= found.keys() and joined.output not in self.final:
                for result in results:
                    found.setdefault(result, made[result])
        return found

    def contracted(self, layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The axes of what goes into a product, and of its parameter, that it sums over, in one order."""
        (one, other), _ = self.flat.steps[layer.step].equation.params["dimension_numbers"]
        sides = tuple(one), tuple(other)
        return sides[1 - layer.place], sides[layer.place]

    def scales(self, layer: Layer) -> int:
        """How many scales the weights of a layer have."""
        parameter = self.flat.steps[layer.step].operands[layer.place]
        shape = self.flat.shape(parameter)
        return math.prod(shape[axis] for axis in layer.channels)

    def parameters(
        self, variables: PyTree, *inputs: Any, names: Collection[str]
    ) -> list[tuple[Layer, Float32[np.ndarray, "..."]]]:
        """What the products of these layers take as their parameters, in float32.

        Args:
          variables: arrays, otherwise as the graph was found with.
          *inputs: arrays or shapes, likewise.
          names: of the layers.
        """
        wanted = {(layer.step, layer.place): layer for layer in self.layers if layer.name in names}
        given: dict[tuple[int, int], Any] = {}

        def note(step: int, place: int, value: Any) -> Any:
            if (step, place) in wanted:
                given[step, place] = value
            return value

        def forward(variables: PyTree, *inputs: Any) -> dict[tuple[int, int], Any]:
            self.flat.run(jax.tree.leaves((variables, *inputs)), operand=note)
            return given

        blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), inputs)
        found = jax.device_get(jax.jit(forward)(variables, *blank))
        return [(wanted[at], np.asarray(value, np.float32)) for at, value in found.items()]
