"""Views of text."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from jaxtyping import Array, Key

from kdjax import views
from kdjax.config.views import Frame, Scale, Views
from kdjax.data import Dataset, sources
from kdjax.inputs import Inputs
from kdjax.ranges import In
from kdjax.types import BadInput, Fault, length_of
from kdjax.views import draws

Part = Annotated[float, In("[0, 1)")]
"""Of the tokens of a text."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenViews(Views):
    """Text some of whose tokens are hidden, left out or cut off: see `kdjax.views.token_view`.

    What begins and ends a text stays, and so does at least one other token.

    Attributes:
      hide: share of the tokens that are replaced by the one that stands for a hidden one.
      drop: share of the tokens that are left out.
      crop: smallest and largest share of a text that is kept, in one piece; None for all of it.
    """

    recipe: Literal["tokens"]
    hide: Part = 0.0
    drop: Part = 0.0
    crop: Scale | None = None

    @property
    def moves(self) -> bool:
        """Whether what is at one position may be at another one in a view."""
        return self.drop > 0 or self.crop is not None

    def transform(self, frame: Frame) -> views.Recipe:
        """There is none of an image."""
        raise BadInput("recipe", "tokens is a recipe of text", "take one of images")

    def recipe_for(
        self, inputs: Inputs, *, meant_for: Inputs | None = None, examples: Dataset | None = None
    ) -> draws.Recipe:
        """How a view of an example is drawn: what it has of text is changed, all else is as it is.

        Args:
          inputs: of the model that sees the view.
          meant_for: makes no difference: tokens are the same for all.
          examples: likewise.

        Raises:
          BadInput: there is no text, or no token stands for a hidden one.
        """
        if sources.TOKENS not in {part.field for part in inputs.ragged}:
            raise BadInput(
                "recipe", f"tokens is one of text, and an example is {inputs}", "take another"
            )
        known = inputs.fields[sources.TOKENS]
        if self.hide and known.mask is None:
            raise BadInput(
                "hide", f"{self.hide}, and no token stands for a hidden one", "take drop"
            )
        at, length, second = sources.TOKENS, length_of(sources.TOKENS), sources.SECOND

        def draw(key: Key[Array, ""], example: Mapping[str, Array]) -> dict[str, Array]:
            seen = inputs.see(example)
            found = views.token_view(
                key,
                seen[at],
                seen[length],
                seen.get(second),
                hide=self.hide,
                drop=self.drop,
                crop=self.crop,
                mask=known.mask,
                frame=known.frame,
            )
            for name, x in zip((at, length, second), found, strict=True):
                if x is not None:
                    seen[name] = x
            return seen

        return draw

    def unread(self) -> Iterator[tuple[str, str]]:
        """`(field, why)` of fields that nothing reads beside the others."""
        if self.size is not None:
            yield "size", "text has none"

    def misfits(self, inputs: Inputs) -> Iterator[Fault]:
        """`(field, fault)` of fields that no view for these inputs can have."""
        if not self.hide and not self.moves:
            yield "recipe", "tokens without hide, drop or crop is the text itself", "take eval"
