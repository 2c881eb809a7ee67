"""Masked language modelling: a text's hidden tokens from all others."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

from kdjax import models, ssl
from kdjax.config.encoders.bert import Texts
from kdjax.config.encoders.modern_bert import ModernBERT
from kdjax.config.methods import Method, Stage
from kdjax.data import sources
from kdjax.inputs import Inputs, Numbers
from kdjax.ranges import In
from kdjax.types import BadInput, Fault
from kdjax.views import draws


def _tokens(inputs: Inputs) -> tuple[Numbers, int]:
    """The tokens of a text, and the one that stands for what is hidden.

    Raises:
      BadInput: there is none.
    """
    for part in inputs.parts:
        if isinstance(part, Numbers) and part.field == sources.TOKENS and part.mask is not None:
            return part, part.mask
    raise BadInput(
        "method.name",
        f"masked_lm hides tokens, and an example is {inputs}",
        "give texts whose tokenizer has a token for it: [MASK] or <mask>",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLM(Method):
    """Says which tokens of a text are hidden; Devlin et al. 2018, https://arxiv.org/abs/1810.04805.

    For a BERT of any size without a projector. Of the tokens that are to be said, 8 of 10 are replaced by
    the one that stands for hidden ones, 1 by any other, and 1 stays; other ones in each epoch. What is
    put on the encoder for it is left behind.

    Attributes:
      share: of the tokens that are to be said.
    """

    name: Literal["masked_lm"]
    share: Annotated[float, In("(0, 1)")] = 0.15

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """See `kdjax.ssl.masked_lm`."""
        encoder = trained.encoder
        assert isinstance(encoder, models.BERT | models.ModernBERT)  # see `misfits`
        return ssl.masked_lm(encoder)

    def draw(
        self,
        recipe: draws.Recipe,
        stage: Stage,
        *,
        stream: str,
        inputs: Inputs,
    ) -> draws.Draw:
        """One view with hidden tokens, all of its tokens, and which are to be said."""
        part, mask = _tokens(inputs)
        assert part.below is not None  # it is one of integers, see `kdjax.data.sources`
        return draws.hidden_tokens(
            recipe,
            stream,
            field=part.field,
            share=self.share,
            mask=mask,
            frame=part.frame,
            below=part.below,
        )

    def misfits(self, stage: Stage) -> Iterator[Fault]:
        """Fields of the stage, or of its method, that do not go together."""
        if not isinstance(stage.encoder, Texts | ModernBERT):
            yield (
                "encoder.name, method.name",
                f"{stage.encoder.name} gives nothing of single tokens",
                "take bert",
            )
            return
        if stage.encoder.pool == "none":
            yield "encoder.pool, method.name", "features are of whole texts", "take class or mean"
        if stage.projector:
            yield "projector, method.name", "masked_lm has a head in its place", "give none: ()"
