"""The usual views of supervised training."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Annotated, Literal

from kdjax import views
from kdjax.config.fields import Share
from kdjax.config.views import Frame, Pixels, Ratio, Scale, Views
from kdjax.ranges import In


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropFlipViews(Views):
    """See `kdjax.views.crop_flip`."""

    recipe: Literal["crop_flip"]
    crop_scale: Scale | None = None
    crop_ratio: Ratio = (3 / 4, 4 / 3)
    shift: Pixels | None = None
    flip: Share = 0.5
    cutout: Pixels = 0
    turn: Annotated[float, In("[0, 180]")] = 0.0
    shear: Share = 0.0
    stretch: Annotated[float, In("[1, 4]")] = 1.0

    def transform(self, frame: Frame) -> views.Recipe:
        """See `kdjax.views.crop_flip`."""
        return functools.partial(views.crop_flip, **self.numbers(), **frame.augmented())

    def most_cut(self) -> int:
        """The side of the square that is cut out of a view, in pixels."""
        return self.cutout

    def most_shifted(self) -> int:
        """How far a view is shifted at most: not at all by default with a `crop_scale`, else 4 pixels."""
        return (0 if self.crop_scale else 4) if self.shift is None else self.shift

    def unread(self) -> Iterator[tuple[str, str]]:
        """`(field, why)` of fields that nothing reads beside the others."""
        if self.crop_scale is None:
            yield "crop_ratio", "as there is no crop_scale"
        elif self.shift:
            yield "shift", "as crop_scale stands in for it"
