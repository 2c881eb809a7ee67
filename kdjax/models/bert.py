"""BERT: embeddings of tokens, positions and types, blocks of attention that normalise what comes out."""

import functools
from collections.abc import Iterator
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kdjax.models.blocks import Compute, heads_faults, require_positive
from kdjax.models.heads import called
from kdjax.models.sequences import mask_of, mean_of
from kdjax.types import BadInput

Pool = Literal["class", "mean", "none"]
Pooler = Literal["tanh", "relu"]

_INIT = nn.initializers.normal(0.02)
_FACTOR = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
"""Of a factor behind a table: what comes out has the scale of the table."""


class BERTBlock(nn.Module):
    """Self-attention and an MLP; a LayerNorm on the sum of each and its input. GELU is the exact one.

    Attributes:
      heads: of the attention.
      mlp: hidden units of the MLP.
      dropout: of what comes out of the attention and of the MLP.
      attention_dropout: of the shares of the attention.
      epsilon: of the LayerNorms.
      compute: see `Compute`.

    Reference: Devlin et al. 2018, https://arxiv.org/abs/1810.04805.
    """

    heads: int
    mlp: int
    dropout: float
    attention_dropout: float
    epsilon: float
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch token dim"], mask: Bool[Array, "batch token"], *, train: bool
    ) -> Float[Array, "batch token dim"]:
        """As wide as they came; padding is looked at by nobody. The softmax is float32 at least."""
        dtype, width = self.compute.dtype, x.shape[-1]
        norm = functools.partial(nn.LayerNorm, epsilon=self.epsilon, dtype=dtype)
        drop = functools.partial(nn.Dropout, self.dropout, deterministic=not train)
        dense = functools.partial(nn.Dense, dtype=dtype, kernel_init=_INIT)
        y = nn.MultiHeadDotProductAttention(
            num_heads=self.heads,
            qkv_features=width,
            dropout_rate=self.attention_dropout,
            broadcast_dropout=False,
            deterministic=not train,
            dtype=dtype,
            kernel_init=_INIT,
            force_fp32_for_softmax=self.compute.is_narrow,
            name="attention",
        )(x, mask=jnp.expand_dims(mask, (1, 2)))
        x = norm(name="attention_norm")(x + drop()(y))
        y = nn.gelu(dense(self.mlp, name="mlp_in")(x), approximate=False)
        return norm(name="mlp_norm")(x + drop()(dense(width, name="mlp_out")(y)))


