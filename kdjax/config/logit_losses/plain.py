"""Distances of each example's logits, or of their softmaxes."""

import dataclasses
from typing import ClassVar, Literal

from jaxtyping import Array, Float

from kdjax import losses
from kdjax.config.logit_losses import LogitLoss
from kdjax.distill import Compare


@dataclasses.dataclass(frozen=True, kw_only=True)
class KL(LogitLoss):
    """`kdjax.losses.kd_kl`."""

    name: Literal["kl"]

    takes_top_k: ClassVar = True
    at_positions: ClassVar = True

    def between(self, temperature: float | Float[Array, ""], axis_name: str | None) -> Compare:
        """See `kdjax.losses.kd_kl`."""
        return lambda student, wanted, batch: losses.kd_kl(student, wanted, temperature=temperature)


PLAIN_KD = KL(name="kl")
"""That of Hinton et al."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftCE(LogitLoss):
    """`kdjax.losses.kd_ce`: the gradient of `kl`."""

    name: Literal["ce"]

    at_positions: ClassVar = True

    def between(self, temperature: float | Float[Array, ""], axis_name: str | None) -> Compare:
        """See `kdjax.losses.kd_ce`."""
        return lambda student, wanted, batch: losses.kd_ce(student, wanted, temperature=temperature)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitMSE(LogitLoss):
    """`kdjax.losses.kd_mse`, which has no temperature."""

    name: Literal["mse"]

    at_positions: ClassVar = True
    reads_temperature: ClassVar = False

    def between(self, temperature: float | Float[Array, ""], axis_name: str | None) -> Compare:
        """See `kdjax.losses.kd_mse`."""
        return lambda student, wanted, batch: losses.kd_mse(student, wanted)
