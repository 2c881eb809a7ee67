"""The shapes that a file takes: any number of examples and, of a ragged input, of positions."""

import jax
import numpy as np
from jax import export

from kdjax.types import Field, Fields, length_of

LONGEST = "longest"
"""In the metadata of a file, JSON: see `longest`."""


def sizes(field: Field, *, is_open: bool = True) -> str:
    """Of one example; `[1 to 64, 80]` where a file takes several lengths."""
    if not (field.ragged and is_open):
        return str(list(field.shape))
    return f"[{', '.join(map(str, (f'1 to {field.shape[0]}', *field.shape[1:])))}]"


def positions_of(field: str) -> str:
    """What a file calls the number of positions of a ragged input."""
    return f"{field}_positions"


def longest(inputs: Fields) -> dict[str, int]:
    """The most positions that a file takes, by the name of their number."""
    return {positions_of(name): f.shape[0] for name, f in inputs.items() if f.ragged}


def open_shapes(inputs: Fields) -> list[jax.ShapeDtypeStruct]:
    """Shapes with symbols for what is open, which `jax.export` understands."""
    most = longest(inputs)
    batch, *lengths = export.symbolic_shape(
        ", ".join(["batch", *most]), constraints=[f"{name} <= {n}" for name, n in most.items()]
    )
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
      share: of the positions that a ragged input has at most, as many as the array has, 1 at least.
    """
    found = {name: field.made_up(batch) for name, field in inputs.items()}
    for name, field in inputs.items():
        if field.ragged:
            length = max(1, int(share * field.shape[0]))
            found[name] = found[name][:, :length]
            lengths = np.minimum(found[length_of(name)], length)
            behind = np.arange(length) >= lengths[:, None]
            found[name][behind] = 0
            found[length_of(name)] = lengths
    return found