class BERT(nn.Module):
    """BERT; DistilBERT has no types, and MiniLM's sentence encoders the mean over their tokens.

    Attributes:
      vocab: tokens that there are.
      width: of a token.
      depth: blocks.
      heads: of each attention.
      mlp: hidden units of each MLP.
      positions: how long a text may be.
      types: 2, which tell the tokens of the two texts of a pair apart; or 1, or 0 for none.
      embedding_size: of the table of tokens, behind which a linear layer makes them as wide as all else:
        ALBERT's factorised embedding. None for a table of the width.
      pool: the features are those of the first token (`class`), the mean over the tokens that are no
        padding, or those of every token (`none`).
      pooler: a dense layer on those of the first token, and what comes behind it; None for none.
      dropout: of the embeddings, and see `BERTBlock`.
      attention_dropout: see `BERTBlock`.
      epsilon: of all LayerNorms.
      compute: see `Compute`.

    References: Devlin et al. 2018, https://arxiv.org/abs/1810.04805; Sanh et al. 2019,
    https://arxiv.org/abs/1910.01108 (DistilBERT); Wang et al. 2020, https://arxiv.org/abs/2002.10957
    (MiniLM); Lan et al. 2019, https://arxiv.org/abs/1909.11942, sec. 3.1 (`embedding_size`).
    """

    vocab: int
    width: int
    depth: int
    heads: int
    mlp: int
    positions: int = 512
    types: int = 2
    embedding_size: int | None = None
    pool: Pool = "class"
    pooler: Pooler | None = None
    dropout: float = 0.1
    attention_dropout: float = 0.1
    epsilon: float = 1e-12
    compute: Compute = Compute()

    @property
    def last(self) -> str:
        """The module whose output is what is known of each token."""
        return f"block{self.depth - 1}"

    @property
    def biased(self) -> bool:
        """Whether dense layers and norms have biases."""
        return True

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
          second: where the second text of a pair begins; None where there is one text.
          train: with dropout.

        Raises:
          BadInput: a text is longer than there are positions.
        """
        length = tokens.shape[1]
        padded_positions(length, self.positions)
        dtype, mask = self.compute.dtype, mask_of(tokens, tokens_length)
        size = self.embedding_size or self.width
        x = nn.Embed(self.vocab, size, dtype=dtype, embedding_init=_INIT, name="word")(tokens)
        if self.embedding_size is not None:
            wide = functools.partial(nn.Dense, self.width, use_bias=False, dtype=dtype)
            x = wide(kernel_init=_FACTOR, name="word_projection")(x)
        place = self.param("position", _INIT, (self.positions, x.shape[-1]))
        place = jnp.asarray(place, dtype)  # NumPy's own takes no open length
        x = x + jnp.expand_dims(place[:length], 0)
        if self.types:
            kind = self.param("type", _INIT, (self.types, x.shape[-1])).astype(dtype)
            first, other = jnp.expand_dims(kind[0], (0, 1)), jnp.expand_dims(kind[-1], (0, 1))
            if second is None or self.types == 1:
                x = x + first
            else:
                x = x + jnp.where(mask_of(tokens, second)[..., None], first, other)
        x = nn.LayerNorm(epsilon=self.epsilon, dtype=dtype, name="embedding_norm")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        for i in range(self.depth):
            x = BERTBlock(
                self.heads,
                self.mlp,
                dropout=self.dropout,
                attention_dropout=self.attention_dropout,
                epsilon=self.epsilon,
                compute=self.compute,
                name=f"block{i}",
            )(x, mask, train=train)
        if self.pool == "none":
            return x.astype(jnp.float32), mask
        if self.pool == "mean":
            return mean_of(x, mask)
        x = x[:, 0]
        if self.pooler is not None:
            x = nn.Dense(self.width, dtype=dtype, kernel_init=_INIT, name="pooler")(x)
            x = jnp.tanh(x) if self.pooler == "tanh" else nn.relu(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x.astype(jnp.float32)


def padded_positions(length: Any, positions: int) -> None:
    """Refuses texts that are longer than an encoder has positions; an open length is any.

    Raises:
      BadInput: that is so.
    """
    if isinstance(length, int) and length > positions:
        raise BadInput(
            "encoder.positions",
            f"{positions}, and a text is of up to {length} tokens",
            "give more, or a smaller max_length",
        )


class MaskedHead(nn.Module):
    """Logits of the tokens of a vocabulary at each position: products with the embeddings themselves.

    Attributes:
      epsilon: of the LayerNorm.
      compute: see `Compute`.
      biased: the dense layer and the LayerNorm have biases; the logits have one in any case.

    Reference: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, in the authors' code.
    """

    epsilon: float
    compute: Compute
    biased: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch token dim"], table: Float[Array, "vocab size"]
    ) -> Float[Array, "batch token vocab"]:
        """The logits, float32.

        Args:
          x: of each token, what the last block gives.
          table: the embeddings.
        """
        dtype = self.compute.dtype
        dense = functools.partial(nn.Dense, table.shape[1], use_bias=self.biased, dtype=dtype)
        norm = functools.partial(nn.LayerNorm, use_bias=self.biased, dtype=dtype)
        x = nn.gelu(dense(kernel_init=_INIT, name="dense")(x), approximate=False)
        x = norm(epsilon=self.epsilon, name="norm")(x)
        bias = self.param("bias", nn.initializers.zeros, (table.shape[0],))
        found = jnp.einsum("btd,vd->btv", x, table.astype(dtype)).astype(jnp.float32)
        return found + jnp.expand_dims(bias, (0, 1))


class MaskedLM(nn.Module):
    """A BERT and `MaskedHead` on it: `features` of each token, `logits` of all tokens, and the `mask`.

    Attributes:
      encoder: a BERT or a ModernBERT, with `pool="none"`.
    """

    encoder: Any

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool) -> dict[str, Array]:
        """A dict of named outputs, float32 but for the mask; `inputs` by name.

        Raises:
          BadInput: the features are of whole texts.
        """
        if self.encoder.pool != "none":
            raise BadInput(
                "encoder.pool", f"{self.encoder.pool}, and each token is asked for", "take none"
            )
        features, mask = called(self.encoder, inputs, train=train)
        table = jnp.asarray(self.encoder.variables["params"]["word"]["embedding"])
        encoder = self.encoder
        head = MaskedHead(encoder.epsilon, encoder.compute, encoder.biased, name="masked_lm")
        return {"features": features, "logits": head(features, table), "mask": mask}


def bert(
    *,
    vocab: int,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp: int = 3072,
    positions: int = 512,
    types: int = 2,
    embedding_size: int | None = None,
    pool: Pool = "class",
    pooler: Pooler | None = "tanh",
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    epsilon: float = 1e-12,
    compute: Compute = Compute(),
) -> BERT:
    """A BERT, BERT-base by default.

    DistilBERT is `depth=6, types=0, pooler=None`, and MiniLM-L6-H384 `width=384, depth=6, mlp=1536,
    pool="mean", pooler=None`.

    Raises:
      BadInput: a number is not positive, or fields do not go together.
    """
    sizes = {"vocab": vocab, "width": width, "depth": depth, "heads": heads, "mlp": mlp}
    for name, size in {**sizes, "positions": positions, "epsilon": epsilon}.items():
        require_positive(f"encoder.{name}", size)
    for fields, fault, mend in bert_faults(
        width=width,
        heads=heads,
        types=types,
        embedding_size=embedding_size,
        pool=pool,
        pooler=pooler,
    ):
        raise BadInput(f"encoder.{fields}", fault, mend)
    return BERT(
        vocab,
        width,
        depth,
        heads,
        mlp,
        positions=positions,
        types=types,
        embedding_size=embedding_size,
        pool=pool,
        pooler=pooler,
        dropout=dropout,
        attention_dropout=attention_dropout,
        epsilon=epsilon,
        compute=compute,
    )


def bert_faults(
    *,
    width: int,
    heads: int,
    types: int,
    embedding_size: int | None,
    pool: Pool,
    pooler: Pooler | None,
) -> Iterator[tuple[str, str, str]]:
    """Field, fault and mend of what does not go together in a BERT."""
    yield from heads_faults(width, heads, fields="heads")
    if types not in (0, 1, 2):
        yield "types", f"{types}", "give 2, of two texts; or 1 or 0, which tell none apart"
    if embedding_size is not None and not 0 < embedding_size < width:
        yield "embedding_size", f"{embedding_size}, and the width is {width}", "give a smaller one"
    if pooler is not None and pool != "class":
        yield "pooler, pool", f"a pooler is on the first token, and pool is {pool}", "leave it out"
