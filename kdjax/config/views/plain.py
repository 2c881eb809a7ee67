"""No augmentation."""

import dataclasses
from typing import ClassVar, Literal

from kdjax import views
from kdjax.config.views import Frame, Views


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalViews(Views):
    """No augmentation: see `kdjax.views.eval_view`."""

    augments: ClassVar[bool] = False

    recipe: Literal["eval"]

    def transform(self, frame: Frame) -> views.Recipe:
        """See `kdjax.views.eval_view`; it has nothing in pixels."""
        return lambda key, image: views.eval_view(
            image, size=frame.size, mean=frame.mean, std=frame.std
        )
