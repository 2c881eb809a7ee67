"""Self-supervised methods: how an encoder learns from images alone.

Each default is its paper's, unless it says otherwise. A momentum is the decay of the target network.
"""

import dataclasses
from typing import Literal

from kdjax.config.data import Views
from kdjax.config.training import Number, Ramp


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimCLR:
    """NT-Xent between two views; Chen et al. 2020, https://arxiv.org/abs/2002.05709.

    Attributes:
      temperature: of the cosines.
    """

    name: Literal["simclr"]
    temperature: float = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class DCL:
    """NT-Xent without the positive in its denominator; Yeh et al. 2021, https://arxiv.org/abs/2110.06848.

    Attributes:
      temperature: of the cosines.
      sigma: of the weights of the pairs, DCLW; 0.5 in the paper, None for none.
    """

    name: Literal["dcl"]
    temperature: float = 0.1
    sigma: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoCoV2:
    """A queue of a momentum encoder's projections; Chen et al. 2020, https://arxiv.org/abs/2003.04297.

    Attributes:
      queue: rows of it, a multiple of the batch; 65,536 in the paper.
      temperature: of the cosines.
      momentum: of the target network.
    """

    name: Literal["moco_v2"]
    queue: int = 4096
    temperature: float = 0.2
    momentum: Number = 0.999


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
    predictor: tuple[int, ...] = (512,)
    temperature: float = 0.2
    momentum: Number = Ramp(begin=0.99, end=1.0, shape="cosine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BYOL:
    """Predicts a target network's projections; Grill et al. 2020, https://arxiv.org/abs/2006.07733.

    Attributes:
      predictor: hidden widths of the MLP on the projections; one of 4,096 in the paper.
      momentum: of the target network.
    """

    name: Literal["byol"]
    predictor: tuple[int, ...] = (512,)
    momentum: Number = Ramp(begin=0.996, end=1.0, shape="cosine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimSiam:
    """Predicts its own projections, with a stopped gradient; Chen & He 2020, https://arxiv.org/abs/2011.10566.

    Its projector has a BatchNorm after the last layer, too; this one has none, which costs 0.7 points of
    68.1 there (table 3).

    Attributes:
      bottleneck: hidden width of the predictor, a quarter of the projections' 2,048 in the paper.
    """

    name: Literal["simsiam"]
    bottleneck: int = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class BarlowTwins:
    """Cross-correlation towards the identity; Zbontar et al. 2021, https://arxiv.org/abs/2103.03230.

    Attributes:
      off_diagonal_weight: the paper's lambda.
    """

    name: Literal["barlow_twins"]
    off_diagonal_weight: float = 0.005


@dataclasses.dataclass(frozen=True, kw_only=True)
class VICReg:
    """Variance, invariance, covariance; Bardes et al. 2021, https://arxiv.org/abs/2105.04906.

    Attributes:
      invariance, variance, covariance: weights, see `kdjax.losses.vicreg`.
    """

    name: Literal["vicreg"]
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0


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
    prototypes: int = 256
    epsilon: float = 0.05
    iterations: int = 3
    temperature: float = 0.1
    freeze_steps: int = 0
    local_crops: int = 0
    local_views: Views | None = None


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
    prototypes: int = 1024
    student_temperature: float = 0.1
    teacher_temperature: Number = Ramp(begin=0.04, end=0.07)
    momentum: Number = Ramp(begin=0.996, end=1.0, shape="cosine")
    center_momentum: float = 0.9
    freeze_steps: int = 0
    local_crops: int = 0
    local_views: Views | None = None


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
    share: float = 0.75
    decoder_width: int = 128
    decoder_depth: int = 2
    decoder_heads: int = 4
    normalize: bool = True


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
