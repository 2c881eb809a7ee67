"""What tasks have in common whose answers are vectors of numbers, and whose targets are others."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from kdjax import models, train
from kdjax.tasks.base import Task


class OfVectors(Task):
    """Answers [batch, dim], linear in the features; a target that is NaN is none. See `Task`.

    Attributes:
      dim: of the answers.
    """

    dim: int

    @classmethod
    def of(cls, target: Any) -> "OfVectors":
        """See `Task`."""
        return cls(dim=target.dim)  # pyright: ignore[reportCallIssue]

    @property
    def outputs(self) -> int:
        """The width of the answers."""
        return self.dim

    def head(self, encoder: nn.Module) -> nn.Module:
        """The model: `features` [batch, dim] of the encoder, and the answer linear in them."""
        return models.Linear(encoder, self.dim, self.output)

    def made_up(self, examples: int) -> Float32[np.ndarray, "n dim"]:
        """Answers that may occur, always the same ones."""
        return np.random.default_rng(0).normal(size=(examples, self.dim)).astype(np.float32)

    def has_label(self, label: Float[Array, "batch dim"]) -> Bool[Array, " batch"]:
        """See `Task`."""
        return ~jnp.isnan(label).any(-1)

    def losses(
        self, outputs: train.Outputs, label: Float[Array, "batch dim"]
    ) -> Float[Array, " batch"]:
        """The distance from the target; zero where that is NaN."""
        # The target is taken out before the distance, whose gradient would be NaN times zero.
        known = self.has_label(label)
        label = jnp.where(known[:, None], label, 1.0)
        return jnp.where(known, self.distance(outputs[self.output], label), 0.0)
