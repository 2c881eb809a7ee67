"""BERT, and what is made of it."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

from kdjax import models
from kdjax.config.encoders import Encoder, but, of_tokens, vocab_of
from kdjax.config.fields import Count, Decay, Depth, Natural, Positive, Width
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class Texts(Encoder):
    """A BERT of any size.

    Attributes:
      vocab: tokens that there are; as many as the data have by default.
      width: of a token.
      depth: blocks.
      heads: of each attention; divides `width`.
      mlp: hidden units of each block.
      positions: how long a text may be, in tokens.
      types: 2 tells the tokens of the two texts of a pair apart; 1 or 0 do not.
      embedding_size: of the table of tokens, which a linear layer makes `width` wide (the factorised
        embedding of ALBERT): `vocab x embedding_size + embedding_size x width` numbers. Of published
        weights with a whole table it is the truncated singular value decomposition. None: as wide.
      pool: the features are those of the first token (`class`), the mean over all tokens, or those of
        every token (`none`), which a task needs that answers at each position.
      pooler: a dense layer on those of the first token, and what is behind it; None for none.
      dropout: share of what is left out in training, of embeddings and blocks.
      attention_dropout: likewise, of the attention.
      epsilon: that each LayerNorm adds to the variance.
    """

    shaped_by: ClassVar[str | None] = "pool"

    vocab: Count | None = None
    width: Width = 768
    depth: Depth = 12
    heads: Width = 12
    mlp: Width = 3072
    positions: Width = 512
    types: Natural = 2
    embedding_size: Width | None = None
    pool: Literal["class", "mean", "none"] = "class"
    pooler: Literal["tanh", "relu"] | None = "tanh"
    dropout: Decay = 0.1
    attention_dropout: Decay = 0.1
    epsilon: Positive = 1e-12

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from models.bert_faults(
            width=self.width,
            heads=self.heads,
            types=self.types,
            embedding_size=self.embedding_size,
            pool=self.pool,
            pooler=self.pooler,
        )

    def given(self, inputs: Inputs) -> "Texts":
        """With the vocabulary of the data."""
        return dataclasses.replace(
            self, vocab=of_tokens(self.name, inputs, vocab=self.vocab, positions=self.positions)
        )

    @property
    def title(self) -> str:
        """What the report calls it: its sizes, then what is not as usual."""
        said = [
            self.name.replace("_", "-"),
            f"{self.depth}x{self.width}",
            but("h", self.heads, 12),
            but("m", self.mlp, 4 * self.width),
            but("p", self.positions, 512),
            but("types", self.types, self._default("types")),
            "" if self.embedding_size is None else f"e{self.embedding_size}",
            "" if self.pool == self._default("pool") else f"pool_{self.pool}",
            "" if self.pooler == self._default("pooler") else f"pooler_{self.pooler}",
        ]
        return "-".join(filter(None, said))

    def _default(self, name: str):
        return self.__dataclass_fields__[name].default

    def module(self, compute: Compute) -> models.BERT:
        """See `kdjax.models.bert`."""
        return models.bert(
            vocab=vocab_of(self.vocab),
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            mlp=self.mlp,
            positions=self.positions,
            types=self.types,
            embedding_size=self.embedding_size,
            pool=self.pool,
            pooler=self.pooler,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            epsilon=self.epsilon,
            compute=compute,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BERT(Texts):
    """BERT-base by default; its features are what the pooler makes of the first token."""

    name: Literal["bert"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilBERT(Texts):
    """DistilBERT-base by default: 6 blocks, no types; those with a classifier have `pooler=relu`."""

    name: Literal["distilbert"]
    depth: Depth = 6
    types: Natural = 0
    pooler: Literal["tanh", "relu"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MiniLM(Texts):
    """MiniLM-L6-H384 by default, as encoders of sentences: the mean over the tokens."""

    name: Literal["minilm"]
    width: Width = 384
    depth: Depth = 6
    mlp: Width = 1536
    pool: Literal["class", "mean", "none"] = "mean"
    pooler: Literal["tanh", "relu"] | None = None
