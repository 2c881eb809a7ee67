"""Self-supervised methods: how an encoder learns from images alone.

Each default is its paper's, unless it says otherwise. A momentum is the decay of the target network.
"""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

from kdjax.config.data import Views
from kdjax.config.fields import Count, Decay, Depth, Natural, NonNegative, Positive, Width
from kdjax.config.training import Number, Ramp
from kdjax.ranges import In

Momentum = Annotated[Number, In("[0, 1]")]
"""Of a target network; at one it stays."""

Prototypes = Annotated[int, In("[2, 2^20]")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimCLR:
    """NT-Xent between two views; Chen et al. 2020, https://arxiv.org/abs/2002.05709.

    Attributes:
      temperature: of the cosines.
    """

    name: Literal["simclr"]
    temperature: Positive = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class DCL:
    """NT-Xent without the positive in its denominator; Yeh et al. 2021, https://arxiv.org/abs/2110.06848.

    Attributes:
      temperature: of the cosines.
      sigma: of the weights of the pairs, DCLW; 0.5 in the paper, None for none.
    """

    name: Literal["dcl"]
    temperature: Positive = 0.1
    sigma: Positive | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoCoV2:
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoCoV3:
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class BYOL:
    """Predicts a target network's projections; Grill et al. 2020, https://arxiv.org/abs/2006.07733.

    Attributes:
      predictor: hidden widths of the MLP on the projections; one of 4,096 in the paper.
      momentum: of the target network.
    """

    name: Literal["byol"]
    predictor: tuple[Width, ...] = (512,)
    momentum: Momentum = Ramp(begin=0.996, end=1.0, shape="cosine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimSiam:
    """Predicts its own projections, with a stopped gradient; Chen & He 2020, https://arxiv.org/abs/2011.10566.

    Its projector has a BatchNorm after the last layer, too; this one has none, which costs 0.7 points of
    68.1 there (table 3).

    Attributes:
      bottleneck: hidden width of the predictor, a quarter of the projections' 2,048 in the paper.
    """

    name: Literal["simsiam"]
    bottleneck: Width = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class BarlowTwins:
    """Cross-correlation towards the identity; Zbontar et al. 2021, https://arxiv.org/abs/2103.03230.

    Attributes:
      off_diagonal_weight: the paper's lambda.
    """

    name: Literal["barlow_twins"]
    off_diagonal_weight: NonNegative = 0.005


@dataclasses.dataclass(frozen=True, kw_only=True)
class VICReg:
    """Variance, invariance, covariance; Bardes et al. 2021, https://arxiv.org/abs/2105.04906.

    Attributes:
      invariance, variance, covariance: weights, see `kdjax.losses.vicreg`.
    """

    name: Literal["vicreg"]
    invariance: NonNegative = 25.0
    variance: NonNegative = 25.0
    covariance: NonNegative = 1.0

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if not self.invariance + self.variance + self.covariance:
            yield (
                "invariance, variance, covariance",
                "all three weights are zero; give one of them a weight",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwAV:
    """Predicts the prototypes of another view; Caron et al. 2020, https://arxiv.org/abs/2006.09882.

    Without the queue of earlier projections that its authors use with small batches.

    Attributes:
      prototypes: how many; 3,000 in the paper.
      epsilon: of the assignment, see `kdjax.losses.sinkhorn`.
      iterations: of the assignment.
      temperature: of the prediction.
      freeze_steps: for which the prototypes stay as they begin; 313 in the authors' code.
      local_crops: more views of each example, which predict and are not predicted; 6 in the paper.
      local_views: how they are drawn, None where there are none.
    """

    name: Literal["swav"]
    prototypes: Prototypes = 256
    epsilon: Positive = 0.05
    iterations: Count = 3
    temperature: Positive = 0.1
    freeze_steps: Natural = 0
    local_crops: Natural = 0
    local_views: Views | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        yield from _local(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DINO:
    """Self-distillation from a momentum teacher; Caron et al. 2021, https://arxiv.org/abs/2104.14294.

    The teacher is what the stage leaves, with batch statistics of its own. The projector is as those of
    the other methods are, with BatchNorm and ReLU, where the paper's has GELU alone.

    Attributes:
      prototypes: outputs of the last layer; 65,536 in the paper.
      student_temperature: of the student's scores.
      teacher_temperature: of the teacher's; its ramp takes 30 epochs in the paper.
      momentum: of the teacher.
      center_momentum: of the running mean of the teacher's scores; it moves with each part of a batch.
      freeze_steps: for which the last layer stays as it begins; an epoch in the paper.
      local_crops: more views of each example, which the student alone sees; 8 or 10 in the paper.
      local_views: how they are drawn, None where there are none.
    """

    name: Literal["dino"]
    prototypes: Prototypes = 1024
    student_temperature: Positive = 0.1
    teacher_temperature: Annotated[Number, In("(0, inf)")] = Ramp(begin=0.04, end=0.07)
    momentum: Momentum = Ramp(begin=0.996, end=1.0, shape="cosine")
    center_momentum: Decay = 0.9
    freeze_steps: Natural = 0
    local_crops: Natural = 0
    local_views: Views | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        yield from _local(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rotation:
    """By how many quarters a view is turned; Gidaris et al. 2018, https://arxiv.org/abs/1803.07728.

    All four turns of one view of each example; a linear layer on the projections tells them apart.
    """

    name: Literal["rotation"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MAE:
    """Paints hidden patches from those shown; He et al. 2021, https://arxiv.org/abs/2111.06377.

    For a `vit`, without a projector. Positions are learned, also the decoder's, where the paper's are
    sines. The probe sees the features of the patches that are shown.

    Attributes:
      share: of the patches that are hidden.
      decoder_width: of a token in the decoder; 512 in the paper, for a ViT of 1,024.
      decoder_depth: its blocks; 8 in the paper.
      decoder_heads: of each attention; 16 in the paper.
      normalize: the target is each patch less its mean and over its standard deviation.
    """

    name: Literal["mae"]
    share: Annotated[float, In("(0, 1)")] = 0.75
    decoder_width: Width = 128
    decoder_depth: Depth = 2
    decoder_heads: Width = 4
    normalize: bool = True

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if self.decoder_width % self.decoder_heads:
            yield (
                "decoder_heads, decoder_width",
                f"{self.decoder_heads} do not divide the width of {self.decoder_width}; take a divisor",
            )


Method = (
    SimCLR
    | DCL
    | MoCoV2
    | MoCoV3
    | BYOL
    | SimSiam
    | BarlowTwins
    | VICReg
    | SwAV
    | DINO
    | Rotation
    | MAE
)


def _local(c: SwAV | DINO) -> Iterator[tuple[str, str]]:
    """Local crops without their views, or views of none."""
    if (c.local_views is None) != (c.local_crops == 0):
        yield (
            "local_views, local_crops",
            f"{c.local_crops} local crops; give both local_crops and local_views, or neither",
        )
