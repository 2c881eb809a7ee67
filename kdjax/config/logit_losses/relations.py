"""Losses that relate the logits of a batch to one another."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from jaxtyping import Array, Float

from kdjax import losses
from kdjax.config.fields import NonNegative, Positive, all_zero
from kdjax.config.logit_losses import LogitLoss
from kdjax.distill import Compare
from kdjax.ranges import AtLeast
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class DIST(LogitLoss):
    """`kdjax.losses.dist`: correlations within an example (`beta`) and within a class (`gamma`)."""

    name: Literal["dist"]
    beta: NonNegative = 1.0
    gamma: NonNegative = 1.0

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from all_zero(self, "beta", "gamma")

    least_rows: ClassVar = 2

    def between(self, temperature: float | Float[Array, ""], axis_name: str | None) -> Compare:
        """See `kdjax.losses.dist`."""
        return lambda student, wanted, batch: losses.dist(
            student,
            wanted,
            beta=self.beta,
            gamma=self.gamma,
            temperature=temperature,
            axis_name=axis_name,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLevel(LogitLoss):
    """`kdjax.losses.multi_level_kd`, at temperatures of its own: the stage's is not looked at."""

    name: Literal["multi_level"]
    temperatures: Annotated[tuple[Positive, ...], AtLeast(1)] = (2.0, 3.0, 4.0, 5.0, 6.0)

    reads_temperature: ClassVar = False

    def between(self, temperature: float | Float[Array, ""], axis_name: str | None) -> Compare:
        """See `kdjax.losses.multi_level_kd`."""
        return lambda student, wanted, batch: losses.multi_level_kd(
            student, wanted, temperatures=self.temperatures, axis_name=axis_name
        )
