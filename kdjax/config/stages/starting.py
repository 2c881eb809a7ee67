"""Where a classifier begins."""

from collections.abc import Iterator

from kdjax.config.encoders import Encoder
from kdjax.types import Fault


def one_start(start_from: str | None, encoder: Encoder | None) -> Iterator[Fault]:
    """One of the two, and never both: the fault of a classifier that has not."""
    if (start_from is None) == (encoder is None):
        yield "., start_from, encoder", "give one of start_from (a stage) and encoder (a model)"


def begun_from(encoder: Encoder | None) -> tuple[str, ...]:
    """The stage whose layers an encoder begins with; none, as a rule."""
    found = None if encoder is None else encoder.begun_from
    return () if found is None else (found.stage,)
