"""What is known of a value of a jaxpr, and of a product in it."""

import dataclasses
from collections.abc import Sequence

from kdjax.shrink.labels import Axis, Labels


@dataclasses.dataclass(frozen=True)
class Operand:
    """What is known of one value of the jaxpr.

    Attributes:
      axes: one for each of its dimensions.
      weight: it depends on the parameters alone, not on the input.
      product: number of the contraction that it is the result of, if nothing was done to it since.
      of: name of the parameter that it is, with its entries moved about at most.
      zeros: names of parameters that it is a multiple of: where such a one has nothing but zeros
        along one of its own axes, so has this.
      parts: what it is concatenated from.
    """

    axes: tuple[Axis, ...]
    weight: bool = False
    product: int | None = None
    of: str | None = None
    zeros: frozenset[str] = frozenset()
    parts: tuple["Operand", ...] = ()


def fresh(labels: Labels, shape: Sequence[int], *, weight: bool = False) -> Operand:
    """A value of which nothing is known yet."""
    return Operand(tuple(labels.axis(length) for length in shape), weight)


def fixed(labels: Labels, shape: Sequence[int], why: str, *, weight: bool = False) -> Operand:
    """A value whose shape is not the model's to change."""
    operand = fresh(labels, shape, weight=weight)
    freeze(labels, operand, why)
    return operand


def freeze(labels: Labels, operand: Operand, why: str) -> None:
    """No axis of it may change."""
    for axis in operand.axes:
        labels.freeze(axis, why)


@dataclasses.dataclass(frozen=True)
class Contraction:
    """A product of an activation with a parameter.

    Attributes:
      number: its place among all products outside of loops, in the order of the walk.
      name: of the parameter.
      operand: which operand is the activation, 0 or 1.
      activation_axes: of the activation, summed over.
      weight_axes: of the parameter, summed over, in the same order.
      out_axes: of the parameter, longer than 1, that the result has; neither summed over nor the
        sides of a window.
      uniform: every output sees every input through the same weights: a dense layer, or a
        convolution without padding.
    """

    number: int
    name: str
    operand: int
    activation_axes: tuple[int, ...]
    weight_axes: tuple[int, ...]
    out_axes: tuple[int, ...]
    uniform: bool


@dataclasses.dataclass(frozen=True)
class Shift:
    """What is added to the result of a contraction next: a bias, or a mean that is subtracted.

    Neither the result, nor the contraction's parameter, nor this variable is used anywhere else.

    Attributes:
      name: of the variable.
      sign: 1.0 where it is added, -1.0 where it is subtracted.
      axes: of the contraction's parameter, that the variable's axes longer than 1 run along; all of
        its `out_axes`.
    """

    name: str
    sign: float
    axes: tuple[int, ...]
