"""The shapes that a file takes: any number of examples and, of a ragged input, of positions."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import export

from kdjax.types import BadInput, Field, Fields, length_of

LONGEST = "longest"
"""In the metadata of a file, JSON: see `longest`."""

SHORTEST = "shortest"
"""Likewise the fewest positions, where that is more than 1."""

STREAM = "stream"
"""Likewise of a file for pieces, see `kdjax.export.stream.Stream.said`."""

RATES = "rates"
"""Likewise positions a second of inputs, by their names, see `rates`."""


def sizes(field: Field, *, is_open: bool = True) -> str:
    """Of one example; `[1 to 64, 80]` where a file takes several lengths."""
    if not (field.ragged and is_open):
        return str(list(field.shape))
    return f"[{', '.join(map(str, (f'{field.shortest} to {field.shape[0]}', *field.shape[1:])))}]"


def positions_of(field: str) -> str:
    """What a file calls the number of positions of a ragged input."""
    return f"{field}_positions"


def longest(inputs: Fields) -> dict[str, int]:
    """The most positions that a file takes, by the name of their number."""
    return {positions_of(name): f.shape[0] for name, f in inputs.items() if f.ragged}


def shortest(inputs: Fields) -> dict[str, int]:
    """The fewest, of those that are more than 1."""
    return {
        positions_of(name): f.shortest for name, f in inputs.items() if f.ragged and f.shortest > 1
    }


def rates(inputs: Fields) -> dict[str, int]:
    """Positions a second of the inputs whose positions are moments of time, by their names."""
    return {name: f.rate for name, f in inputs.items() if f.rate is not None}


def shortest_of(predict: Callable[..., Any], inputs: Fields) -> int:
    """The fewest positions of ragged inputs that a model does not refuse: it is asked, in shapes alone.

    Args:
      predict: the model, of as many arrays as there are inputs, in their order.
      inputs: of one example; 1 where none is ragged, or even the longest are refused.
    """

    def takes(length: int) -> bool:
        try:
            jax.eval_shape(
                predict,
                *(
                    f.batch(1, min(length, f.shape[0]) if f.ragged else None)
                    for f in inputs.values()
                ),
            )
        except BadInput:
            return False
        return True

    most = max(longest(inputs).values(), default=1)
    if takes(1) or not takes(most):
        return 1
    refused, taken = 1, most
    while taken - refused > 1:
        between = (refused + taken) // 2
        refused, taken = (refused, between) if takes(between) else (between, taken)
    return taken


def open_shapes(inputs: Fields) -> list[jax.ShapeDtypeStruct]:
    """Shapes with symbols for what is open, which `jax.export` understands."""
    most = longest(inputs)
    constraints = [f"{name} <= {n}" for name, n in most.items()]
    constraints += [f"{name} >= {n}" for name, n in shortest(inputs).items()]
    batch, *lengths = export.symbolic_shape(", ".join(["batch", *most]), constraints=constraints)
    of = dict(zip(most, lengths, strict=True))
    return [field.batch(batch, of.get(positions_of(name))) for name, field in inputs.items()]


def named_shapes(inputs: Fields) -> list[jax.ShapeDtypeStruct]:
    """Likewise with texts in the place of symbols, which jax2onnx understands."""
    return [
        field.batch("batch", positions_of(name) if field.ragged else None)
        for name, field in inputs.items()
    ]


def made_up(inputs: Fields, *, batch: int, share: float = 1.0) -> dict[str, np.ndarray]:
    """Examples that may occur, always the same ones, by name.

    Args:
      inputs: of one example.
      batch: number of examples.
      share: of the positions that a ragged input has at most, as many as the array has, and no fewer
        than it has at least.
    """
    found = {name: field.made_up(batch) for name, field in inputs.items()}
    for name, field in inputs.items():
        if field.ragged:
            length = max(field.shortest, int(share * field.shape[0]))
            found[name] = found[name][:, :length]
            lengths = np.minimum(found[length_of(name)], length)
            behind = np.arange(length) >= lengths[:, None]
            found[name][behind] = 0
            found[length_of(name)] = lengths
    return found
