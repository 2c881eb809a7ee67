"""LSTMs, of texts and of whatever else has rows."""

import dataclasses
from typing import Annotated, ClassVar, Literal

import flax.linen as nn

from kdjax import models
from kdjax.config.encoders import Encoder, of_tokens
from kdjax.config.fields import Count, Decay, Width
from kdjax.data import sources
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.ranges import AtLeast
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class LSTM(Encoder):
    """Layers of LSTMs over the tokens of a text, or over the rows of what is no text.

    Rows are those of a picture, from the top; or the frames of a recording, as the `net` of `log_mel`.

    Attributes:
      widths: hidden units of each layer, in each direction.
      bidirectional: each layer reads forwards and backwards.
      pool: the features are the mean over all steps (`mean`), the last state (`last`), or those of every
        step (`none`), which a task needs that answers at each position.
      dropout: share of what is left out in training, between layers and of the features.
      vocab: tokens that there are; as many as the data have by default. Only of texts.
      embedding: width of a token. Only of texts.
    """

    shaped_by: ClassVar[str | None] = "pool"

    name: Literal["lstm"]
    widths: Annotated[tuple[Width, ...], AtLeast(1)] = (128,)
    bidirectional: bool = False
    pool: models.SequencePool = "mean"
    dropout: Decay = 0.0
    vocab: Count | None = None
    embedding: Width = 128

    def given(self, inputs: Inputs) -> "LSTM":
        """With the vocabulary of the data, where they are texts."""
        if self.vocab is None and sources.TOKENS not in inputs.fields:
            return self
        return dataclasses.replace(self, vocab=of_tokens(self.name, inputs, vocab=self.vocab))

    def unstreamable(self) -> Fault | None:
        """In both directions it begins at the end."""
        if self.bidirectional:
            return "bidirectional", "True, and the end is not known", "leave it out"
        return None

    @property
    def title(self) -> str:
        """What the report calls it."""
        name = "bilstm" if self.bidirectional else "lstm"
        return "-".join(map(str, (name, *self.widths)))

    def module(self, compute: Compute) -> nn.Module:
        """See `kdjax.models.RecurrentNet` and `RecurrentText`."""
        net = models.RecurrentNet(
            self.widths,
            bidirectional=self.bidirectional,
            pool=self.pool,
            dropout=self.dropout,
            compute=compute,
        )
        if self.vocab is None:
            return net
        return models.RecurrentText(self.vocab, self.embedding, net, compute=compute)
