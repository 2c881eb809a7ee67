"""The Conformer: attention and convolution over frames, between two halves of an MLP."""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kdjax.models.blocks import Compute, heads_faults, require_positive
from kdjax.models.recurrent import SequencePool
from kdjax.models.sequences import mask_of, mean_of, rows_of
from kdjax.types import BadInput


def positions(x: Float[Array, "batch step dim"]) -> Float[Array, "1 step dim"]:
    """Sines and cosines of the steps' numbers, in periods from 2 pi to 10,000 times that.

    Reference: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, sec. 3.5; sines first, then cosines.
    """
    half = -(-x.shape[-1] // 2)
    rate = np.exp(-math.log(10_000.0) * np.arange(half) / max(1, half - 1)).astype(np.float32)
    angle = jnp.expand_dims(jnp.arange(x.shape[1]).astype(jnp.float32), 1) * jnp.asarray(rate)[None]
    found = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)[:, : x.shape[-1]]
    return jnp.expand_dims(found, 0)


class ConformerBlock(nn.Module):
    """Half an MLP, attention, a convolution and half an MLP, each added to its input; then a LayerNorm.

    Where the paper has a BatchNorm behind the depthwise convolution there is a LayerNorm, which sees no
    padding and no other example of a batch; and positions are added once, before the first block, where
    the paper has them relative in each attention.

    Attributes:
      heads: of the attention.
      mlp: hidden units of each MLP.
      kernel: steps that the depthwise convolution sees.
      dropout: of what each of the four adds.
      compute: see `Compute`.

    Reference: Gulati et al. 2020, https://arxiv.org/abs/2005.08100, sec. 2.
    """

    heads: int
    mlp: int
    kernel: int
    dropout: float
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch step dim"], mask: Bool[Array, "batch step"], *, train: bool
    ) -> Float[Array, "batch step dim"]:
        """As wide as they came; padding is looked at by no other step."""
        dtype, width = self.compute.dtype, x.shape[-1]
        norm = functools.partial(nn.LayerNorm, epsilon=1e-5, dtype=dtype)
        drop = functools.partial(nn.Dropout, self.dropout, deterministic=not train)
        dense = functools.partial(nn.Dense, dtype=dtype)

        def half(x: Array, name: str) -> Array:
            y = nn.silu(dense(self.mlp, name=f"{name}_in")(norm(name=f"{name}_norm")(x)))
            return x + 0.5 * drop()(dense(width, name=f"{name}_out")(drop()(y)))

        x = half(x, "first")
        attention = nn.MultiHeadDotProductAttention(
            num_heads=self.heads,
            qkv_features=width,
            dtype=dtype,
            deterministic=True,
            force_fp32_for_softmax=self.compute.is_narrow,
            name="attention",
        )
        y = attention(norm(name="attention_norm")(x), mask=jnp.expand_dims(mask, (1, 2)))
        x = x + drop()(y)
        y = norm(name="convolution_norm")(x)
        y = dense(width, name="value")(y) * nn.sigmoid(dense(width, name="gate")(y))
        y = jnp.where(mask[..., None], y, 0.0)
        y = nn.Conv(
            width, (self.kernel,), feature_group_count=width, dtype=dtype, name="depthwise"
        )(y)
        y = nn.silu(norm(name="depthwise_norm")(y))
        x = x + drop()(dense(width, name="pointwise")(y))
        return norm(name="last_norm")(half(x, "second"))


class Conformer(nn.Module):
    """Conformer blocks over the rows of an example, of which the first layer joins some.

    Attributes:
      width: of a step.
      depth: blocks.
      heads: of each attention.
      mlp: hidden units of each MLP.
      kernel: steps that each depthwise convolution sees.
      stride: rows that become one step.
      pool: the features are the mean over the steps (`mean`), the last step (`last`), or those of every
        step with the mask of those that are no padding (`none`).
      dropout: see `ConformerBlock`, and of what goes into the first.
      compute: see `Compute`.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    kernel: int = 15
    stride: int = 2
    pool: SequencePool = "mean"
    dropout: float = 0.1
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch row ..."],
        length: Int[Array, " batch"] | None = None,
        *,
        train: bool,
    ) -> (
        Float[Array, "batch dim"] | tuple[Float[Array, "batch step dim"], Bool[Array, "batch step"]]
    ):
        """The features, float32.

        Args:
          x: rows, of whatever each has.
          length: rows that each example has, the others are padding; one without any counts as of one.
            None for all.
          train: with dropout.
        """
        dtype, join = self.compute.dtype, self.stride
        x, length = rows_of(x, length)
        length = None if length is None else (length + (join - 1)) // join
        x = jnp.pad(x, ((0, 0), (0, join - 1), (0, 0))) if join > 1 else x
        x = nn.Conv(self.width, (join,), (join,), padding="VALID", dtype=dtype, name="stem")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x + positions(x).astype(dtype))
        mask = mask_of(x, length)
        for i in range(self.depth):
            block = ConformerBlock(
                self.heads,
                self.mlp,
                self.kernel,
                dropout=self.dropout,
                compute=self.compute,
                name=f"block{i}",
            )
            x = block(x, mask, train=train)
        x = x.astype(jnp.float32)
        if self.pool == "none":
            return x, mask
        if self.pool == "mean":
            return mean_of(x, mask)
        last = mask & ~jnp.pad(mask[:, 1:], ((0, 0), (0, 1)))
        return mean_of(x, last)


def conformer(
    *,
    width: int = 144,
    depth: int = 16,
    heads: int = 4,
    mlp: int | None = None,
    kernel: int = 31,
    stride: int = 4,
    pool: SequencePool = "mean",
    dropout: float = 0.1,
    compute: Compute = Compute(),
) -> Conformer:
    """A Conformer, as wide and as deep as the paper's small one by default.

    Args:
      width: of a step; `heads` divides it.
      depth: blocks.
      heads: of each attention.
      mlp: hidden units of each MLP; four times the width by default.
      kernel: steps that each depthwise convolution sees.
      stride: rows that become one step.
      pool: see `Conformer`.
      dropout: likewise.
      compute: see `Compute`.

    Raises:
      BadInput: a number is not positive, or the heads do not divide the width.
    """
    mlp = 4 * width if mlp is None else mlp
    sizes = {"width": width, "depth": depth, "heads": heads, "mlp": mlp}
    for name, size in {**sizes, "kernel": kernel, "stride": stride}.items():
        require_positive(f"encoder.{name}", size)
    for fault in heads_faults(width, heads, fields="encoder.heads"):
        raise BadInput(*fault)
    return Conformer(
        width,
        depth,
        heads,
        mlp,
        kernel=kernel,
        stride=stride,
        pool=pool,
        dropout=dropout,
        compute=compute,
    )
