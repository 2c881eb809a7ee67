"""Methods that contrast examples with one another."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

from kdjax import ssl
from kdjax.config.fields import Count, Positive, Width
from kdjax.config.methods import Method, Momentum, Stage
from kdjax.config.training import Ramp, over_steps
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimCLR(Method):
    """NT-Xent between two views; Chen et al. 2020, https://arxiv.org/abs/2002.05709.

    Attributes:
      temperature: of the cosines.
    """

    name: Literal["simclr"]
    temperature: Positive = 0.5

    least_rows: ClassVar = 2

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """See `kdjax.ssl.simclr`."""
        return ssl.simclr(
            trained.model, temperature=self.temperature, axis_name=trained.compute.axis_name
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DCL(Method):
    """NT-Xent without the positive in its denominator; Yeh et al. 2021, https://arxiv.org/abs/2110.06848.

    Attributes:
      temperature: of the cosines.
      sigma: of the weights of the pairs, DCLW; 0.5 in the paper, None for none.
    """

    name: Literal["dcl"]
    temperature: Positive = 0.1
    sigma: Positive | None = None

    least_rows: ClassVar = 2

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """See `kdjax.ssl.dcl`."""
        return ssl.dcl(
            trained.model,
            temperature=self.temperature,
            sigma=self.sigma,
            axis_name=trained.compute.axis_name,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoCoV2(Method):
    """A queue of a momentum encoder's projections; Chen et al. 2020, https://arxiv.org/abs/2003.04297.

    Attributes:
      queue: rows of it, a multiple of the batch; 65,536 in the paper.
      temperature: of the cosines.
      momentum: of the target network.
    """

    name: Literal["moco_v2"]
    queue: Count = 4096
    temperature: Positive = 0.2
    momentum: Momentum = 0.999

    has_target: ClassVar = True

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """See `kdjax.ssl.moco_v2`."""
        return ssl.moco_v2(
            trained.model,
            width=trained.width,
            queue=self.queue,
            temperature=self.temperature,
            momentum=over_steps(self.momentum, steps=trained.steps),
            axis_name=trained.compute.axis_name,
        )

    def misfits(self, stage: Stage) -> Iterator[Fault]:
        """Fields of the stage, or of its method, that do not go together."""
        if self.queue % stage.batch:
            yield (
                "method.queue, batch",
                f"{self.queue} is no multiple of the batch, {stage.batch}",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoCoV3(Method):
    """A momentum encoder and the batch's negatives; Chen, Xie & He 2021, https://arxiv.org/abs/2104.02057.

    The temperature is that of its vision transformers.

    Attributes:
      predictor: hidden widths of the MLP on the projections; one of 4,096 in the paper.
      temperature: of the cosines.
      momentum: of the target network.
    """

    name: Literal["moco_v3"]
    predictor: tuple[Width, ...] = (512,)
    temperature: Positive = 0.2
    momentum: Momentum = Ramp(begin=0.99, end=1.0, shape="cosine")

    least_rows: ClassVar = 2
    has_target: ClassVar = True

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """See `kdjax.ssl.moco_v3`."""
        return ssl.moco_v3(
            trained.model,
            trained.predictor(*self.predictor),
            width=trained.width,
            temperature=self.temperature,
            momentum=over_steps(self.momentum, steps=trained.steps),
            axis_name=trained.compute.axis_name,
        )
