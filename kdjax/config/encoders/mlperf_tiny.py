"""The networks of MLPerf Tiny."""

import dataclasses
from typing import Literal

from kdjax import models
from kdjax.config.encoders import Encoder, but
from kdjax.config.fields import Depth, Width
from kdjax.models import Compute


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLPerfResNet8(Encoder):
    """MLPerf Tiny's ResNet-8, for pictures; `cifar_resnet` has that of the distillation tables.

    Attributes:
      width: channels of the stem; the blocks have 1, 2 and 4 times as many.
    """

    name: Literal["mlperf_resnet8"]
    width: Width = 16

    @property
    def title(self) -> str:
        """What the report calls it."""
        return "mlperf-resnet8" + but("-w", self.width, 16)

    def module(self, compute: Compute) -> models.TinyResNet:
        """See `kdjax.models.mlperf_resnet8`."""
        return models.mlperf_resnet8(width=self.width, compute=compute)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DSCNN(Encoder):
    """MLPerf Tiny's DS-CNN, for the spectrograms of spoken words.

    Attributes:
      width: channels throughout.
      blocks: depthwise separable convolutions.
    """

    name: Literal["ds_cnn"]
    width: Width = 64
    blocks: Depth = 4

    @property
    def title(self) -> str:
        """What the report calls it."""
        return "ds-cnn" + but("-w", self.width, 64) + but("-d", self.blocks, 4)

    def module(self, compute: Compute) -> models.DSCNN:
        """See `kdjax.models.ds_cnn`."""
        return models.ds_cnn(width=self.width, blocks=self.blocks, compute=compute)
