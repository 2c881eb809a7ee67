"""Masked prediction of frames: a recording's hidden frames from all others."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from kdjax import models, ssl
from kdjax.config.encoders import Encoder
from kdjax.config.encoders.log_mel import LogMel
from kdjax.config.fields import Count, Positive, Text, Width
from kdjax.config.methods import Asked, Method, Stage
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.ranges import In
from kdjax.types import Fault
from kdjax.views import draws


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedFrames(Method):
    """Says which cluster each hidden frame is of; Hsu et al. 2021, https://arxiv.org/abs/2106.07447.

    HuBERT, for a `log_mel` of an LSTM or a Conformer that pools frames, without a projector. Clusters are
    of cepstra at first; a second stage takes those of what the encoder of the first one gives. The
    classifier of clusters is left behind. Later stages begin with the encoder: `weights=dict(stage=...)`.

    Attributes:
      clusters: how many; 100, then 500 in the paper.
      of: a stage whose encoder's frames are clustered; None for the cepstra of the encoder's own frames.
      cepstrum: coefficients of a frame that are clustered, where `of` is None; the paper adds slopes.
      examples: training recordings that the clusters are found on, drawn by the seed; None takes 256,
        or all where there are fewer.
      share: of the frames, that begin a span of hidden ones.
      span: frames of a span.
      width: of what is compared with an embedding of each cluster.
      temperature: divisor of the cosine between the two.
    """

    name: Literal["masked_frames"]
    clusters: Count = 100
    of: Text | None = None
    cepstrum: Width = 13
    examples: Count | None = None
    share: Annotated[float, In("(0, 1)")] = 0.08
    span: Count = 10
    width: Width = 256
    temperature: Positive = 0.1

    @property
    def stages(self) -> tuple[str, ...]:
        """See `Method`."""
        return () if self.of is None else (self.of,)

    def asks(self, encoder: Encoder) -> Asked:
        """See `Method`."""
        if self.of is not None:
            return Asked(self.clusters, self.examples, self.of)
        assert isinstance(encoder, LogMel)  # see `misfits`
        cepstra = dataclasses.replace(encoder, cepstrum=self.cepstrum).module(Compute())
        return Asked(self.clusters, self.examples, cepstra)

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """See `kdjax.ssl.masked_frames`."""
        return ssl.masked_frames(
            trained.encoder,
            clusters=self.clusters,
            width=self.width,
            temperature=self.temperature,
        )

    def draw(
        self,
        recipe: draws.Recipe,
        stage: Stage,
        *,
        stream: str,
        inputs: Inputs,
    ) -> draws.Draw:
        """One view, the clusters of its frames, and which are hidden."""
        assert isinstance(stage.encoder, LogMel)  # see `misfits`
        module = stage.encoder.module(Compute())

        def frames(seen: Mapping[str, Any]) -> tuple[int, Int[Array, " batch"]]:
            found = jax.eval_shape(
                lambda: module.apply({}, **seen, method=models.OnLogMel.spectra)[0]
            )
            rows, most = found.shape[:2]
            _, *lengths = seen.values()
            if not lengths:
                return most, jnp.full(rows, most)
            return most, jnp.maximum(module.front.frames(lengths[0]), 1)

        return draws.hidden_frames(recipe, stream, frames=frames, share=self.share, span=self.span)

    def misfits(self, stage: Stage) -> Iterator[Fault]:
        """Fields of the stage, or of its method, that do not go together."""
        encoder = stage.encoder
        if not isinstance(encoder, LogMel) or encoder.net.shaped_by != "pool":
            yield (
                "encoder, method.name",
                f"{encoder.title} gives nothing of single frames",
                "take log_mel with an lstm or a conformer",
            )
            return
        if getattr(encoder.net, "pool", None) != "mean":
            yield "encoder.net.pool, method.name", "the features are means of frames", "give mean"
        if not encoder.normalize:
            yield (
                "encoder.normalize, method.name",
                "hidden frames are zeros, which are the mean of normalised spectra",
                "set normalize=True",
            )
        if self.of is None and self.cepstrum > encoder.bands:
            yield (
                "method.cepstrum, encoder.bands",
                f"{self.cepstrum} of {encoder.bands} bands",
                "give fewer",
            )
        if stage.projector:
            yield "projector, method.name", "masked_frames has a head in its place", "give none: ()"
