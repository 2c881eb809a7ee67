"""Vision transformer."""

import functools
from collections.abc import Iterator
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from kdjax.models.blocks import Compute, heads_faults, require_positive
from kdjax.types import BadInput

Gelu = Literal["tanh", "exact"]
Pool = Literal["mean", "class", "class_and_mean"]
Positions = Literal["patches", "class", "all"]


class TransformerBlock(nn.Module):
    """Self-attention and an MLP, each on what its LayerNorm gives and added to its input.

    Attributes:
      width: of the queries, keys and values of all heads together.
      heads: of the attention; each has `width / heads` of them.
      mlp: hidden units of the MLP.
      compute: see `Compute`.
      gelu: the tanh approximation or the exact one.
      epsilon: of the LayerNorms.
      qkv_bias: queries, keys and values have a bias.
      layer_scale: what the scales of the channels of both branches begin with; None for no scales.

    References: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, eq. 2 and 3; Touvron et al.
    2021, https://arxiv.org/abs/2103.17239, eq. 4 (layer scale).
    """

    width: int
    heads: int
    mlp: int
    compute: Compute
    gelu: Gelu = "tanh"
    epsilon: float = 1e-6
    qkv_bias: bool = True
    layer_scale: float | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch token dim"]) -> Float[Array, "batch token dim"]:
        """Tokens, as wide as they came. The softmax is float32 at least."""
        dtype = self.compute.dtype
        norm = functools.partial(nn.LayerNorm, epsilon=self.epsilon, dtype=dtype)

        def scaled(y: Array, name: str) -> Array:
            if self.layer_scale is None:
                return y
            begin = nn.initializers.constant(self.layer_scale)
            scale = self.param(name, begin, (x.shape[-1],))
            return y * jnp.expand_dims(scale.astype(y.dtype), (0, 1))

        attention = nn.MultiHeadDotProductAttention(
            num_heads=self.heads,
            qkv_features=self.width,
            dtype=dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            use_bias=self.qkv_bias,
            force_fp32_for_softmax=self.compute.is_narrow,
            name="attention",
        )
        y = attention(norm(name="attention_norm")(x))
        if not self.qkv_bias:  # what comes out of the attention has one all the same
            bias = self.param("attention_bias", nn.initializers.zeros, (x.shape[-1],))
            y = y + jnp.expand_dims(bias.astype(y.dtype), (0, 1))
        x = x + scaled(y, "attention_scale")

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(
                features,
                dtype=dtype,
                kernel_init=nn.initializers.xavier_uniform(),
                bias_init=nn.initializers.normal(1e-6),
                name=name,
            )

        y = norm(name="mlp_norm")(x)
        y = nn.gelu(dense(self.mlp, "mlp_in")(y), approximate=self.gelu == "tanh")
        return x + scaled(dense(x.shape[-1], "mlp_out")(y), "mlp_scale")


