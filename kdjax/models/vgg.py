"""VGG with BatchNorm, as in the CIFAR distillation tables."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.models.blocks import Compute, ConvNorm, require_positive
from kdjax.types import BadInput

# Convolutions of each stage; the names count the linear layers of the paper, 8 has but one of them.
_CONVOLUTIONS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG(nn.Module):
    """Stages of 3x3 convolutions with BatchNorm and ReLU, then the mean over space.

    Attributes:
      stages: channels of the convolutions of each stage.
      pools: the first so many stages end in 2x2 max-pooling with stride 2. Odd sides round up.
      compute: see `Compute`.
    """

    stages: Sequence[Sequence[int]]
    pools: int
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch dim"]:
        """The features, float32, `dim = stages[-1][-1]`."""
        x = image.astype(self.compute.dtype)
        for stage, widths in enumerate(self.stages):
            for i, width in enumerate(widths):
                conv = ConvNorm(width, compute=self.compute, name=f"stage{stage}_conv{i}")
                x = nn.relu(conv(x, train=train))
            if stage < self.pools:
                x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2), padding="SAME")
        return x.mean(axis=(1, 2)).astype(jnp.float32)


def vgg(depth: int, *, width: int = 64, pools: int = 3, compute: Compute = Compute()) -> VGG:
    """`vgg{depth}` with BatchNorm: five stages of `width` and 2, 4, 8 and 8 times `width` channels.

    That of https://github.com/HobbitLong/RepDistiller, without the biases of its convolutions,
    which BatchNorm makes redundant: one parameter less for each channel. Like there, the mean over
    space takes the place of the paper's last pooling and of its two hidden linear layers.

    Args:
      depth: 8, 11, 13, 16 or 19.
      width: channels of the first stage.
      pools: stages that end in max-pooling, 0 to 4. RepDistiller takes 3 for images of 32 pixels
        and 4 for images of 64.
      compute: see `Compute`.

    Raises:
      BadInput: the depth is not one of these, or the width is not positive, or there are fewer or
        more pools.

    Reference: Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556, table 1.
    """
    require_positive("encoder.width", width)
    if depth not in _CONVOLUTIONS:
        raise BadInput("encoder.depth", f"{depth} is not that of a VGG", "take 8, 11, 13, 16 or 19")
    if not 0 <= pools <= 4:
        raise BadInput(
            "encoder.pools", f"{pools} is not in 0 to 4", "take 3 for images of 32 pixels"
        )
    widths = (width, 2 * width, 4 * width, 8 * width, 8 * width)
    stages = tuple(
        (width,) * count for width, count in zip(widths, _CONVOLUTIONS[depth], strict=True)
    )
    return VGG(stages=stages, pools=pools, compute=compute)
