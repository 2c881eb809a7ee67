"""A plain stack of convolutions: the small student, and the digits' teacher."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.models.blocks import Compute, ConvNorm, require_positive
from kdjax.types import BadInput


class CNN(nn.Module):
    """3x3 convolutions with BatchNorm and ReLU, then the mean over space.

    Attributes:
      widths: channels of each convolution; each after the first halves the height and the width.
      compute: see `Compute`.

    Raises:
      BadInput: there are no widths, or one of them is not positive.
    """

    widths: Sequence[int]
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        if not self.widths:
            raise BadInput(
                "encoder.widths", "empty", "give the channels of at least one convolution"
            )
        require_positive("encoder.widths", *self.widths)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch dim"]:
        """The features, float32, `dim = widths[-1]`."""
        x = image.astype(self.compute.dtype)
        for i, width in enumerate(self.widths):
            block = ConvNorm(
                width, stride=1 if i == 0 else 2, compute=self.compute, name=f"block{i}"
            )
            x = nn.relu(block(x, train=train))
        return x.mean(axis=(1, 2)).astype(jnp.float32)
