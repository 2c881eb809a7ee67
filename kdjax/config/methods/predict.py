"""Methods that predict another view's projection, without negatives."""

import dataclasses
from typing import ClassVar, Literal

from kdjax import ssl
from kdjax.config.fields import Width
from kdjax.config.methods import Method, Momentum
from kdjax.config.training import Ramp, over_steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class BYOL(Method):
    """Predicts a target network's projections; Grill et al. 2020, https://arxiv.org/abs/2006.07733.

    Attributes:
      predictor: hidden widths of the MLP on the projections; one of 4,096 in the paper.
      momentum: of the target network.
    """

    name: Literal["byol"]
    predictor: tuple[Width, ...] = (512,)
    momentum: Momentum = Ramp(begin=0.996, end=1.0, shape="cosine")

    has_target: ClassVar = True
    has_predictor: ClassVar = True

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """See `kdjax.ssl.byol`."""
        return ssl.byol(
            trained.model,
            trained.predictor(*self.predictor),
            width=trained.width,
            momentum=over_steps(self.momentum, steps=trained.steps),
            axis_name=trained.compute.axis_name,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimSiam(Method):
    """Predicts its own projections, with a stopped gradient; Chen & He 2020, https://arxiv.org/abs/2011.10566.

    Its projector has a BatchNorm after the last layer, too; this one has none, which costs 0.7 points of
    68.1 there (table 3).

    Attributes:
      bottleneck: hidden width of the predictor, a quarter of the projections' 2,048 in the paper.
    """

    name: Literal["simsiam"]
    bottleneck: Width = 512

    has_predictor: ClassVar = True

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """See `kdjax.ssl.simsiam`."""
        return ssl.simsiam(
            trained.model,
            trained.predictor(self.bottleneck),
            width=trained.width,
            axis_name=trained.compute.axis_name,
        )
