"""ConvNeXt."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

from kdjax import models
from kdjax.config.encoders import Encoder, but
from kdjax.config.fields import Depth, Positive, Width
from kdjax.config.views import Side
from kdjax.models import Compute
from kdjax.ranges import AtLeast
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNeXt(Encoder):
    """A ConvNeXt without stochastic depth; ConvNeXt-T by default.

    Attributes:
      depths: blocks of each stage.
      widths: channels of each stage, as many as there are depths.
      patch: side in pixels of what the stem reads, and its stride; 4 as published, 1 or 2 for small
        images. Each stage but the first halves the image.
      layer_scale: what the scale of each channel of a block's branch begins with; None for no scale.
    """

    name: Literal["convnext"]
    depths: Annotated[tuple[Depth, ...], AtLeast(1)] = (3, 3, 9, 3)
    widths: Annotated[tuple[Width, ...], AtLeast(1)] = (96, 192, 384, 768)
    patch: Side = 4
    layer_scale: Positive | None = 1e-6

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if len(self.depths) != len(self.widths):
            yield (
                "depths, widths",
                f"{len(self.depths)} depths and {len(self.widths)} widths",
                "give one of each for a stage",
            )

    @property
    def title(self) -> str:
        """What the report calls it."""
        depths, widths = ("-".join(map(str, each)) for each in (self.depths, self.widths))
        scale = "-no_ls" if self.layer_scale is None else but("-ls", self.layer_scale, 1e-6)
        return f"convnext-d{depths}-w{widths}" + but("-p", self.patch, 4) + scale

    def module(self, compute: Compute) -> models.ConvNeXt:
        """See `kdjax.models.convnext`."""
        return models.convnext(
            depths=self.depths,
            widths=self.widths,
            patch=self.patch,
            layer_scale=self.layer_scale,
            compute=compute,
        )
