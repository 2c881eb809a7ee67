"""What paints the hidden patches of an image from the tokens of those that are shown."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kdjax.models.blocks import Compute
from kdjax.models.vit import TransformerBlock


class PatchDecoder(nn.Module):
    """A transformer on the shown tokens and, in the place of each hidden one, one that is learned.

    Positions are learned, too. The MLPs are four times as wide as a token.

    Attributes:
      width: of a token.
      depth: blocks.
      heads: of each attention; they divide the width.
      patches: of the image.
      pixels: values of a patch.
      compute: see `Compute`.

    Reference: He et al. 2021, https://arxiv.org/abs/2111.06377, sec. 3, "MAE decoder".
    """

    width: int
    depth: int
    heads: int
    patches: int
    pixels: int
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "batch shown dim"], kept: Int[Array, "batch shown"]
    ) -> Float[Array, "batch {self.patches} {self.pixels}"]:
        """All patches, the shown ones too, float32, laid out as by `patches_of`.

        Args:
          tokens: of an encoder.
          kept: the patch that each of them is of.
        """
        dtype, normal = self.compute.dtype, nn.initializers.normal(0.02)
        shown = nn.Dense(self.width, dtype=dtype, name="embed")(tokens.astype(dtype))
        hidden = self.param("hidden", normal, (self.width,)).astype(dtype)
        blank = jnp.broadcast_to(hidden[None, None, :], (len(kept), self.patches, self.width))
        x = jax.vmap(lambda blank, kept, shown: blank.at[kept].set(shown))(blank, kept, shown)
        position = self.param("position", normal, (1, self.patches, self.width))
        x = x + position.astype(dtype)
        for i in range(self.depth):
            x = TransformerBlock(
                self.width, self.heads, 4 * self.width, compute=self.compute, name=f"block{i}"
            )(x)
        x = nn.LayerNorm(dtype=dtype, name="norm")(x)
        return nn.Dense(self.pixels, dtype=dtype, name="pixels")(x).astype(jnp.float32)


def patches_of(
    image: Float[Array, "batch height width channel"], *, patch: int
) -> Float[Array, "batch patches pixels"]:
    """The patches of side `patch`, row by row as a `ViT` has them; in each, rows, columns, channels."""
    batch, height, width, channel = image.shape
    rows, columns = height // patch, width // patch
    x = image.reshape(batch, rows, patch, columns, patch, channel).swapaxes(2, 3)
    return x.reshape(batch, rows * columns, patch * patch * channel)
