"""What a jaxpr makes of its parameters: products with them, what is added to these, and looked up rows.

Here a group of units ends, and the next begins: the axes that a product sums over are read by it, the
other axes of its parameter are made.
"""

import collections
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdjax.shrink.axes import MOVED
from kdjax.shrink.labels import Axis, Labels, length_of
from kdjax.shrink.tracing_types import Contraction, Operand, Shift, fixed, freeze


class Products:
    """The products of a jaxpr with its parameters.

    Attributes:
      labels: of all axes met.
      contractions: products of activations with parameters, outside of loops.
      shifts: of the contractions that have one, by their number.
      uses: how often a parameter, by name, or the result of a contraction, by number, is used; in
        the order of the first use.
      roles: of the axes of the parameters: `in` where they are summed over, `out` where they become
        the channels of a product.
    """

    def __init__(self, labels: Labels):
        self.labels = labels
        self.contractions: list[Contraction] = []
        self.shifts: dict[int, Shift] = {}
        self.uses: dict[str | int, int] = {}
        self.roles: dict[tuple[str, int], set[str]] = {}
        self._owners: dict[int, tuple[str, int]] = {}
        self._count, self._loops = 0, 0

    def parameter(self, name: str, shape: Sequence[int]) -> Operand:
        """A parameter: the axes whose groups are asked for."""
        axes = tuple(self.labels.axis(length) for length in shape)
        for number, axis in enumerate(axes):
            for vector in axis:
                self._owners[int(vector[0])] = (name, number)
        return Operand(axes, weight=True, of=name, zeros=frozenset([name]))

    @contextlib.contextmanager
    def inside_loop(self) -> Iterator[None]:
        """While what a loop or a branch does is followed: of its products none is a contraction."""
        self._loops += 1
        try:
            yield
        finally:
            self._loops -= 1

    def count(self, equation: Any, operands: Sequence[Operand]) -> None:
        """Counts what an operation uses."""
        moved = equation.primitive.name in MOVED
        for operand in operands:
            if operand.of is not None and not moved:
                self._use(operand.of)
            if operand.product is not None and equation.primitive.name != "convert_element_type":
                self._use(operand.product)

    def finish(self, outputs: Sequence[Operand]) -> None:
        """Counts what the outputs use, and leaves out what is also used in a way unknown."""
        for output in outputs:
            for used in (output.of, output.product):
                if used is not None:
                    self._use(used)
        names = {contraction.number: contraction.name for contraction in self.contractions}
        self.shifts = {
            number: shift
            for number, shift in self.shifts.items()
            if all(self.uses[used] == 1 for used in (number, names[number], shift.name))
        }
        # A parameter that is also used in another way, such as in a loop, has readers unknown.
        known = collections.Counter(names.values())
        self.contractions = [c for c in self.contractions if self.uses[c.name] == known[c.name]]

    def _use(self, used: str | int) -> None:
        self.uses[used] = self.uses.get(used, 0) + 1

    def dot(self, operands: list[Operand], params: Mapping[str, Any]) -> Operand:
        """The result of a `dot_general`; what is summed over together, or paired, is tied."""
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
        number = self._noted(
            operands,
            [tuple(left_sum), tuple(right_sum)],
            [(*left_batch, *free[0]), (*right_batch, *free[1])],
            uniform=True,
        )
        for operand, mine in zip(operands, free, strict=True):
            self._role(operand, mine, "out")
        axes = [left.axes[i] for i in (*left_batch, *free[0])] + [right.axes[i] for i in free[1]]
        return Operand(tuple(axes), product=number)

    def conv(self, equation: Any, operands: list[Operand], params: Mapping[str, Any]) -> Operand:
        """The result of a convolution; the channels are those of its kernel, the sides are frozen."""
        left, kernel = operands
        numbers, groups = params["dimension_numbers"], params["feature_group_count"]
        (batch, channel, *_), (out, into, *_) = numbers.lhs_spec, numbers.rhs_spec
        axes = list(fixed(self.labels, equation.outvars[0].aval.shape, "the image's side").axes)
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
            number = self._noted(
                operands, [(channel,), (into,)], [(), (out,)], uniform=not (padded or holes)
            )
            return Operand(tuple(axes), product=number)
        else:
            # Groups of channels: the inputs are (group, channel of it), and so are the outputs.
            group = self.labels.axis(groups)
            outs = self.labels.axis(length_of(kernel.axes[out]) // groups)
            self.labels.tie(left.axes[channel], (*group, *kernel.axes[into]))
            self.labels.tie(kernel.axes[out], (*group, *outs))
            self._role(kernel, [into], "in")
        return Operand(tuple(axes))

    def gather(self, equation: Any, operands: list[Operand], params: Mapping[str, Any]) -> Operand:
        """What is looked up, such as an embedding: axes that are taken whole are kept."""
        operand, indices = operands
        freeze(self.labels, indices, "indices to look up")
        numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
        axes = list(fixed(self.labels, equation.outvars[0].aval.shape, "looked up").axes)
        gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
        offsets = iter(numbers.offset_dims)
        for i, size in enumerate(sizes):
            if i in gone:
                self.labels.freeze(operand.axes[i], "looked up by index")
                continue
            to = next(offsets)
            if size == length_of(operand.axes[i]):
                axes[to] = operand.axes[i]
                self._role(operand, [i], "out")
            else:
                self.labels.freeze(operand.axes[i], "looked up by index")
        return Operand(tuple(axes))

    def shift(self, name: str, operands: list[Operand]) -> None:
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

    def _noted(
        self,
        operands: list[Operand],
        summed: list[tuple[int, ...]],
        outputs: list[tuple[int, ...]],
        *,
        uniform: bool,
    ) -> int | None:
        """Notes who sums over what, and returns its number; between activations nothing may fall."""
        if not self._loops:
            self._count += 1
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
                number=self._count - 1,
                name=kernel.of,
                operand=1 - weight,
                activation_axes=summed[1 - weight],
                weight_axes=tuple(axis for _, axis in places),
                out_axes=tuple(sorted(owner[1] for owner in out if owner is not None)),
                uniform=uniform,
            )
        )
        return self._count - 1

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
