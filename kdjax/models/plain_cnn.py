"""The plain network of tutorials on knowledge distillation: no normalisation, and a wide dense layer."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kdjax.models.blocks import Compute, require_positive
from kdjax.types import BadInput


class PlainCNN(nn.Module):
    """3x3 convolutions with bias, each with ReLU and 2x2 max-pooling; all pixels into a dense layer.

    The teacher of the tutorials has widths of 64 and 128 and 1000 hidden units, the student 32, 64 and
    500; a classifier comes after them. An odd last row or column is left out by the pooling. The dense
    layer is made for images of one size.

    Attributes:
      widths: channels of each convolution.
      hidden: units of the dense layer, which has ReLU, too.
      compute: see `Compute`.

    Raises:
      BadInput: there are no widths, or a number is not positive; or, when it is called, the image is too
        small to be halved as often.
    """

    widths: Sequence[int] = (64, 128)
    hidden: int = 1000
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        if not self.widths:
            raise BadInput(
                "encoder.widths", "empty", "give the channels of at least one convolution"
            )
        require_positive("encoder.widths", *self.widths)
        require_positive("encoder.hidden", self.hidden)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch dim"]:
        """The features, float32, `dim = hidden`."""
        if min(image.shape[1:3]) < 2 ** len(self.widths):
            raise BadInput(
                "encoder.widths",
                f"{len(self.widths)} poolings leave nothing of an image of {image.shape[1]} x "
                f"{image.shape[2]} pixels",
                "give fewer widths, or larger views",
            )
        x = image.astype(self.compute.dtype)
        for i, width in enumerate(self.widths):
            conv = nn.Conv(width, (3, 3), padding=1, dtype=self.compute.dtype, name=f"conv{i}")
            x = nn.max_pool(nn.relu(conv(x)), window_shape=(2, 2), strides=(2, 2))
        x = lax.collapse(x, 1)
        x = nn.relu(nn.Dense(self.hidden, dtype=self.compute.dtype, name="hidden")(x))
        return x.astype(jnp.float32)
