"""No augmentation."""

import dataclasses
from typing import ClassVar, Literal

from kdjax import views
from kdjax.config.views import Area, Frame, Views


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalViews(Views):
    """No augmentation: see `kdjax.views.eval_view`.

    Attributes:
      crop: the short side of the view as a part of that of the image, whose centre it is: 0.875, say, for
        a published network. None: as `data` says it.
    """

    augments: ClassVar[bool] = False

    recipe: Literal["eval"]
    crop: Area | None = None

    def transform(self, frame: Frame) -> views.Recipe:
        """See `kdjax.views.eval_view`; it has nothing in pixels."""
        return lambda key, image: views.eval_view(
            image,
            size=frame.size,
            crop=frame.crop if self.crop is None else self.crop,
            interpolation=frame.interpolation,
            mean=frame.mean,
            std=frame.std,
        )
