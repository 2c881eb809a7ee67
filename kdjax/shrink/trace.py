"""What the operations of a jaxpr tie: one rule for each kind of primitive.

A rule may tie axes only where taking an index away from all of them leaves the other values of the
function as they are. What a rule does not know, it freezes: a missing rule costs a chance to prune,
never a wrong result.
"""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend import core

from kdjax.jaxprs import inlined, loop_state
from kdjax.shrink.labels import Axis, Labels
from kdjax.shrink.operands import Contraction, Operand, Shift

# fmt: off
_ELEMENTWISE = frozenset([
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "cbrt", "ceil", "clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma",
    "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt",
    "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "ne", "neg", "nextafter", "not", "optimization_barrier", "or", "pow", "reduce_precision",
    "rem", "round", "rsqrt", "select_n", "sharding_constraint", "sign", "sin", "sinh", "sqrt",
    "square", "stop_gradient", "sub", "tan", "tanh", "xor",
])
_MOVED = frozenset([
    "broadcast_in_dim", "convert_element_type", "copy", "copy_p", "expand_dims", "reshape",
    "squeeze", "stop_gradient", "transpose",
])
# Zero where their only, or their first, operand is.
_ZERO_KEPT = frozenset([
    *_MOVED, "abs", "asin", "asinh", "atan", "cbrt", "ceil", "div", "erf", "expm1", "floor",
    "log1p", "neg", "reduce_precision", "rev", "round", "sign", "sin", "sinh", "sqrt", "square",
    "tan", "tanh",
])
# fmt: on
_WINDOWS = ("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum")
_LENGTH_KEPT = ("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "rev", "sort")


class Trace:
    """A walk through a jaxpr that ties what its operations tie.

    Attributes:
      labels: of all axes met.
      unknown: names of the primitives without a rule, with how often they were met.
      contractions: products of activations with parameters, outside of loops.
      shifts: of the contractions that have one, by their number.
      results: the axes of what each operation gives; those inside of a loop before its own.
      uses: how often a parameter, by name, or the result of a contraction, by number, is used; in
        the order of the first use.
      roles: of the axes of the parameters: `in` where they are summed over, `out` where they become
        the channels of a product.
    """

    def __init__(self):
        self.labels = Labels()
        self.unknown: dict[str, int] = {}
        self.contractions: list[Contraction] = []
        self.roles: dict[tuple[str, int], set[str]] = {}
        self.shifts: dict[int, Shift] = {}
        self.results: list[tuple[tuple[Axis, ...], ...]] = []
        self._owners: dict[int, tuple[str, int]] = {}
        self.uses: dict[str | int, int] = {}
        self._halves: list[tuple[tuple[Axis, ...], str]] = []
        self._products, self._loops = 0, 0

    def weight(self, name: str, shape: Sequence[int]) -> Operand:
        """A parameter: the axes whose groups are asked for."""
        axes = tuple(self.labels.axis(length) for length in shape)
        for number, axis in enumerate(axes):
            for vector in axis:
                self._owners[int(vector[0])] = (name, number)
        return Operand(axes, weight=True, of=name, zeros=frozenset([name]))

    def fixed(self, shape: Sequence[int], why: str, *, weight: bool = False) -> Operand:
        """A value whose shape is not the model's to change."""
        operand = self.fresh(shape, weight=weight)
        self.freeze(operand, why)
        return operand

    def fresh(self, shape: Sequence[int], *, weight: bool = False) -> Operand:
        """A value of which nothing is known yet."""
        return Operand(tuple(self.labels.axis(length) for length in shape), weight)

    def freeze(self, operand: Operand, why: str) -> None:
        """No axis of it may change."""
        for axis in operand.axes:
            self.labels.freeze(axis, why)

    def run(self, jaxpr: Any, operands: Sequence[Operand]) -> list[Operand]:
        """The outputs of an open or closed jaxpr."""
        known: dict[Any, Operand] = {}
        if hasattr(jaxpr, "consts"):
            jaxpr, consts = jaxpr.jaxpr, jaxpr.consts
            for variable, value in zip(jaxpr.constvars, consts, strict=True):
                known[variable] = self.fixed(
                    np.shape(value), "a constant of the model", weight=True
                )
        for variable, operand in zip(jaxpr.invars, operands, strict=True):
            known[variable] = operand

        def read(variable) -> Operand:
            if isinstance(variable, core.Literal):
                return self.fixed(np.shape(variable.val), "a constant of the model", weight=True)
            return known[variable]

        for equation in jaxpr.eqns:
            operands = [read(v) for v in equation.invars]
            if (inside := inlined(equation)) is not None:
                found = self.run(inside, operands)
            else:
                self._count(equation, operands)
                found = self._equation(equation, operands)
                self.results.append(tuple(operand.axes for operand in found))
            weight = all(operand.weight for operand in operands)
            of = operands[0].of if equation.primitive.name in _MOVED else None
            zeros = _zeros(equation, operands)
            for variable, operand in zip(equation.outvars, found, strict=True):
                known[variable] = dataclasses.replace(
                    operand, weight=weight, of=operand.of or of, zeros=operand.zeros or zeros
                )
        return [read(v) for v in jaxpr.outvars]

    def _count(self, equation: Any, operands: list[Operand]) -> None:
        moved = equation.primitive.name in _MOVED
        for operand in operands:
            if operand.of is not None and not moved:
                self.uses[operand.of] = self.uses.get(operand.of, 0) + 1
            if operand.product is not None and equation.primitive.name != "convert_element_type":
                self.uses[operand.product] = self.uses.get(operand.product, 0) + 1

    def finish(self, outputs: Sequence[Operand]) -> None:
        """Freezes the outputs; pieces cut at fixed places may lose only what all of them lose."""
        for output in outputs:
            self.freeze(output, "an output of the model")
            for used in (output.of, output.product):
                if used is not None:
                    self.uses[used] = self.uses.get(used, 0) + 1
        for pieces, why in self._halves:
            roots = [np.concatenate([self.labels.roots(v) for v in axis]) for axis in pieces]
            if any(not np.array_equal(found, roots[0]) for found in roots[1:]):
                for axis in pieces:
                    self.labels.freeze(axis, why)
        self.labels.settle()
        names = {contraction.number: contraction.name for contraction in self.contractions}
        self.shifts = {
            number: shift
            for number, shift in self.shifts.items()
            if all(self.uses[used] == 1 for used in (number, names[number], shift.name))
        }
        # A parameter that is also used in another way, such as in a loop, has readers unknown.
        known = collections.Counter(names.values())
        self.contractions = [c for c in self.contractions if self.uses[c.name] == known[c.name]]

    def _equation(self, equation: Any, operands: list[Operand]) -> list[Operand]:
        name, params = equation.primitive.name, equation.params
        shapes = [variable.aval.shape for variable in equation.outvars]
        if name in _ELEMENTWISE:
            if name in ("add", "sub"):
                self._shift(name, operands)
            found = [self._elementwise(operands, shape) for shape in shapes]
            if name == "convert_element_type":
                (whole,) = operands
                found = [dataclasses.replace(f, product=whole.product) for f in found]
            return found
        if name == "empty":
            return [self.fresh(shape) for shape in shapes]
        if name == "iota":
            axes = list(self.fresh(shapes[0]).axes)
            axes[params["dimension"]] = self.fixed(
                (shapes[0][params["dimension"]],), "counted, or compared with what is counted"
            ).axes[0]
            return [Operand(tuple(axes))]
        if name in _WINDOWS or name in _LENGTH_KEPT or name in ("pad", "slice", "dynamic_slice"):
            whole = self._elementwise(operands[: len(shapes)], equation.invars[0].aval.shape)
            return [self._changed(name, params, whole, shape) for shape in shapes]
        if (name.startswith("reduce_") and "axes" in params) or name in ("argmax", "argmin"):
            return [self._reduced(operand, params["axes"]) for operand in operands[: len(shapes)]]
        match name:
            case "scan":
                return self._scan(params, operands)
            case "cond":
                return self._cond(params, operands)
            case "broadcast_in_dim":
                return [self._broadcast(operands[0], params)]
            case "transpose":
                return [Operand(tuple(operands[0].axes[i] for i in params["permutation"]))]
            case "squeeze":
                kept = enumerate(operands[0].axes)
                return [Operand(tuple(a for i, a in kept if i not in params["dimensions"]))]
            case "expand_dims":
                axes = list(operands[0].axes)
                for dimension in sorted(params["dimensions"]):
                    axes.insert(dimension, ())
                return [Operand(tuple(axes))]
            case "reshape":
                return [self._reshape(operands[0], shapes[0])]
            case "concatenate":
                return [self._concatenate(operands, int(params["dimension"]), shapes[0])]
            case "split":
                sizes = [int(size) for size in params["sizes"]]
                return self._split(operands[0], params["axis"], sizes)
            case "dot_general":
                return [self._dot(operands, params)]
            case "conv_general_dilated":
                return [self._conv(equation, operands, params)]
            case "gather":
                return [self._gather(equation, operands, params)]
        self.unknown[name] = self.unknown.get(name, 0) + 1
        why = f"no rule for the operation {name!r}"
        for operand in operands:
            self.freeze(operand, why)
        return [self.fixed(shape, why) for shape in shapes]

    def _elementwise(self, operands: list[Operand], shape: tuple[int, ...]) -> Operand:
        full = [operand for operand in operands if len(operand.axes) == len(shape)]
        if not full:
            return self.fresh(shape)
        axes = list(full[0].axes)
        for other in full[1:]:
            for i, axis in enumerate(other.axes):
                if _length(axes[i]) == _length(axis):
                    self.labels.tie(axes[i], axis)
                elif _length(axes[i]) == 1:
                    axes[i] = axis
        return Operand(tuple(axes))

    def _changed(
        self, name: str, params: Mapping[str, Any], operand: Operand, shape: tuple[int, ...]
    ) -> Operand:
        """Axes that nothing happens to are kept, all others are frozen on both sides."""
        found = []
        for i, (axis, length) in enumerate(zip(operand.axes, shape, strict=True)):
            places = (params.get("axis"), params.get("dimension"), *params.get("dimensions", ()))
            moved = (
                (name in _LENGTH_KEPT and i in places)
                or params.get("window_dimensions", (1,) * len(shape))[i] != 1
                or any(params.get("padding", ((0, 0),) * len(shape))[i])
                or any(params.get("padding_config", ((0, 0, 0),) * len(shape))[i])
            )
            if length == _length(axis) and not moved:
                found.append(axis)
                continue
            self.labels.freeze(axis, f"its length is changed, or its order used, by {name!r}")
            found.append(self.fixed((length,), f"made by {name!r}").axes[0])
        return Operand(tuple(found))

    def _reduced(self, operand: Operand, axes: Sequence[int]) -> Operand:
        for i in axes:
            self.labels.freeze(operand.axes[i], "reduced: a norm, a mean or a softmax over it")
        return Operand(tuple(axis for i, axis in enumerate(operand.axes) if i not in axes))

    def _broadcast(self, operand: Operand, params: Mapping[str, Any]) -> Operand:
        axes = list(self.fresh(params["shape"]).axes)
        for axis, to in zip(operand.axes, params["broadcast_dimensions"], strict=True):
            if _length(axis) == params["shape"][to]:
                axes[to] = axis
        return Operand(tuple(axes))

    def _reshape(self, operand: Operand, shape: tuple[int, ...]) -> Operand:
        """Axes keep their factors; a vector that is cut is split."""
        found, pending = [], list(self.labels.factors(sum(operand.axes, ())))[::-1]
        for length in shape:
            factors, have = [], 1
            while have < length and pending:
                vector = pending.pop()
                want = length // have
                if len(vector) > want:
                    if len(vector) % want or self.labels.factors((vector,)) != (vector,):
                        return self._cut(operand, shape)
                    vector, rest = self.labels.split(vector, want)
                    pending.append(rest)
                elif want % len(vector):
                    return self._cut(operand, shape)
                factors.append(vector)
                have *= len(vector)
            found.append(tuple(factors))
        return Operand(tuple(found))

    def _cut(self, operand: Operand, shape: tuple[int, ...]) -> Operand:
        why = "a reshape cuts it in no regular way"
        self.freeze(operand, why)
        return self.fixed(shape, why)

    def _concatenate(
        self, operands: list[Operand], dimension: int, shape: tuple[int, ...]
    ) -> Operand:
        axes = list(operands[0].axes)
        for other in operands[1:]:
            for i, (mine, its) in enumerate(zip(axes, other.axes, strict=True)):
                if i != dimension:
                    self.labels.tie(mine, its)
        joined = []
        for operand in operands:
            axis = self.labels.factors(operand.axes[dimension])
            if len(axis) > 1:
                why = "joined with others though it has parts"
                for o in operands:
                    self.labels.freeze(o.axes[dimension], why)
                axes[dimension] = self.fixed((shape[dimension],), why).axes[0]
                return Operand(tuple(axes))
            joined.append(axis[0] if axis else self.labels.new(1))
        axes[dimension] = (np.concatenate(joined),)
        return Operand(tuple(axes), parts=tuple(operands))

    def _split(self, operand: Operand, at: int, sizes: Sequence[int]) -> list[Operand]:
        axis = self.labels.factors(operand.axes[at])
        why = "split at fixed places"
        if len(axis) != 1 or len(set(sizes)) != 1:
            self.labels.freeze(axis, why)
            pieces = [self.fixed((size,), why).axes[0] for size in sizes]
        else:
            pieces = [(part,) for part in np.split(axis[0], len(sizes))]
            self._halves.append((tuple(pieces), why))
        return [Operand((*operand.axes[:at], piece, *operand.axes[at + 1 :])) for piece in pieces]

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
        self._loops += 1
        found = self.run(params["jaxpr"], inside)
        self._loops -= 1
        after, stacked = found[:carry], found[carry:]
        for before, now in zip(operands[carried], after, strict=True):
            for mine, its in zip(before.axes, now.axes, strict=True):
                self.labels.tie(mine, its)
        steps = self.fixed((params["length"],), "the steps of a loop").axes
        return [*after, *(Operand((*steps, *operand.axes)) for operand in stacked)]

    def _cond(self, params: Mapping[str, Any], operands: list[Operand]) -> list[Operand]:
        self._loops += 1
        first, *others = (self.run(branch, operands[1:]) for branch in params["branches"])
        self._loops -= 1
        for found in others:
            for mine, its in zip(first, found, strict=True):
                for a, b in zip(mine.axes, its.axes, strict=True):
                    self.labels.tie(a, b)
        return first

    def _dot(self, operands: list[Operand], params: Mapping[str, Any]) -> Operand:
        (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
        left, right = operands
        for a, b in (
            *zip(left_sum, right_sum, strict=True),
            *zip(left_batch, right_batch, strict=True),
        ):
            self.labels.tie(left.axes[a], right.axes[b])
        free = [
            [i for i in range(len(o.axes)) if i not in (*summed, *batch)]
            for o, summed, batch in ((left, left_sum, left_batch), (right, right_sum, right_batch))
        ]
        number = self._product(
            operands,
            [tuple(left_sum), tuple(right_sum)],
            [(*left_batch, *free[0]), (*right_batch, *free[1])],
            uniform=True,
        )
        for operand, mine in zip(operands, free, strict=True):
            self._role(operand, mine, "out")
        axes = [left.axes[i] for i in (*left_batch, *free[0])] + [right.axes[i] for i in free[1]]
        return Operand(tuple(axes), product=number)

    def _product(
        self,
        operands: list[Operand],
        summed: list[tuple[int, ...]],
        outputs: list[tuple[int, ...]],
        *,
        uniform: bool,
    ) -> int | None:
        """Notes who sums over what, and returns its number; between activations nothing may fall."""
        if not self._loops:
            self._products += 1
        weights = [i for i, operand in enumerate(operands) if operand.weight]
        if len(weights) != 1:
            if not weights:
                for operand, axes in zip(operands, summed, strict=True):
                    for i in axes:
                        self.labels.freeze(operand.axes[i], "summed over between two activations")
            return None
        (weight,) = weights
        kernel = operands[weight]
        self._role(kernel, summed[weight], "in")
        owners = [self._owner(kernel.axes[i]) for i in summed[weight]]
        places = [o for o in owners if o is not None and o[0] == kernel.of]
        if kernel.of is None or not places or len(places) < len(owners) or self._loops:
            return None
        out = [self._owner(kernel.axes[i]) for i in outputs[weight]]
        self.contractions.append(
            Contraction(
                number=self._products - 1,
                name=kernel.of,
                operand=1 - weight,
                activation_axes=summed[1 - weight],
                weight_axes=tuple(axis for _, axis in places),
                out_axes=tuple(sorted(owner[1] for owner in out if owner is not None)),
                uniform=uniform,
            )
        )
        return self._products - 1

    def _shift(self, name: str, operands: list[Operand]) -> None:
        """Notes a bias that is added to a product, or a mean that is subtracted from it."""
        for i, (product, other) in enumerate(zip(operands, reversed(operands), strict=True)):
            if product.product is None or other.of is None or (name == "sub" and i == 1):
                continue
            along = {}
            for mine, its in zip(product.axes, other.axes, strict=True):
                if (owner := self._owner(its)) is not None:
                    along[owner[1]] = self._owner(mine)
            ordered = [along[axis] for axis in sorted(along)]
            axes = tuple(owner[1] for owner in ordered if owner is not None)
            (contraction,) = (c for c in self.contractions if c.number == product.product)
            whole = all(owner is not None and owner[0] == contraction.name for owner in ordered)
            if whole and tuple(sorted(axes)) == contraction.out_axes:
                sign = 1.0 if name == "add" else -1.0
                self.shifts[product.product] = Shift(other.of, sign, axes)

    def _owner(self, axis: Axis) -> tuple[str, int] | None:
        """The parameter's axis that this one is as it stands."""
        return self._owners.get(int(axis[0][0])) if len(axis) == 1 else None

    def _role(self, operand: Operand, axes: Sequence[int], role: str) -> None:
        """Notes the role of a parameter's axes; whether a unit is masked must be seen in them."""
        if not operand.weight:
            return
        for part in operand.parts:
            self._role(part, axes, role)
        if not operand.parts:
            for i in axes:
                owner = self._owner(operand.axes[i])
                if owner is not None and owner[0] in operand.zeros:
                    self.roles.setdefault(owner, set()).add(role)
                else:
                    why = "in a product in which the zeros of a parameter do not show"
                    self.labels.freeze(operand.axes[i], why)

    def _conv(self, equation: Any, operands: list[Operand], params: Mapping[str, Any]) -> Operand:
        left, kernel = operands
        numbers, groups = params["dimension_numbers"], params["feature_group_count"]
        (batch, channel, *_), (out, into, *_) = numbers.lhs_spec, numbers.rhs_spec
        axes = list(self.fixed(equation.outvars[0].aval.shape, "the image's side").axes)
        axes[numbers.out_spec[0]] = left.axes[batch]
        axes[numbers.out_spec[1]] = kernel.axes[out]
        for i in numbers.lhs_spec[2:]:
            self.labels.freeze(left.axes[i], "the image's side")
        for i in numbers.rhs_spec[2:]:
            self.labels.freeze(kernel.axes[i], "a kernel's side")
        self._role(kernel, [out], "out")
        if params["batch_group_count"] != 1:
            why = "a convolution in groups of the batch"
            for axis in (left.axes[channel], kernel.axes[out], kernel.axes[into]):
                self.labels.freeze(axis, why)
        elif groups == 1:
            self.labels.tie(left.axes[channel], kernel.axes[into])
            padded = any(p != (0, 0) for p in params["padding"])
            holes = any(d != 1 for d in params["lhs_dilation"])
            number = self._product(
                operands, [(channel,), (into,)], [(), (out,)], uniform=not (padded or holes)
            )
            return Operand(tuple(axes), product=number)
        else:
            # Groups of channels: the inputs are (group, channel of it), and so are the outputs.
            group = self.labels.axis(groups)
            outs = self.labels.axis(_length(kernel.axes[out]) // groups)
            self.labels.tie(left.axes[channel], (*group, *kernel.axes[into]))
            self.labels.tie(kernel.axes[out], (*group, *outs))
            self._role(kernel, [into], "in")
        return Operand(tuple(axes))

    def _gather(self, equation: Any, operands: list[Operand], params: Mapping[str, Any]) -> Operand:
        operand, indices = operands
        self.freeze(indices, "indices to look up")
        numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
        axes = list(self.fixed(equation.outvars[0].aval.shape, "looked up").axes)
        gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
        offsets = iter(numbers.offset_dims)
        for i, size in enumerate(sizes):
            if i in gone:
                self.labels.freeze(operand.axes[i], "looked up by index")
                continue
            to = next(offsets)
            if size == _length(operand.axes[i]):
                axes[to] = operand.axes[i]
                self._role(operand, [i], "out")
            else:
                self.labels.freeze(operand.axes[i], "looked up by index")
        return Operand(tuple(axes))


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


def _length(axis: Axis) -> int:
    return math.prod(len(vector) for vector in axis)
