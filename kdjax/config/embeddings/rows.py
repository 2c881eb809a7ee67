"""Row by row."""

import dataclasses
from typing import ClassVar, Literal

from kdjax import losses, train
from kdjax.config.embeddings import EmbeddingMethod, of_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingCosine(EmbeddingMethod):
    """`1 - cos` with the teacher's own row: see `kdjax.losses.embedding_cosine`."""

    name: Literal["cosine"]

    row_by_row: ClassVar = True

    def terms(self, *, axis_name: str | None = None) -> train.Terms:
        """See `kdjax.losses.embedding_cosine`."""
        return {"cosine": (1.0, of_rows(losses.embedding_cosine))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingMSE(EmbeddingMethod):
    """The squared difference from the teacher's own row: see `kdjax.losses.embedding_mse`."""

    name: Literal["mse"]

    row_by_row: ClassVar = True

    def terms(self, *, axis_name: str | None = None) -> train.Terms:
        """See `kdjax.losses.embedding_mse`."""
        return {"mse": (1.0, of_rows(losses.embedding_mse))}
