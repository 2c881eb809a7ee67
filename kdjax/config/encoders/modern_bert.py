"""ModernBERT."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

from kdjax import models
from kdjax.config.encoders import Encoder, but, of_tokens, vocab_of
from kdjax.config.fields import Count, Decay, Depth, Positive, Width
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModernBERT(Encoder):
    """A ModernBERT, ModernBERT-base by default: see `kdjax.models.ModernBERT`.

    The two texts of a pair are told apart by the token between them alone.

    Attributes:
      vocab: tokens that there are; as many as the data have by default.
      width: of a token.
      depth: blocks.
      heads: of each attention; parts `width` into even numbers.
      mlp: hidden units of each MLP, and as many gates.
      positions: how long a text may be, in tokens.
      window: tokens that a block sees which does not see the whole text, half of them on each side.
      whole_every: block 0, and each so many blocks on, sees the whole text.
      theta: of the rotations of these: about how many tokens the slowest takes for a radian.
      window_theta: of those of the others.
      pool: the features are those of the first token (`class`), the mean over all tokens, or those of
        every token (`none`), which a task needs that answers at each position.
      dropout: share of what is left out in training, of embeddings and blocks.
      attention_dropout: likewise, of the attention.
      epsilon: that each LayerNorm adds to the variance.
    """

    shaped_by: ClassVar[str | None] = "pool"

    name: Literal["modernbert"]
    vocab: Count | None = None
    width: Width = 768
    depth: Depth = 22
    heads: Width = 12
    mlp: Width = 1152
    positions: Width = 8192
    window: Count = 128
    whole_every: Count = 3
    theta: Positive = 160_000.0
    window_theta: Positive = 10_000.0
    pool: Literal["class", "mean", "none"] = "class"
    dropout: Decay = 0.0
    attention_dropout: Decay = 0.0
    epsilon: Positive = 1e-5

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from models.modern_bert_faults(width=self.width, heads=self.heads)

    def given(self, inputs: Inputs) -> "ModernBERT":
        """With the vocabulary of the data."""
        return dataclasses.replace(
            self, vocab=of_tokens(self.name, inputs, vocab=self.vocab, positions=self.positions)
        )

    @property
    def title(self) -> str:
        """What the report calls it: its sizes, then what is not as usual."""
        said = [
            f"modernbert-{self.depth}x{self.width}",
            but("h", self.heads, 12),
            but("m", self.mlp, 3 * self.width // 2),
            but("p", self.positions, 8192),
            but("w", self.window, 128),
            but("every", self.whole_every, 3),
            "" if self.pool == "class" else f"pool_{self.pool}",
        ]
        return "-".join(filter(None, said))

    def module(self, compute: Compute) -> models.ModernBERT:
        """See `kdjax.models.modern_bert`."""
        return models.modern_bert(
            vocab=vocab_of(self.vocab),
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            mlp=self.mlp,
            positions=self.positions,
            window=self.window,
            whole_every=self.whole_every,
            theta=self.theta,
            window_theta=self.window_theta,
            pool=self.pool,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            epsilon=self.epsilon,
            compute=compute,
        )
