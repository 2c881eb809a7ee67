"""Distances of each example's logits, or of their softmaxes."""

import dataclasses
from typing import ClassVar, Literal

from jaxtyping import Array, Bool, Float

from kdjax import losses
from kdjax.config.logit_losses import LogitLoss
from kdjax.distill import Compare
from kdjax.types import BadInput, Batch
from kdjax.views import draws


@dataclasses.dataclass(frozen=True, kw_only=True)
class KL(LogitLoss):
    """`kdjax.losses.kd_kl`.

    Attributes:
      at: of texts, which positions are compared: `all` that are no padding, or those that are `hidden`.
    """

    name: Literal["kl"]
    at: Literal["all", "hidden"] = "all"

    takes_top_k: ClassVar = True
    at_positions: ClassVar = True

    def between(self, temperature: float | Float[Array, ""], axis_name: str | None) -> Compare:
        """See `kdjax.losses.kd_kl`."""
        return lambda student, wanted, batch: losses.kd_kl(student, wanted, temperature=temperature)

    def rows(self, batch: Batch) -> Bool[Array, "batch position"] | None:
        """See `LogitLoss`.

        Raises:
          BadInput: nothing is hidden in the views.
        """
        if self.at == "all":
            return None
        if draws.HIDDEN not in batch:
            raise BadInput("logits.at", "hidden, and the views hide no token", "give all")
        return batch[draws.HIDDEN]


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