class ViT(nn.Module):
    """Patches, learned positions, blocks of attention, a LayerNorm, the mean over the tokens.

    By default the mean takes the place of the paper's class token, so there is none, and GELU is the
    tanh approximation, as in the authors' code. With a class token and registers the tokens are the
    class, the registers and the patches, in this order. No dropout: training and evaluation are the same.

    Attributes:
      width: of a token.
      depth: blocks.
      heads: of each attention.
      mlp: hidden units of each MLP.
      patch: side of a patch, in pixels.
      class_token: there is one.
      registers: how many tokens more there are that no feature is read from.
      positions: which tokens have one: the `patches` alone, the `class` token as well, or `all`.
      pool: the features: the `mean` over the patches, the `class` token, or both, one behind the other.
      norm_after_pool: the last LayerNorm is that of the features; otherwise of the tokens.
      gelu: see `TransformerBlock`.
      epsilon: of all LayerNorms.
      qkv_bias: see `TransformerBlock`.
      layer_scale: see `TransformerBlock`.
      compute: see `Compute`.

    References: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, eq. 1 to 4; Darcet et al. 2023,
    https://arxiv.org/abs/2309.16588 (registers).
    """

    width: int
    depth: int
    heads: int
    mlp: int
    patch: int
    class_token: bool = False
    registers: int = 0
    positions: Positions = "patches"
    pool: Pool = "mean"
    norm_after_pool: bool = False
    gelu: Gelu = "tanh"
    epsilon: float = 1e-6
    qkv_bias: bool = True
    layer_scale: float | None = None
    compute: Compute = Compute()

    @property
    def beside_patches(self) -> int:
        """Tokens that come before those of the patches."""
        return int(self.class_token) + self.registers

    def features(
        self, tokens: Float[Array, "batch token dim"], norm: nn.Module
    ) -> Float[Array, "batch features"]:
        """What is read off the last block's tokens: `dim` of a token, twice as many of two."""
        tokens = tokens if self.norm_after_pool else norm(tokens)
        found = []
        if self.pool != "mean":
            found.append(tokens[:, 0])
        if self.pool != "class":
            before = self.beside_patches
            found.append((tokens[:, before:] if before else tokens).mean(axis=1))
        features = found[0] if len(found) == 1 else jnp.concatenate(found, axis=-1)
        return norm(features) if self.norm_after_pool else features

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "batch height width channel"],
        *,
        train: bool,
        kept: Int[Array, "batch shown"] | None = None,
    ) -> Float[Array, "batch dim"]:
        """The features, float32, `dim = width`, twice that where two tokens are read.

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
        normal, dim = nn.initializers.normal(0.02), x.shape[-1]
        placed = {"patches": 0, "class": 1, "all": self.beside_patches}[self.positions]
        position = self.param("position", normal, (1, placed + x.shape[1], dim)).astype(x.dtype)
        x = x + (position[:, placed:] if placed else position)
        if kept is not None:
            x = jnp.take_along_axis(x, kept[..., None], axis=1)
        before = []
        if self.class_token:
            before.append(self.param("class_embedding", normal, (1, 1, dim)))
        if self.registers:
            before.append(self.param("register_embeddings", normal, (1, self.registers, dim)))
        if before:
            first = jnp.concatenate(before, axis=1).astype(x.dtype)
            if placed:
                first = jnp.concatenate(
                    [first[:, :placed] + position[:, :placed], first[:, placed:]], axis=1
                )
            first = jnp.broadcast_to(first, (x.shape[0], *first.shape[1:]))
            x = jnp.concatenate([first, x], axis=1)
        for i in range(self.depth):
            x = TransformerBlock(
                self.width,
                self.heads,
                self.mlp,
                compute=self.compute,
                gelu=self.gelu,
                epsilon=self.epsilon,
                qkv_bias=self.qkv_bias,
                layer_scale=self.layer_scale,
                name=f"block{i}",
            )(x)
        norm = nn.LayerNorm(epsilon=self.epsilon, dtype=self.compute.dtype, name="norm")
        return self.features(x, norm).astype(jnp.float32)


def vit(
    *,
    width: int,
    depth: int,
    heads: int,
    mlp: int,
    patch: int,
    class_token: bool = False,
    registers: int = 0,
    positions: Positions = "patches",
    pool: Pool = "mean",
    norm_after_pool: bool = False,
    gelu: Gelu = "tanh",
    epsilon: float = 1e-6,
    qkv_bias: bool = True,
    layer_scale: float | None = None,
    compute: Compute = Compute(),
) -> ViT:
    """A vision transformer; ViT-Ti/4 is `width=192, depth=12, heads=3, mlp=768, patch=4`.

    Those that are published have `class_token=True, positions="class", pool="class", gelu="exact"` as a
    rule. Those of DINOv2 have a `layer_scale`, and where they have registers these have no positions.

    Raises:
      BadInput: a number is not positive, the heads do not divide the width, or a class token is wanted
        that is not there.
    """
    sizes = {"width": width, "depth": depth, "heads": heads, "mlp": mlp, "patch": patch}
    for name, size in sizes.items():
        require_positive(f"encoder.{name}", size)
    for fault in heads_faults(width, heads, fields="encoder.heads"):
        raise BadInput(*fault)
    require_positive("encoder.epsilon", epsilon)
    for fields, fault, mend in vit_faults(
        class_token=class_token, registers=registers, positions=positions, pool=pool
    ):
        raise BadInput(f"encoder.{fields}", fault, mend)
    return ViT(
        width,
        depth,
        heads,
        mlp,
        patch,
        class_token=class_token,
        registers=registers,
        positions=positions,
        pool=pool,
        norm_after_pool=norm_after_pool,
        gelu=gelu,
        epsilon=epsilon,
        qkv_bias=qkv_bias,
        layer_scale=layer_scale,
        compute=compute,
    )


def vit_faults(
    *, class_token: bool, registers: int, positions: Positions, pool: Pool
) -> Iterator[tuple[str, str, str]]:
    """Fields, fault and mend of what a vision transformer wants of tokens that are not there."""
    if pool != "mean" and not class_token:
        yield (
            "pool, class_token",
            f"{pool} needs a class token",
            "give class_token=True, or take mean",
        )
    if positions == "class" and not class_token:
        yield "positions, class_token", "there is no class token to have one", "take patches"
    if positions == "all" and not (class_token or registers):
        yield "positions, registers", "all tokens are those of the patches", "take patches"
    if registers < 0:
        yield "registers", f"{registers} is negative", "give 0 or more"
