"""Recipes of views: a file each, with the fields of a config and the function that they make."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from kdjax.choice import Choice, import_all
from kdjax.config.fields import Positive
from kdjax.ranges import Ascending, In
from kdjax.views import Recipe

Size = Annotated[int, In("[1, 2^14]")]
"""Side of a view, in pixels."""

Pixels = Annotated[int, In("[0, 2^14]")]

Area = Annotated[float, In("(0, 1]")]

Scale = Annotated[tuple[Area, Area], Ascending(equal=True)]
"""Smallest and largest area of a crop, as parts of the image's."""

Ratio = Annotated[tuple[Positive, Positive], Ascending(equal=True)]
"""Smallest and largest width of a crop, as parts of its height."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views(Choice):
    """How a view of an image is drawn.

    Attributes:
      size: side of the view, the image's own by default.
      augments: it changes images, and so asks for some.
    """

    tag: ClassVar[str] = "recipe"
    augments: ClassVar[bool] = True

    size: Size | None = None

    if TYPE_CHECKING:
        recipe: Any

    def transform(
        self,
        *,
        size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        pixels_at: int | None = None,
    ) -> Recipe:
        """`(key, raw image) -> view` of this size, normalised.

        Args:
          size: side of the view.
          mean: of each channel, or of all.
          std: likewise.
          pixels_at: the size that the recipe's pixels are meant for, where that is another one.
        """
        raise NotImplementedError

    def pixels(self) -> Mapping[str, int]:
        """The side that a view must have at least, by the field that asks for it."""
        return {}

    def misfits(self, *, size: int) -> Iterator[tuple[str, str]]:
        """`(field, fault)` of fields that no view of this size can have."""
        yield from ()

    def unread(self) -> Iterator[tuple[str, str]]:
        """`(field, why)` of fields that nothing reads beside the others."""
        yield from ()

    def numbers(self) -> dict[str, Any]:
        """The fields by name that are those of the function, too."""
        return {n: value for n, value in vars(self).items() if n not in ("recipe", "size")}


import_all(__name__, __path__)
