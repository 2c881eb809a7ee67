"""What operations that sum over nothing do to axes: they keep them, move them, join or cut them.

A rule gives the axes of a result, ties those that stand and fall together, and freezes those of which
it keeps no track.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.shrink.labels import Labels, length_of
from kdjax.shrink.tracing_types import Operand, fixed, freeze, fresh

# fmt: off
ELEMENTWISE = frozenset([
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "cbrt", "ceil", "clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma",
    "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt",
    "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "ne", "neg", "nextafter", "not", "optimization_barrier", "or", "pow", "reduce_precision",
    "rem", "round", "rsqrt", "select_n", "sharding_constraint", "sign", "sin", "sinh", "sqrt",
    "square", "stop_gradient", "sub", "tan", "tanh", "xor",
])
MOVED = frozenset([
    "broadcast_in_dim", "convert_element_type", "copy", "copy_p", "expand_dims", "reshape",
    "squeeze", "stop_gradient", "transpose",
])
# fmt: on
WINDOWS = ("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum")
LENGTH_KEPT = ("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "rev", "sort")


def elementwise(labels: Labels, operands: list[Operand], shape: tuple[int, ...]) -> Operand:
    """Operands of one rank are tied axis by axis, but for axes of length 1; a scalar ties nothing."""
    full = [operand for operand in operands if len(operand.axes) == len(shape)]
    if not full:
        return fresh(labels, shape)
    axes = list(full[0].axes)
    for other in full[1:]:
        for i, axis in enumerate(other.axes):
            if length_of(axes[i]) == length_of(axis):
                labels.tie(axes[i], axis)
            elif length_of(axes[i]) == 1:
                axes[i] = axis
    return Operand(tuple(axes))


def changed(
    labels: Labels, name: str, params: Mapping[str, Any], operand: Operand, shape: tuple[int, ...]
) -> Operand:
    """Axes that nothing happens to are kept, all others are frozen on both sides."""
    found = []
    for i, (axis, length) in enumerate(zip(operand.axes, shape, strict=True)):
        places = (params.get("axis"), params.get("dimension"), *params.get("dimensions", ()))
        moved = (
            (name in LENGTH_KEPT and i in places)
            or params.get("window_dimensions", (1,) * len(shape))[i] != 1
            or any(params.get("padding", ((0, 0),) * len(shape))[i])
            or any(params.get("padding_config", ((0, 0, 0),) * len(shape))[i])
        )
        if length == length_of(axis) and not moved:
            found.append(axis)
            continue
        labels.freeze(axis, f"its length is changed, or its order used, by {name!r}")
        found.append(fixed(labels, (length,), f"made by {name!r}").axes[0])
    return Operand(tuple(found))


def counted(labels: Labels, dimension: int, shape: tuple[int, ...]) -> Operand:
    """Numbers that count along one axis, which is frozen."""
    axes = list(fresh(labels, shape).axes)
    axes[dimension] = fixed(
        labels, (shape[dimension],), "counted, or compared with what is counted"
    ).axes[0]
    return Operand(tuple(axes))


def transposed(operand: Operand, permutation: Sequence[int]) -> Operand:
    """The axes in another order."""
    return Operand(tuple(operand.axes[i] for i in permutation))


def squeezed(operand: Operand, dimensions: Sequence[int]) -> Operand:
    """Without these axes of length 1."""
    return Operand(tuple(axis for i, axis in enumerate(operand.axes) if i not in dimensions))


def expanded(operand: Operand, dimensions: Sequence[int]) -> Operand:
    """With axes of length 1 at these places."""
    axes = list(operand.axes)
    for dimension in sorted(dimensions):
        axes.insert(dimension, ())
    return Operand(tuple(axes))


def reduced(labels: Labels, operand: Operand, axes: Sequence[int]) -> Operand:
    """What is reduced is frozen, the other axes are kept."""
    for i in axes:
        labels.freeze(operand.axes[i], "reduced: a norm, a mean or a softmax over it")
    return Operand(tuple(axis for i, axis in enumerate(operand.axes) if i not in axes))


def broadcast(labels: Labels, operand: Operand, params: Mapping[str, Any]) -> Operand:
    """The axes of the operand are kept where it is told to put them, the others are new."""
    axes = list(fresh(labels, params["shape"]).axes)
    for axis, to in zip(operand.axes, params["broadcast_dimensions"], strict=True):
        if length_of(axis) == params["shape"][to]:
            axes[to] = axis
    return Operand(tuple(axes))


def reshape(labels: Labels, operand: Operand, shape: tuple[int, ...]) -> Operand:
    """Axes keep their factors; a vector that is cut is split."""
    found, pending = [], list(labels.factors(sum(operand.axes, ())))[::-1]
    for length in shape:
        factors, have = [], 1
        while have < length and pending:
            vector = pending.pop()
            want = length // have
            if len(vector) > want:
                if len(vector) % want or labels.factors((vector,)) != (vector,):
                    return _cut(labels, operand, shape)
                vector, rest = labels.split(vector, want)
                pending.append(rest)
            elif want % len(vector):
                return _cut(labels, operand, shape)
            factors.append(vector)
            have *= len(vector)
        found.append(tuple(factors))
    return Operand(tuple(found))


def _cut(labels: Labels, operand: Operand, shape: tuple[int, ...]) -> Operand:
    why = "a reshape cuts it in no regular way"
    freeze(labels, operand, why)
    return fixed(labels, shape, why)


def concatenate(
    labels: Labels, operands: list[Operand], dimension: int, shape: tuple[int, ...]
) -> Operand:
    """The parts of the joined axis stay apart; the other axes are tied."""
    axes = list(operands[0].axes)
    for other in operands[1:]:
        for i, (mine, its) in enumerate(zip(axes, other.axes, strict=True)):
            if i != dimension:
                labels.tie(mine, its)
    joined = []
    for operand in operands:
        axis = labels.factors(operand.axes[dimension])
        if len(axis) > 1:
            why = "joined with others though it has parts"
            for o in operands:
                labels.freeze(o.axes[dimension], why)
            axes[dimension] = fixed(labels, (shape[dimension],), why).axes[0]
            return Operand(tuple(axes))
        joined.append(axis[0] if axis else labels.new(1))
    axes[dimension] = (np.concatenate(joined),)
    return Operand(tuple(axes), parts=tuple(operands))


def split(labels: Labels, operand: Operand, at: int, sizes: Sequence[int]) -> list[Operand]:
    """Pieces of one length may lose what all of them lose; other pieces are frozen."""
    axis = labels.factors(operand.axes[at])
    why = "split at fixed places"
    if len(axis) != 1 or len(set(sizes)) != 1:
        labels.freeze(axis, why)
        pieces = [fixed(labels, (size,), why).axes[0] for size in sizes]
    else:
        pieces = [(part,) for part in np.split(axis[0], len(sizes))]
        labels.match(pieces, why)
    return [Operand((*operand.axes[:at], piece, *operand.axes[at + 1 :])) for piece in pieces]
