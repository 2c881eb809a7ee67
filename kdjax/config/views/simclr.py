"""The views of SimCLR."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Annotated, Literal

from kdjax import views
from kdjax.config.fields import NonNegative, Share
from kdjax.config.views import Frame, Pixels, Ratio, Scale, Views
from kdjax.inputs import Inputs
from kdjax.ranges import In, Multiple
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimCLRViews(Views):
    """See `kdjax.views.simclr`."""

    recipe: Literal["simclr"]
    crop_scale: Scale = (0.08, 1.0)
    crop_ratio: Ratio = (3 / 4, 4 / 3)
    flip: Share = 0.5
    shift: Pixels = 0
    brightness: NonNegative = 0.8
    contrast: NonNegative = 0.8
    saturation: NonNegative = 0.8
    hue: Annotated[float, In("[0, 0.5]")] = 0.2
    jitter: Share = 0.8
    grayscale: Share = 0.2
    blur: Share = 0.5
    blur_kernel: Annotated[int, In("[1, 223]"), Multiple(2, plus=1)] | None = None
    cutout: Pixels = 0
    turn: Annotated[float, In("[0, 180]")] = 0.0
    shear: Share = 0.0
    stretch: Annotated[float, In("[1, 4]")] = 1.0

    def transform(self, frame: Frame) -> views.Recipe:
        """See `kdjax.views.simclr`."""
        return functools.partial(views.simclr, **self.numbers(), **frame.augmented())

    def most_cut(self) -> int:
        """The side of the square that is cut out of a view, in pixels."""
        return self.cutout

    def most_shifted(self) -> int:
        """How far a view is shifted at most, in pixels."""
        return self.shift

    def misfits(self, inputs: Inputs) -> Iterator[Fault]:
        """`(field, fault)` of fields that no view for these inputs can have."""
        kernel = self.blur_kernel
        for image in inputs.images:
            side, channels = max(image.size), image.shape[-1]
            if kernel is not None and not (kernel % 2 and 1 <= kernel <= 2 * side - 1):
                yield (
                    "blur_kernel",
                    f"{kernel} is not an odd number of pixels from 1 to {2 * side - 1}, which reach "
                    f"from one side of a view of {side} to the other",
                )
            if channels in (1, 3):
                continue
            varied = max(self.brightness, self.contrast, self.saturation, self.hue)
            for name, changes in (("jitter", self.jitter * varied), ("grayscale", self.grayscale)):
                if changes > 0:
                    yield (
                        name,
                        f"{getattr(self, name)}, and images of {channels} channels have no colours "
                        "to change, only 1 (grey) or 3 (RGB); give 0.0",
                    )
