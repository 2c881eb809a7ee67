"""Decoupled distillation."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kdjax import losses
from kdjax.config.fields import NonNegative, all_zero
from kdjax.config.logit_losses import LogitLoss
from kdjax.distill import Compare
from kdjax.types import Batch, Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class DKD(LogitLoss):
    """`kdjax.losses.dkd`: the target class against the rest, and the rest among themselves.

    Attributes:
      alpha: weight of the first.
      beta: of the second.
      target: of `label` the term is a mean over the rows whose labels may be used; `teacher` has the
        class that the teacher holds likeliest for the label where there is none.
    """

    name: Literal["dkd"]
    alpha: NonNegative = 1.0
    beta: NonNegative = 8.0
    target: Literal["label", "teacher"] = "label"

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from all_zero(self, "alpha", "beta")

    def between(self, temperature: float | Float[Array, ""], axis_name: str | None) -> Compare:
        """See `kdjax.losses.dkd`."""

        def decoupled(student, wanted, batch):
            label = batch["label"]
            if self.target == "teacher":
                # A mixed view has two labels: there the teacher's class is that of every row.
                known = jnp.zeros_like(label, bool) if "weight" in batch else label >= 0
                label = jnp.where(known, label, wanted.argmax(-1).astype(label.dtype))
            return losses.dkd(
                student, wanted, label, alpha=self.alpha, beta=self.beta, temperature=temperature
            )

        return decoupled

    def rows(self, batch: Batch) -> Bool[Array, " batch"] | None:
        """Those whose labels may be used, where the target is the label."""
        return batch["label"] >= 0 if self.target == "label" else None
