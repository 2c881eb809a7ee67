"""The mean over the embeddings of a text."""

import dataclasses
from typing import Literal

from kdjax import models
from kdjax.config.encoders import Encoder, of_tokens, vocab_of
from kdjax.config.fields import Count, Decay, Width
from kdjax.inputs import Inputs
from kdjax.models import Compute


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagOfEmbeddings(Encoder):
    """The mean over the embeddings of a text's tokens, and an MLP on it.

    Attributes:
      vocab: tokens that there are; as many as the data have by default.
      width: of an embedding.
      hidden: units of the layers of the MLP; none for no MLP.
      dropout: share of the features that is left out in training.
    """

    name: Literal["bag_of_embeddings"]
    vocab: Count | None = None
    width: Width = 128
    hidden: tuple[Width, ...] = ()
    dropout: Decay = 0.0

    def given(self, inputs: Inputs) -> "BagOfEmbeddings":
        """With the vocabulary of the data."""
        return dataclasses.replace(self, vocab=of_tokens(self.name, inputs, vocab=self.vocab))

    @property
    def title(self) -> str:
        """What the report calls it."""
        return "-".join(map(str, ("bag", self.width, *self.hidden)))

    def module(self, compute: Compute) -> models.BagOfEmbeddings:
        """See `kdjax.models.BagOfEmbeddings`."""
        return models.BagOfEmbeddings(
            vocab_of(self.vocab), self.width, self.hidden, dropout=self.dropout, compute=compute
        )
