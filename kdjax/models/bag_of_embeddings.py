"""The mean over the embeddings of a text's tokens, in whatever order they are."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kdjax.models.blocks import Compute
from kdjax.models.sequences import mask_of, mean_of


class BagOfEmbeddings(nn.Module):
    """The mean of the embeddings of all tokens, and an MLP on it.

    Attributes:
      vocab: tokens that there are.
      width: of an embedding.
      hidden: units of the layers of the MLP, each with ReLU; none leaves the mean as it is.
      dropout: of the features.
      compute: see `Compute`.

    Reference: Joulin et al. 2016, https://arxiv.org/abs/1607.01759, sec. 2, of single words.
    """

    vocab: int
    width: int
    hidden: Sequence[int] = ()
    dropout: float = 0.0
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "batch token"],
        tokens_length: Int[Array, " batch"] | None = None,
        *,
        train: bool,
    ) -> Float[Array, "batch dim"]:
        """The features, float32.

        Args:
          tokens: as integers below `vocab`.
          tokens_length: how many of each text there are, the others are padding; None for all.
          train: with dropout.
        """
        dtype = self.compute.dtype
        x = nn.Embed(self.vocab, self.width, dtype=dtype, name="word")(tokens)
        x = mean_of(x, mask_of(tokens, tokens_length)).astype(dtype)
        for i, units in enumerate(self.hidden):
            x = nn.relu(nn.Dense(units, dtype=dtype, name=f"dense{i}")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x.astype(jnp.float32)
