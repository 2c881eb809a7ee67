"""What a model does, operation by operation, and which shapes it must have at other widths.

A model's code may take widths that it was not written for without complaint and mean something else:
`x.reshape(batch, 4, -1)` finds four heads in what is left of three. So the narrowed model's own jaxpr
is compared with the first one: the same operations with the same numbers in the same order, of the same
operands, and each result of just the shape that the labels leave of it.
"""

import dataclasses
import itertools
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import dtypes
from jax.extend import core
from jaxtyping import Bool

from kdjax.jaxprs import inlined, is_followed
from kdjax.shrink.labels import Axis, Labels, Vector

# Settings of operations that follow the shapes of their operands.
_FOLLOWING = ("feature_group_count", "limit_indices", "new_sizes", "shape", "sizes", "slice_sizes")

Source: TypeAlias = tuple
"""Where a value comes from: an operation's number and which result of it, or the value itself."""


class Factor(NamedTuple):
    """A factor of an axis.

    Attributes:
      length: of it.
      falls: by group, positions and which unit of the group each falls with.
    """

    length: int
    falls: Mapping[str, tuple[Vector, Vector]]

    def left(self, kept: Mapping[str, Bool[np.ndarray, "_"]]) -> int:
        """How much of it is left."""
        mask = np.ones(self.length, bool)
        for name, (positions, units) in self.falls.items():
            if name in kept:
                mask[positions[~kept[name][units]]] = False
        return int(mask.sum())


