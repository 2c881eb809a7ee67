"""Where a model's activations are quantized: its products with parameters, and the sums between them.

Derived from the jaxpr, not declared. A runtime computes a layer in integers if its weights, what goes in
and what comes out are all quantized, with nothing between the product and its result but a bias and a
rectification; it adds two branches in integers if both are quantized; and it multiplies an activation
with its gate (hard swish, the gates of squeeze-and-excitation) in integers if the activation and what the
gate is made of are. So a tensor is quantized that goes into a quantized layer, or comes out of it after
bias and rectification, or is the rectified sum of two that are, or such a gate or such a product.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from kdjax import recurrence, tree
from kdjax.jaxprs import Flat, Step, Value, flatten, operations
from kdjax.quant.graph import Gated, Graph, Layer, Sum
from kdjax.recurrence import KERNEL, RECURRENT
from kdjax.types import PyTree

# What moves entries about and changes none.
_MOVES = frozenset(
    [
        "convert_element_type",
        "copy",
        "reshape",
        "rev",
        "slice",
        "squeeze",
        "stop_gradient",
        "transpose",
    ]
)
# What chooses among entries: the result is quantized if the operand is.
_CHOICES = _MOVES | {"reduce_max", "reduce_window_max"}
# What a bias goes through before it is added.
_SPREADS = frozenset(["broadcast_in_dim", "convert_element_type", "copy", "reshape", "squeeze"])
_CLIPS = frozenset(["clamp", "copy", "max", "min", "stop_gradient"])
_SCALARS = frozenset(["broadcast_in_dim", "convert_element_type"])
# What a gate is made of, and an activation times it.
_GATES = _CLIPS | {"add", "div", "mul"}


def graph_of(function: Callable[..., Any], variables: PyTree, *inputs: Any) -> Graph:
    """The products and sums of `function(variables, *inputs)`; nothing is computed.

    Args:
      function: pure.
      variables: `{"params": ..., ...}`, arrays or shapes.
      *inputs: its activations.
    """
    closed, returned = jax.make_jaxpr(function, return_shape=True)(variables, *inputs)
    flat = flatten(closed, into=_is_of_interest)
    names = [n.removeprefix("params/") for n in tree.named_leaves(variables)]
    return _Walk(flat, names).graph(jax.tree.structure(returned))


class _Walk:
    """The operations of a flat jaxpr, one after the other."""

    def __init__(self, flat: Flat, names: list[str]):
        self.flat = flat
        self.names = dict(zip(flat.inputs, names, strict=False))
        # `parameter`: what is one with its entries moved about; `weight`: what depends on no input.
        self.parameter = dict(self.names)
        self.weight: set[int] = {*self.names, *flat.consts}
        self.uses = Counter(v for s in flat.steps for v in s.operands if isinstance(v, int))
        self.uses.update(v for v in flat.outputs if isinstance(v, int))
        self.readers: dict[int, int] = {}
        for i, step in enumerate(flat.steps):
            self.readers |= {v: i for v in step.operands if isinstance(v, int)}
        self.sources: dict[int, int] = {}
        # By value, the one that it was spread or moved about from.
        self.spread: dict[int, int] = {}
        self.layers: list[Layer] = []
        self.sums: list[Sum] = []
        self.gated: list[Gated] = []
        self.makers = {v: step for step in flat.steps for v in step.results}

    def graph(self, structure: Any) -> Graph:
        seen: Counter[str] = Counter()
        for step in self.flat.steps:
            if all(self.is_weight(v) for v in step.operands):
                self.weight.update(step.results)
            source = step.operands[0] if step.operands else None
            if step.name in _SPREADS and isinstance(source, int):
                self.spread[step.results[0]] = self.spread.get(source, source)
            if self.chooses(step) and isinstance(source, int):
                if source in self.parameter and step.name in _MOVES:
                    self.parameter[step.results[0]] = self.parameter[source]
                elif source not in self.weight:
                    self.sources[step.results[0]] = source
        for i, step in enumerate(self.flat.steps):
            if _is_product(step.equation):
                self.layer(i, step, seen)
            elif step.name == recurrence.NAME:
                self.recurrence(i, step, seen)
            elif step.name == "gather":
                self.lookup(i, step, seen)
            elif self.is_sum(step):
                left, right = step.operands
                assert isinstance(left, int)
                assert isinstance(right, int)
                end, _, clipped = self.end(step.results[0], channels=0)
                self.sums.append(Sum(left, right, end, clipped))
            elif (gated := self.gate(step)) is not None:
                self.gated.append(gated)
        returned = Counter(v for v in self.flat.outputs if isinstance(v, int))
        final = {v for v, times in returned.items() if self.uses[v] == times}
        for value in [*final]:
            while (value := self.sources.get(value, -1)) >= 0 and self.uses[value] == 1:
                final.add(value)
        return Graph(
            self.flat,
            tuple(n for n in self.flat.inputs if n not in self.names),
            tuple(self.layers),
            tuple(self.sums),
            tuple(self.gated),
            self.sources,
            frozenset(final),
            structure,
        )

    def is_weight(self, value: Value) -> bool:
        return not isinstance(value, int) or value in self.weight

    def chooses(self, step: Step) -> bool:
        """Whether a result has entries of the operand, in numbers as fine."""
        if step.name == "convert_element_type":
            return all(
                jnp.issubdtype(v.aval.dtype, jnp.floating)
                for v in (*step.equation.invars, *step.equation.outvars)
            )
        return step.name in _CHOICES

    def is_sum(self, step: Step) -> bool:
        return (
            step.name in ("add", "add_any")
            and not any(self.is_weight(v) for v in step.operands)
            and len({self.flat.shape(v) for v in step.operands}) == 1
        )

    def gate(self, step: Step) -> Gated | None:
        """The product of an activation with a gate, if it is one."""
        if step.name != "mul" or any(self.is_weight(v) for v in step.operands):
            return None
        for value, gate in (step.operands, reversed(step.operands)):
            assert isinstance(value, int)
            assert isinstance(gate, int)
            gate = self.spread.get(gate, gate)
            scaled, divisor = self.by_number(gate, "div")
            shifted, low, high = scaled, -math.inf, math.inf
            while (clip := self.makers.get(shifted)) is not None and _clips(clip.equation):
                below, above = _bounds(clip.equation)
                low, high = max(low, below), min(high, above)
                (shifted,) = (v for v in clip.operands if isinstance(v, int))
            of, offset = self.by_number(shifted, "add")
            if divisor > 0 and of >= 0 and (low, high) == (0.0, divisor):
                return Gated(value, of, gate, step.results[0], offset, divisor)
        return None

    def by_number(self, value: int, name: str) -> tuple[int, float]:
        """What an operation with a written number made a value of, and the number; else -1 and 0."""
        step = self.makers.get(value)
        if step is not None and step.name == name:
            match step.operands:
                case (int(operand), core.Literal() as number):
                    return operand, float(number.val)
                case (core.Literal() as number, int(operand)) if name == "add":
                    return operand, float(number.val)
        return -1, 0.0

    def layer(self, i: int, step: Step, seen: Counter[str]) -> None:
        """Notes the product of an activation with a parameter, if it is one."""
        places = [
            place
            for place, v in enumerate(step.operands)
            if isinstance(v, int) and v in self.parameter
        ]
        if len(places) != 1 or self.is_weight(step.operands[1 - places[0]]):
            return
        (place,) = places
        activation, parameter = step.operands[1 - place], step.operands[place]
        assert isinstance(activation, int)
        assert isinstance(parameter, int)
        params, convolution = step.equation.params, step.name == "conv_general_dilated"
        if convolution:
            if place == 0:
                return  # a parameter as the image: no layer
            channels = (params["dimension_numbers"].rhs_spec[0],)
        else:
            contracted, batch = params["dimension_numbers"]
            if batch[place]:
                return  # a matrix for each example or head
            axes = range(len(self.flat.shape(parameter)))
            channels = tuple(axis for axis in axes if axis not in contracted[place])
        name = self.named(parameter, seen)
        shape = self.flat.shape(parameter)
        end = self.end(step.results[0], channels=math.prod(shape[axis] for axis in channels))
        kind = "convolution" if convolution else "product"
        self.layers.append(Layer(name, i, place, channels, kind, activation, *end))

    def named(self, parameter: int, seen: Counter[str]) -> str:
        """The layer of a parameter, with its number where it has several."""
        name = self.parameter[parameter]
        seen[name] += 1
        return name + (f"#{seen[name]}" if seen[name] > 1 else "")

    def recurrence(self, i: int, step: Step, seen: Counter[str]) -> None:
        """Notes the two products of an LSTM, if both are of parameters as they are stored."""
        x, *_ = step.operands
        found = [step.operands[place] for place in (KERNEL, RECURRENT)]
        known = [v for v in found if isinstance(v, int) and v in self.parameter]
        if self.is_weight(x) or len(known) < len(found):
            return
        assert isinstance(x, int)
        for place, parameter in zip((KERNEL, RECURRENT), known, strict=True):
            name = self.named(parameter, seen)
            end = step.results[0], False, False
            self.layers.append(Layer(name, i, place, (1, 2), "recurrence", x, *end))

    def lookup(self, i: int, step: Step, seen: Counter[str]) -> None:
        """Notes a choice among whole rows of a matrix of parameters."""
        table, rows = step.operands
        if not isinstance(table, int) or not isinstance(rows, int):
            return
        shape, numbers = self.flat.shape(table), step.equation.params["dimension_numbers"]
        sizes = tuple(step.equation.params["slice_sizes"])
        if table not in self.parameter or self.is_weight(rows) or len(shape) != 2:
            return
        if sizes == (1, shape[1]) and tuple(numbers.start_index_map) == (0,):
            end = step.results[0], False, False
            self.layers.append(Layer(self.named(table, seen), i, 0, (0,), "lookup", rows, *end))

    def end(self, value: int, *, channels: int) -> tuple[int, bool, bool]:
        """The value after the bias and the rectification that nothing else sees the middle of.

        Returns:
          It, and whether there is a bias, of so many channels at most, and a rectification.
        """
        end, bias, clipped = value, False, False
        while self.uses[value] == 1 and value in self.readers:
            step = self.flat.steps[self.readers[value]]
            if _clips(step.equation):
                clipped = True
            elif self.adds_bias(step, value, channels) and not (bias or clipped):
                bias = True
            elif step.name in _MOVES and self.chooses(step):
                (value,) = step.results
                continue
            else:
                break
            (value,) = step.results
            end = value
        return end, bias, clipped

    def adds_bias(self, step: Step, value: int, channels: int) -> bool:
        """Whether numbers are added that no input decides, no more of them than channels."""
        if step.name != "add":
            return False
        left, right = step.operands
        other = right if left == value else left
        if not isinstance(other, int) or other not in self.weight:
            return False
        return math.prod(self.flat.shape(self.spread.get(other, other))) <= channels


def _is_of_interest(inside: Any) -> bool:
    """Whether a call has a product or a lookup in it, or a gate, or but moves entries about."""
    found = operations(inside)
    names = {e.primitive.name for e in found}
    gate = {"add", "div"} <= names <= _GATES and bool(names & _CLIPS)
    alone = len(getattr(inside, "jaxpr", inside).invars) == 1
    found_one = any(map(_is_product, found)) or "gather" in names
    return found_one or names <= _MOVES or (gate and alone)


def _is_product(equation: Any) -> bool:
    return equation.primitive.name in ("conv_general_dilated", "dot_general")


def _clips(equation: Any) -> bool:
    """Whether an operation does nothing but cut its one operand off at written numbers."""
    operands = [v for v in equation.invars if not isinstance(v, core.Literal)]
    if len(operands) != 1 or len(equation.outvars) != 1:
        return False
    name = equation.primitive.name
    if name in _CLIPS:
        return True
    insides = [p for p in equation.params.values() if isinstance(p, core.ClosedJaxpr)]
    if name not in ("custom_jvp_call", "jit", "pjit") or len(insides) != 1:
        return False
    steps = operations(insides[0])
    # The bounds of a `clip` are converted and spread first.
    return any(s.primitive.name in _CLIPS for s in steps) and all(
        s.primitive.name in _CLIPS
        or (s.primitive.name in _SCALARS and not math.prod(np.shape(s.invars[0].aval)) > 1)
        for s in steps
    )


def _bounds(equation: Any) -> tuple[float, float]:
    """The written numbers that an operation cuts off at, infinite where there are none."""
    low, high = -math.inf, math.inf
    inside = [p for p in equation.params.values() if isinstance(p, core.ClosedJaxpr)]
    for step in operations(inside[0]) if inside else [equation]:
        numbers = [float(v.val) for v in step.invars if isinstance(v, core.Literal)]
        match step.primitive.name, numbers:
            case "max", [number]:
                low = max(low, number)
            case "min", [number]:
                high = min(high, number)
            case "clamp", [least, most]:
                low, high = max(low, least), min(high, most)
    return low, high
