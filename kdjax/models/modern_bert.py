"""ModernBERT: positions by rotation, gated MLPs, norms before what they are for, no biases."""

import functools
from collections.abc import Iterator

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kdjax.models.bert import Pool, padded_positions
from kdjax.models.blocks import Compute, require_positive
from kdjax.models.sequences import mask_of, mean_of
from kdjax.types import BadInput

_INIT = nn.initializers.normal(0.02)


def rotated(
    x: Float[Array, "batch token heads dim"], *, theta: float
) -> Float[Array, "batch token heads dim"]:
    """Queries or keys, each turned by its position: a product of two depends on how far apart they are.

    Number `i` and number `i + dim / 2` of a head are a pair, turned by `position * theta^(-2 i / dim)`.

    Args:
      x: with an even `dim`.
      theta: of the slowest pair it takes about so many positions for a radian.

    Reference: Su et al. 2021, https://arxiv.org/abs/2104.09864, sec. 3.2; the pairs are those of
    transformers.
    """
    half = x.shape[-1] // 2
    speeds = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = jnp.expand_dims(jnp.arange(x.shape[1]), 1).astype(jnp.float32) * speeds[None]
    cos, sin = (jnp.expand_dims(turn(angles), (0, 2)) for turn in (jnp.cos, jnp.sin))
    first, other = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    found = jnp.concatenate([first * cos - other * sin, other * cos + first * sin], axis=-1)
    return found.astype(x.dtype)


class _Heads(nn.Module):
    """Queries, keys or values of all heads; turned by their positions where there is a `theta`."""

    heads: int
    theta: float | None
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch token width"]
    ) -> Float[Array, "batch token heads dim"]:
        """Without a bias."""
        width = x.shape[-1]
        kernel = self.param("kernel", _INIT, (width, self.heads, width // self.heads))
        dtype = self.compute.dtype
        found = jnp.einsum("btw,whd->bthd", x.astype(dtype), jnp.asarray(kernel, dtype))
        return found if self.theta is None else rotated(found, theta=self.theta)


class RotaryAttention(nn.Module):
    """Self-attention whose queries and keys are turned by their positions.

    `query` and `key` are modules whose outputs are turned already: their products are the scores.

    Attributes:
      heads: of it.
      theta: see `rotated`.
      window: a token looks at those up to half of it away; None for all.
      dropout: of the shares.
      compute: see `Compute`.
    """

    heads: int
    theta: float
    window: int | None
    dropout: float
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch token dim"], mask: Bool[Array, "batch token"], *, train: bool
    ) -> Float[Array, "batch token dim"]:
        """As wide as they came; padding is looked at by nobody. The softmax is float32 at least."""
        heads = functools.partial(_Heads, self.heads, compute=self.compute)
        query, key = heads(self.theta, name="query")(x), heads(self.theta, name="key")(x)
        value = heads(None, name="value")(x)
        seen = jnp.expand_dims(mask, (1, 2))
        if self.window is not None:
            places = jnp.arange(x.shape[1])
            apart = jnp.abs(jnp.expand_dims(places, 1) - jnp.expand_dims(places, 0))
            seen = seen & jnp.expand_dims(apart <= self.window // 2, (0, 1))
        found = nn.dot_product_attention(
            query,
            key,
            value,
            mask=seen,
            dropout_rng=self.make_rng("dropout") if train and self.dropout else None,
            dropout_rate=self.dropout,
            broadcast_dropout=False,
            deterministic=not train,
            dtype=self.compute.dtype,
            force_fp32_for_softmax=self.compute.is_narrow,
        )
        out = functools.partial(nn.DenseGeneral, x.shape[-1], axis=(-2, -1), use_bias=False)
        return out(dtype=self.compute.dtype, kernel_init=_INIT, name="out")(found)


class ModernBERT(nn.Module):
    """ModernBERT: every third block looks at the whole text, the others at what is near.

    Attributes:
      vocab: tokens that there are.
      width: of a token.
      depth: blocks.
      heads: of each attention.
      mlp: hidden units of each MLP, and as many gates: `gelu(in) * gate`.
      positions: how long a text may be; nothing of the network has their number.
      window: tokens that a block of those between sees, half of them on each side.
      whole_every: block 0, and each so many blocks on, sees the whole text.
      theta: of the rotations of these, see `rotated`.
      window_theta: of those of the others.
      pool: the features are those of the first token (`class`), the mean over the tokens that are no
        padding, or those of every token (`none`).
      dropout: of the embeddings, of what comes out of attentions, and within MLPs.
      attention_dropout: of the shares of the attention.
      epsilon: of all LayerNorms, which have no bias.
      compute: see `Compute`.

    Reference: Warner et al. 2024, https://arxiv.org/abs/2412.13663, sec. 2.1.
    """

    vocab: int
    width: int
    depth: int
    heads: int
    mlp: int
    positions: int = 8192
    window: int = 128
    whole_every: int = 3
    theta: float = 160_000.0
    window_theta: float = 10_000.0
    pool: Pool = "class"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    epsilon: float = 1e-5
    compute: Compute = Compute()

    @property
    def last(self) -> str:
        """The module whose output is what is known of each token."""
        return "final_norm"

    @property
    def embedding_size(self) -> int | None:
        """As wide as all else."""
        return None

    @property
    def biased(self) -> bool:
        """Whether dense layers and norms have biases."""
        return False

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "batch token"],
        tokens_length: Int[Array, " batch"] | None = None,
        second: Int[Array, " batch"] | None = None,
        *,
        train: bool,
    ) -> (
        Float[Array, "batch dim"]
        | tuple[Float[Array, "batch token dim"], Bool[Array, "batch token"]]
    ):
        """The features, float32; of every token with the mask of those that are no padding.

        Args:
          tokens: as integers below `vocab`.
          tokens_length: how many of each text there are, the others are padding; None for all.
          second: where the second text of a pair begins, which it is not told.
          train: with dropout.

        Raises:
          BadInput: a text is longer than there are positions.
        """
        padded_positions(tokens.shape[1], self.positions)
        dtype, mask = self.compute.dtype, mask_of(tokens, tokens_length)
        norm = functools.partial(nn.LayerNorm, epsilon=self.epsilon, use_bias=False, dtype=dtype)
        drop = functools.partial(nn.Dropout, self.dropout, deterministic=not train)
        x = nn.Embed(self.vocab, self.width, dtype=dtype, embedding_init=_INIT, name="word")(tokens)
        x = drop()(norm(name="embedding_norm")(x))
        for i in range(self.depth):
            x = self._block(x, mask, i, train=train)
        x = norm(name="final_norm")(x)
        if self.pool == "none":
            return x.astype(jnp.float32), mask
        return mean_of(x, mask) if self.pool == "mean" else x[:, 0].astype(jnp.float32)

    def _block(self, x: Array, mask: Array, i: int, *, train: bool) -> Array:
        near = bool(i % self.whole_every)
        return ModernBERTBlock(
            self.heads,
            self.mlp,
            normed=i > 0,
            theta=self.window_theta if near else self.theta,
            window=self.window if near else None,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            epsilon=self.epsilon,
            compute=self.compute,
            name=f"block{i}",
        )(x, mask, train=train)


