"""Contrastive representation distillation."""

import dataclasses
from typing import ClassVar, Literal

from jaxtyping import Array, Key

from kdjax import distill, losses
from kdjax.config.feature_terms import Vectors
from kdjax.config.fields import Count, Decay, Positive, Width
from kdjax.config.training import Weight
from kdjax.distill import Comparison, Taps
from kdjax.types import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class CRD(Vectors):
    """`kdjax.losses.crd` of two learned linear embeddings, one of each model's features.

    Negatives are any other examples, each as likely as the next: as there may be no labels they are
    not those of another class, as the authors' are.

    Attributes:
      dim: of the embeddings.
      negatives: drawn for each example in each step, some of them twice.
      temperature: of the scores.
      momentum: share of the old row in the memory.
    """

    name: Literal["crd"]
    weight: Weight = 0.8
    dim: Width = 128
    negatives: Count = 16_384
    temperature: Positive = 0.07
    momentum: Decay = 0.5

    most: ClassVar = 1

    def comparison(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.crd`."""
        return distill.crd(
            dim=self.dim, temperature=self.temperature, momentum=self.momentum, compute=taps.compute
        )

    @property
    def drawn(self) -> int:
        """How many other examples are drawn for each one."""
        return self.negatives

    def memory(self, key: Key[Array, ""], *, examples: int) -> PyTree | None:
        """See `kdjax.losses.crd_state`."""
        return losses.crd_state(key, examples=examples, dim=self.dim)
