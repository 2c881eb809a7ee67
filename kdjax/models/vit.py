"""Vision transformer."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from kdjax.models.blocks import Compute, require_positive
from kdjax.types import BadInput


class TransformerBlock(nn.Module):
    """Self-attention and an MLP, each on what its LayerNorm gives and added to its input.

    Attributes:
      width: of the queries, keys and values of all heads together.
      heads: of the attention; each has `width / heads` of them.
      mlp: hidden units of the MLP.
      compute: see `Compute`.

    Reference: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, eq. 2 and 3.
    """

    width: int
    heads: int
    mlp: int
    compute: Compute

    @nn.compact
    def __call__(self, x: Float[Array, "batch token dim"]) -> Float[Array, "batch token dim"]:
        """Tokens, as wide as they came. The softmax is float32."""
        dtype = self.compute.dtype
        attention = nn.MultiHeadDotProductAttention(
            num_heads=self.heads,
            qkv_features=self.width,
            dtype=dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            force_fp32_for_softmax=True,
            name="attention",
        )
        x = x + attention(nn.LayerNorm(dtype=dtype, name="attention_norm")(x))

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(
                features,
                dtype=dtype,
                kernel_init=nn.initializers.xavier_uniform(),
                bias_init=nn.initializers.normal(1e-6),
                name=name,
            )

        y = nn.LayerNorm(dtype=dtype, name="mlp_norm")(x)
        y = nn.gelu(dense(self.mlp, "mlp_in")(y))
        return x + dense(x.shape[-1], "mlp_out")(y)


class ViT(nn.Module):
    """Patches, learned positions, blocks of attention, a LayerNorm, the mean over the tokens.

    The mean takes the place of the paper's class token, so there is none. GELU is the tanh
    approximation, as in the authors' code. No dropout: training and evaluation are the same.

    Attributes:
      width: of a token.
      depth: blocks.
      heads: of each attention.
      mlp: hidden units of each MLP.
      patch: side of a patch, in pixels.
      compute: see `Compute`.

    Reference: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, eq. 1 to 4.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    patch: int
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "batch height width channel"],
        *,
        train: bool,
        kept: Int[Array, "batch shown"] | None = None,
    ) -> Float[Array, "batch dim"]:
        """The features, float32, `dim = width`.

        The positions are those of the image that the parameters were made for.

        Args:
          image: normalised.
          train: makes no difference.
          kept: the patches that are looked at, row by row of the image; all of them by default.

        Raises:
          BadInput: `patch` does not divide the height or the width of the image.
        """
        height, width = image.shape[1:3]
        if height % self.patch or width % self.patch:
            raise BadInput(
                "encoder.patch",
                f"{self.patch} does not divide the image of {height} x {width} pixels",
                "take a divisor, or another size of the views",
            )
        patches = nn.Conv(
            self.width,
            (self.patch, self.patch),
            strides=self.patch,
            padding="VALID",
            dtype=self.compute.dtype,
            name="patches",
        )
        x = lax.collapse(patches(image.astype(self.compute.dtype)), 1, 3)
        position = self.param("position", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        x = x + position.astype(x.dtype)
        if kept is not None:
            x = jnp.take_along_axis(x, kept[..., None], axis=1)
        for i in range(self.depth):
            x = TransformerBlock(
                self.width, self.heads, self.mlp, compute=self.compute, name=f"block{i}"
            )(x)
        x = nn.LayerNorm(dtype=self.compute.dtype, name="norm")(x)
        return x.mean(axis=1).astype(jnp.float32)


def vit(
    *, width: int, depth: int, heads: int, mlp: int, patch: int, compute: Compute = Compute()
) -> ViT:
    """A vision transformer; ViT-Ti/4 is `width=192, depth=12, heads=3, mlp=768, patch=4`.

    Raises:
      BadInput: a number is not positive, or the heads do not divide the width.
    """
    sizes = {"width": width, "depth": depth, "heads": heads, "mlp": mlp, "patch": patch}
    for name, size in sizes.items():
        require_positive(f"encoder.{name}", size)
    if width % heads:
        raise BadInput(
            "encoder.heads", f"{heads} do not divide the width of {width}", "take a divisor"
        )
    return ViT(width, depth, heads, mlp, patch, compute=compute)