class ModernBERTBlock(nn.Module):
    """What an attention and then a gated MLP make of what was normalised is added to what was there.

    Attributes:
      heads: of the attention.
      mlp: hidden units of the MLP.
      normed: there is a norm before the attention: not in the first block, behind that of the embeddings.
      theta: see `rotated`.
      window: see `RotaryAttention`.
      dropout: of what comes out of the attention, and within the MLP.
      attention_dropout: of the shares of the attention.
      epsilon: of the LayerNorms.
      compute: see `Compute`.

    Reference: Shazeer 2020, https://arxiv.org/abs/2002.05202 (GEGLU).
    """

    heads: int
    mlp: int
    normed: bool
    theta: float
    window: int | None
    dropout: float
    attention_dropout: float
    epsilon: float
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch token dim"], mask: Bool[Array, "batch token"], *, train: bool
    ) -> Float[Array, "batch token dim"]:
        """As wide as they came."""
        dtype = self.compute.dtype
        norm = functools.partial(nn.LayerNorm, epsilon=self.epsilon, use_bias=False, dtype=dtype)
        drop = functools.partial(nn.Dropout, self.dropout, deterministic=not train)
        dense = functools.partial(nn.Dense, use_bias=False, dtype=dtype, kernel_init=_INIT)
        attention = RotaryAttention(
            self.heads,
            self.theta,
            self.window,
            self.attention_dropout,
            self.compute,
            name="attention",
        )
        y = norm(name="attention_norm")(x) if self.normed else x
        x = x + drop()(attention(y, mask, train=train))
        y = norm(name="mlp_norm")(x)
        inside = nn.gelu(dense(self.mlp, name="mlp_in")(y), approximate=False)
        inside = drop()(inside * dense(self.mlp, name="mlp_gate")(y))
        return x + dense(x.shape[-1], name="mlp_out")(inside)


def modern_bert(
    *,
    vocab: int,
    width: int = 768,
    depth: int = 22,
    heads: int = 12,
    mlp: int = 1152,
    positions: int = 8192,
    window: int = 128,
    whole_every: int = 3,
    theta: float = 160_000.0,
    window_theta: float = 10_000.0,
    pool: Pool = "class",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    epsilon: float = 1e-5,
    compute: Compute = Compute(),
) -> ModernBERT:
    """A ModernBERT, ModernBERT-base by default; the large one is 28 x 1024, 16 heads, 2,624 units.

    Raises:
      BadInput: a number is not positive, or fields do not go together.
    """
    sizes = {"vocab": vocab, "width": width, "depth": depth, "heads": heads, "mlp": mlp}
    sizes |= {"positions": positions, "window": window, "whole_every": whole_every}
    for name, size in {**sizes, "theta": theta, "window_theta": window_theta}.items():
        require_positive(f"encoder.{name}", size)
    for fields, fault, mend in modern_bert_faults(width=width, heads=heads):
        raise BadInput(f"encoder.{fields}", fault, mend)
    return ModernBERT(
        vocab,
        width,
        depth,
        heads,
        mlp,
        positions=positions,
        window=window,
        whole_every=whole_every,
        theta=theta,
        window_theta=window_theta,
        pool=pool,
        dropout=dropout,
        attention_dropout=attention_dropout,
        epsilon=epsilon,
        compute=compute,
    )


def modern_bert_faults(*, width: int, heads: int) -> Iterator[tuple[str, str, str]]:
    """Field, fault and mend of what does not go together in a ModernBERT."""
    if width % heads or width // heads % 2:
        yield (
            "heads",
            f"{heads} do not part a width of {width} into even numbers",
            "take another number",
        )
