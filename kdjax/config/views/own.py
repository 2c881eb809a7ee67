"""A recipe of views of the user's."""

import dataclasses
from typing import ClassVar

from kdjax import views
from kdjax.config import own
from kdjax.config.views import Frame, Views
from kdjax.types import BadInput


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnViews(own.Own, Views):
    """A recipe of views: `(key, image, *, size, ...) -> view`, pure, of one image.

    Both are float32 from 0 to 1; `size` is the height and the width of the view, which is [height, width,
    channel], and is normalised as the data say. It may take `pixels_at`, the size that what is in pixels
    is given for, where that is another one, or None.
    """

    called_with: ClassVar[tuple[str, ...]] = ("key", "image")
    offered: ClassVar[tuple[str, ...]] = ("size", "pixels_at")

    def transform(self, frame: Frame) -> views.Recipe:
        """The function, then normalisation.

        Raises:
          BadInput: as it is traced, where it gives no such view.
        """
        size, at = views.sides(frame.size), frame.pixels_at
        pixels_at = None if at is None else views.sides(at, name="pixels_at")
        function = self.made("function", size=size, pixels_at=pixels_at)

        def draw(key, image):
            found = function(key, views.to_float(image))
            wanted = (*size, image.shape[-1])
            if getattr(found, "shape", None) != wanted or found.dtype != "float32":
                raise BadInput(
                    "function",
                    f"{self.function} gave {own.shown(found)}",
                    f"a view is float32 {wanted}",
                )
            return views.normalize(found, mean=frame.mean, std=frame.std)

        return draw
