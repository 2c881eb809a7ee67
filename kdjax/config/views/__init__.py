"""Recipes of views: a file each, with the fields of a config and the function that they make."""

import abc
import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Array, Int, Key

from kdjax import views
from kdjax.choice import Choice, import_all
from kdjax.config.fields import Positive
from kdjax.data import Dataset
from kdjax.inputs import Inputs, Part
from kdjax.ranges import Ascending, In
from kdjax.types import BadInput, Fault, Interpolation
from kdjax.views import draws

Side = Annotated[int, In("[1, 2^14]")]
"""Of a view, or of a part of it, in pixels."""

Size = Side | tuple[Side, Side]
"""Height and width of a view, in pixels, or one integer for both."""

Pixels = Annotated[int, In("[0, 2^14]")]

Area = Annotated[float, In("(0, 1]")]

Scale = Annotated[tuple[Area, Area], Ascending(equal=True)]
"""Smallest and largest area of a crop, as parts of the image's."""

Ratio = Annotated[tuple[Positive, Positive], Ascending(equal=True)]
"""Smallest and largest width of a crop, as parts of its height."""


Lengths = Mapping[str, Int[np.ndarray, " n"]]
"""Of all examples, by ragged field."""


class Frame(NamedTuple):
    """What a view is to be, whatever the recipe; the names are those of the functions of `kdjax.views`.

    Attributes:
      size: height and width of the view, or the side of a square.
      mean: subtracted from pixels in [0, 1]: one number, or one a channel.
      std: divided by, likewise.
      pixels_at: the size that the recipe's pixels are meant for, where that is another one.
      crop: of the evaluation, see `kdjax.views.eval_view`.
      interpolation: likewise.
    """

    size: views.Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels_at: views.Size | None = None
    crop: float | None = None
    interpolation: Interpolation | None = None

    def augmented(self) -> dict[str, Any]:
        """What a recipe that draws the part of the image by itself takes, by name."""
        names = ("size", "mean", "std", "pixels_at")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views(Choice, abc.ABC):
    """How a view of an image is drawn.

    Attributes:
      size: height and width of the view, or one integer for both; the image's own by default.
      augments: it changes images, and so asks for some.
      asks: it says which tokens of a text are to be said, which a stage must ask for.
    """

    tag: ClassVar[str] = "recipe"
    augments: ClassVar[bool] = True
    asks: ClassVar[bool] = False

    size: Size | None = None

    if TYPE_CHECKING:
        recipe: Any

    @property
    def sides(self) -> tuple[int, int] | None:
        """`size` as height and width, None where it is the image's own."""
        return None if self.size is None else views.sides(self.size)

    @property
    def moves(self) -> bool:
        """Whether what is at one position of an example may be at another one in a view."""
        return False

    @abc.abstractmethod
    def transform(self, frame: Frame) -> views.Recipe:
        """`(key, raw image) -> view` in this frame."""

    def recipe_for(
        self, inputs: Inputs, *, meant_for: Inputs | None = None, examples: Dataset | None = None
    ) -> draws.Recipe:
        """How a view of an example is drawn: what it has of images is augmented, all else is as it is.

        Several images of one example are augmented alike.

        Args:
          inputs: of the model that sees the view.
          meant_for: of the one that the recipe's pixels are meant for, where that is another one.
          examples: all training examples, of which a recipe may take what it mixes in; None where there
            are none.

        Raises:
          BadInput: the recipe is one of images, and there is none.
        """
        if self.augments and not inputs.images:
            raise BadInput(
                "recipe",
                f"{self.recipe} is one of images, and an example is {inputs}",
                "take recipe=eval",
            )
        sizes = {image.field: image.size for image in (meant_for or inputs).images}
        drawn = {
            image.field: self.transform(
                Frame(
                    image.size,
                    image.mean,
                    image.std,
                    None if meant_for is None else sizes[image.field],
                    image.crop,
                    image.interpolation,
                )
            )
            for image in inputs.images
        }

        def draw(key: Key[Array, ""], example: Mapping[str, Array]) -> dict[str, Array]:
            def view(part: Part) -> Array:
                raw = example[part.field]
                return drawn[part.field](key, raw) if part.field in drawn else part.see(raw)

            return {part.field: view(part) for part in inputs.parts}

        return draw

    def shortest(self, lengths: Lengths, inputs: Inputs) -> Lengths:
        """How long a view is at least of examples that differ in length: by default as long as they are.

        Args:
          lengths: of the examples, by ragged field.
          inputs: of the model that sees the views.
        """
        return lengths

    def most_cut(self) -> int:
        """The side of the square that is cut out of a view, in pixels."""
        return 0

    def most_shifted(self) -> int:
        """How far a view is shifted at most, in pixels."""
        return 0

    def too_large(self, inputs: Inputs) -> Iterator[Fault]:
        """`(field, fault)` of what would leave nothing of a view."""
        for height, width in (image.size for image in inputs.images):
            cut, shifted = self.most_cut(), self.most_shifted()
            for name, pixels, leaves_nothing in (
                ("cutout", cut, cut > max(height, width)),
                ("shift", shifted, shifted >= min(height, width)),
            ):
                if leaves_nothing:
                    yield (
                        name,
                        f"{pixels} pixels leave nothing of a view of {height} x {width}",
                        "give fewer",
                    )

    def misfits(self, inputs: Inputs) -> Iterator[Fault]:
        """`(field, fault)` of fields that no view for these inputs can have."""
        yield from ()

    def unread(self) -> Iterator[tuple[str, str]]:
        """`(field, why)` of fields that nothing reads beside the others."""
        yield from ()

    def numbers(self) -> dict[str, Any]:
        """The fields by name that are those of the function, too."""
        return {n: value for n, value in vars(self).items() if n not in ("recipe", "size")}


import_all(__name__, __path__)
