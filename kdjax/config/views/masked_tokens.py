"""Views of text some of whose tokens are hidden, and are to be said."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from jaxtyping import Array, Key

from kdjax import views
from kdjax.config.views import Frame, Views
from kdjax.data import Dataset, sources
from kdjax.inputs import Inputs
from kdjax.ranges import In
from kdjax.types import BadInput, length_of
from kdjax.views import draws


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedTokens(Views):
    """Text as a masked language model is asked about it: see `kdjax.views.masked_tokens`.

    Other tokens are hidden in each view. Those that are have a label, whether `mask`, another token or
    their own is in their place, and all others have none.

    Attributes:
      share: of the tokens that are to be said.
    """

    recipe: Literal["masked_tokens"]
    share: Annotated[float, In("(0, 1)")] = 0.15

    asks: ClassVar[bool] = True

    def transform(self, frame: Frame) -> views.Recipe:
        """There is none of an image."""
        raise BadInput("recipe", "masked_tokens is a recipe of text", "take one of images")

    def recipe_for(
        self, inputs: Inputs, *, meant_for: Inputs | None = None, examples: Dataset | None = None
    ) -> draws.Recipe:
        """How a view is drawn: what a model is given, and which of its tokens are to be said.

        Args:
          inputs: of the model that sees the view.
          meant_for: makes no difference: tokens are the same for all.
          examples: likewise.

        Raises:
          BadInput: there is no text, or no token stands for a hidden one.
        """
        tokens = inputs.fields.get(sources.TOKENS)
        if tokens is None or tokens.mask is None or tokens.below is None:
            raise BadInput(
                "recipe",
                f"masked_tokens hides tokens, and an example is {inputs}",
                "give texts whose tokenizer has a token for it: [MASK] or <mask>",
            )
        at, how = sources.TOKENS, {"mask": tokens.mask, "below": tokens.below}

        def draw(key: Key[Array, ""], example: Mapping[str, Array]) -> dict[str, Array]:
            seen = inputs.see(example)
            found, hidden = views.masked_tokens(
                key,
                seen[at],
                seen[length_of(at)],
                share=self.share,
                frame=tokens.frame,
                **how,
            )
            return {**seen, at: found, draws.HIDDEN: hidden}

        return draw

    def unread(self) -> Iterator[tuple[str, str]]:
        """`(field, why)` of fields that nothing reads beside the others."""
        if self.size is not None:
            yield "size", "text has none"