class Step(NamedTuple):
    """An operation.

    Attributes:
      name: of the primitive.
      numbers: its settings and the numbers in it, but for shapes.
      sources: of its operands.
      shapes: of its results, each axis as the numbers of its factors.
    """

    name: str
    numbers: tuple
    sources: tuple[Source, ...]
    shapes: tuple[tuple[tuple[int, ...], ...], ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a model does.

    Attributes:
      steps: its operations in order, but for broadcasts, which come and go with axes of length 1.
      factors: of the axes of all results.
      outputs: sources of what the model gives.
    """

    steps: tuple[Step, ...]
    factors: tuple[Factor, ...]
    outputs: tuple[Source, ...]

    def fault(self, jaxpr: Any, kept: Mapping[str, Bool[np.ndarray, "_"]]) -> str | None:
        """How a narrowed model does something else, None where it does the same."""
        found, outputs = _followed(jaxpr)
        found = [step for step in found if _counts(step[0])]
        if len(found) != len(self.steps):
            return f"it has {len(found)} operations instead of {len(self.steps)}"
        left = [factor.left(kept) for factor in self.factors]
        for step, (equation, sources) in zip(self.steps, found, strict=True):
            name = equation.primitive.name
            if name != step.name:
                return f"it has {name!r} where {step.name!r} was"
            shapes = [
                tuple(math.prod(left[factor] for factor in axis) for axis in shape)
                for shape in step.shapes
            ]
            given = [variable.aval.shape for variable in equation.outvars]
            if given != shapes:
                return f"its {name!r} gives {given} where {shapes} is left"
            if _numbers(equation) != step.numbers:
                return f"its {name!r} has other numbers in it"
            if sources != step.sources:
                return f"its {name!r} is of something else"
        if outputs != self.outputs:
            return "it gives something else"
        return None


def plan(
    jaxpr: Any,
    results: Sequence[tuple[tuple[Axis, ...], ...]],
    units: Mapping[int, tuple[str, int]],
    labels: Labels,
) -> Plan:
    """The plan of a model that a `Trace` has followed and settled.

    Args:
      jaxpr: of the model.
      results: the axes of its operations' results.
      units: the group and the number in it of each label that may fall.
      labels: of the trace.
    """
    numbers: dict[bytes, int] = {}
    factors: list[Factor] = []

    def number(vector) -> int:
        roots = labels.roots(vector)
        if (key := roots.tobytes()) not in numbers:
            numbers[key] = len(factors)
            falls: dict[str, list[tuple[int, int]]] = {}
            for position, tied in enumerate(labels.units(roots)):
                for label in tied:
                    if label in units:
                        name, unit = units[label]
                        falls.setdefault(name, []).append((position, unit))
            arrays = {name: np.array(pairs).T for name, pairs in falls.items()}
            factors.append(Factor(len(vector), {n: (a[0], a[1]) for n, a in arrays.items()}))
        return numbers[key]

    found, outputs = _followed(jaxpr)
    steps = [
        Step(
            equation.primitive.name,
            _numbers(equation),
            sources,
            tuple(tuple(tuple(map(number, axis)) for axis in axes) for axes in of_results),
        )
        for (equation, sources), of_results in zip(found, results, strict=True)
        if _counts(equation)
    ]
    return Plan(tuple(steps), tuple(factors), outputs)


def _followed(jaxpr: Any) -> tuple[list[tuple[Any, tuple[Source, ...]]], tuple[Source, ...]]:
    """Operations in the order of `Trace.results`, the sources of their operands and of the outputs."""
    steps: list[tuple[Any, tuple[Source, ...]]] = []
    walk = _walk(jaxpr, [("input", i) for i in range(len(_open(jaxpr).invars))], itertools.count())
    while True:
        try:
            steps.append(next(walk))
        except StopIteration as end:
            return steps, tuple(end.value)


def _walk(
    jaxpr: Any, given: Sequence[Source], places: Iterator[int]
) -> Generator[tuple[Any, tuple[Source, ...]], None, list[Source]]:
    known: dict[Any, Source] = dict(zip(_open(jaxpr).invars, given, strict=True))
    for variable, value in zip(_open(jaxpr).constvars, getattr(jaxpr, "consts", ()), strict=True):
        known[variable] = ("constant", *_bytes(value))

    def source(variable: Any) -> Source:
        if isinstance(variable, core.Literal):
            return ("number", *_bytes(variable.val))
        return known[variable]

    for equation in jaxpr.eqns:
        sources = tuple(map(source, equation.invars))
        if (inside := inlined(equation)) is not None:
            found = yield from _walk(inside, sources, places)
        else:
            name = equation.primitive.name
            if is_followed(equation):
                for within in core.jaxprs_in_params(equation.params):
                    # A branch is not given the index that chooses it.
                    yield from _walk(within, sources[1:] if name == "cond" else sources, places)
            yield equation, sources
            # A broadcast passes on what it is given: only then may it come and go.
            place = next(places) if _counts(equation) else None
            found = [
                sources[0] if place is None else ("result", place, i)
                for i in range(len(equation.outvars))
            ]
        known.update(zip(equation.outvars, found, strict=True))
    return [source(variable) for variable in _open(jaxpr).outvars]


def _open(jaxpr: Any) -> Any:
    return getattr(jaxpr, "jaxpr", jaxpr)


def _bytes(value: Any) -> Iterator[bytes]:
    """None of random keys, which hold no width."""
    if not jnp.issubdtype(jnp.result_type(value), dtypes.extended):
        yield np.asarray(value).tobytes()


def _counts(equation: Any) -> bool:
    return equation.primitive.name != "broadcast_in_dim"


def _numbers(equation: Any) -> tuple:
    literals = [
        np.asarray(variable.val).tobytes()
        for variable in equation.invars
        if isinstance(variable, core.Literal)
    ]
    settings = [
        (name, value)
        for name, value in sorted(equation.params.items())
        if name not in _FOLLOWING and _is_plain(value)
    ]
    return (*literals, *settings, *_numbers_inside(equation))


def _numbers_inside(equation: Any) -> Iterator[tuple]:
    """Of what an operation without a rule does inside of it, such as the body of a `while`."""
    if not is_followed(equation):
        for inside in core.jaxprs_in_params(equation.params):
            steps, outputs = _followed(inside)
            for step, sources in steps:
                yield (step.primitive.name, _numbers(step), sources)
            yield outputs


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, int | float | str | np.number)
