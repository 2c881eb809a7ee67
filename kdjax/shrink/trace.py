"""A walk through a jaxpr that ties what its operations tie: a rule for each kind of primitive.

A rule may tie axes only where taking an index away from all of them leaves the other values of the
function as they are. What a rule does not know, it freezes: a missing rule costs a chance to prune,
never a wrong result. The rules are in `kdjax.shrink.axes` and `kdjax.shrink.products`; those of loops and
branches are here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend import core

from kdjax.jaxprs import inlined, loop_state
from kdjax.shrink import axes
from kdjax.shrink.labels import Axis, Labels
from kdjax.shrink.products import Products
from kdjax.shrink.tracing_types import Operand, fixed, freeze, fresh

# fmt: off
# Zero where their only, or their first, operand is.
_ZERO_KEPT = frozenset([
    *axes.MOVED, "abs", "asin", "asinh", "atan", "cbrt", "ceil", "div", "erf", "expm1", "floor",
    "log1p", "neg", "reduce_precision", "rev", "round", "sign", "sin", "sinh", "sqrt", "square",
    "tan", "tanh",
])
# fmt: on


class Trace:
    """A walk through a jaxpr.

    Attributes:
      labels: of all axes met.
      products: of the parameters.
      unknown: names of the primitives without a rule, with how often they were met.
      results: the axes of what each operation gives; those inside of a loop before its own.
    """

    def __init__(self):
        self.labels = Labels()
        self.products = Products(self.labels)
        self.unknown: dict[str, int] = {}
        self.results: list[tuple[tuple[Axis, ...], ...]] = []

    def run(self, jaxpr: Any, operands: Sequence[Operand]) -> list[Operand]:
        """The outputs of an open or closed jaxpr."""
        known: dict[Any, Operand] = {}
        if hasattr(jaxpr, "consts"):
            jaxpr, consts = jaxpr.jaxpr, jaxpr.consts
            for variable, value in zip(jaxpr.constvars, consts, strict=True):
                known[variable] = fixed(
                    self.labels, np.shape(value), "a constant of the model", weight=True
                )
        for variable, operand in zip(jaxpr.invars, operands, strict=True):
            known[variable] = operand

        def read(variable) -> Operand:
            if isinstance(variable, core.Literal):
                return fixed(
                    self.labels, np.shape(variable.val), "a constant of the model", weight=True
                )
            return known[variable]

        for equation in jaxpr.eqns:
            operands = [read(v) for v in equation.invars]
            if (inside := inlined(equation)) is not None:
                found = self.run(inside, operands)
            else:
                self.products.count(equation, operands)
                found = self._equation(equation, operands)
                self.results.append(tuple(operand.axes for operand in found))
            weight = all(operand.weight for operand in operands)
            of = operands[0].of if equation.primitive.name in axes.MOVED else None
            zeros = _zeros(equation, operands)
            for variable, operand in zip(equation.outvars, found, strict=True):
                known[variable] = dataclasses.replace(
                    operand, weight=weight, of=operand.of or of, zeros=operand.zeros or zeros
                )
        return [read(v) for v in jaxpr.outvars]

    def finish(self, outputs: Sequence[Operand]) -> None:
        """To be called with what the whole jaxpr gives, which is frozen."""
        for output in outputs:
            freeze(self.labels, output, "an output of the model")
        self.products.finish(outputs)
        self.labels.settle()

    def _equation(self, equation: Any, operands: list[Operand]) -> list[Operand]:
        name, params = equation.primitive.name, equation.params
        shapes = [variable.aval.shape for variable in equation.outvars]
        if name in axes.ELEMENTWISE:
            if name in ("add", "sub"):
                self.products.shift(name, operands)
            found = [axes.elementwise(self.labels, operands, shape) for shape in shapes]
            if name == "convert_element_type":
                (whole,) = operands
                found = [dataclasses.replace(f, product=whole.product) for f in found]
            return found
        if name == "empty":
            return [fresh(self.labels, shape) for shape in shapes]
        if (
            name in axes.WINDOWS
            or name in axes.LENGTH_KEPT
            or name in ("pad", "slice", "dynamic_slice")
        ):
            before = equation.invars[0].aval.shape
            whole = axes.elementwise(self.labels, operands[: len(shapes)], before)
            return [axes.changed(self.labels, name, params, whole, shape) for shape in shapes]
        if (name.startswith("reduce_") and "axes" in params) or name in ("argmax", "argmin"):
            several = operands[: len(shapes)]
            return [axes.reduced(self.labels, operand, params["axes"]) for operand in several]
        match name:
            case "scan":
                return self._scan(params, operands)
            case "cond":
                return self._cond(params, operands)
            case "iota":
                return [axes.counted(self.labels, params["dimension"], shapes[0])]
            case "broadcast_in_dim":
                return [axes.broadcast(self.labels, operands[0], params)]
            case "transpose":
                return [axes.transposed(operands[0], params["permutation"])]
            case "squeeze":
                return [axes.squeezed(operands[0], params["dimensions"])]
            case "expand_dims":
                return [axes.expanded(operands[0], params["dimensions"])]
            case "reshape":
                return [axes.reshape(self.labels, operands[0], shapes[0])]
            case "concatenate":
                at = int(params["dimension"])
                return [axes.concatenate(self.labels, operands, at, shapes[0])]
            case "split":
                sizes = [int(size) for size in params["sizes"]]
                return axes.split(self.labels, operands[0], params["axis"], sizes)
            case "dot_general":
                return [self.products.dot(operands, params)]
            case "conv_general_dilated":
                return [self.products.conv(equation, operands, params)]
            case "gather":
                return [self.products.gather(equation, operands, params)]
        self.unknown[name] = self.unknown.get(name, 0) + 1
        why = f"no rule for the operation {name!r}"
        for operand in operands:
            freeze(self.labels, operand, why)
        return [fixed(self.labels, shape, why) for shape in shapes]

    def _scan(self, params: Mapping[str, Any], operands: list[Operand]) -> list[Operand]:
        consts, carry = loop_state(params)
        carried = slice(consts, consts + carry)
        inside = [
            operand
            if i < carried.stop
            else Operand(operand.axes[1:], operand.weight, zeros=operand.zeros)
            for i, operand in enumerate(operands)
        ]
        # What begins as a constant is none any more after the first step.
        inside[carried] = [Operand(operand.axes) for operand in inside[carried]]
        for operand in operands[carried.stop :]:
            self.labels.freeze(operand.axes[0], "the steps of a loop")
        with self.products.inside_loop():
            found = self.run(params["jaxpr"], inside)
        after, stacked = found[:carry], found[carry:]
        for before, now in zip(operands[carried], after, strict=True):
            for mine, its in zip(before.axes, now.axes, strict=True):
                self.labels.tie(mine, its)
        steps = fixed(self.labels, (params["length"],), "the steps of a loop").axes
        return [*after, *(Operand((*steps, *operand.axes)) for operand in stacked)]

    def _cond(self, params: Mapping[str, Any], operands: list[Operand]) -> list[Operand]:
        with self.products.inside_loop():
            first, *others = (self.run(branch, operands[1:]) for branch in params["branches"])
        for found in others:
            for mine, its in zip(first, found, strict=True):
                for a, b in zip(mine.axes, its.axes, strict=True):
                    self.labels.tie(a, b)
        return first


def _zeros(equation: Any, operands: Sequence[Operand]) -> frozenset[str]:
    """Of `Operand.zeros`, what is left of it after an operation."""
    every = [operand.zeros for operand in operands]
    match equation.primitive.name:
        case "mul" | "dot_general":
            return frozenset().union(*every)
        case "add" | "sub" | "add_any" | "max" | "min":
            # Not `w + w.T`: what is zero in a row of the one may not be so in that of the other.
            alike = len({tuple(tuple(map(bytes, axis)) for axis in o.axes) for o in operands}) == 1
            return every[0].intersection(*every[1:]) if alike else frozenset()
        case "integer_pow":
            return every[0] if equation.params["y"] > 0 else frozenset()
        case name:
            return every[0] if name in _ZERO_KEPT else frozenset()
