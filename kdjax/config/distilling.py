"""What a student learns from its teacher: how logits are compared, and which features with them.

The weights of features are by default those of mdistiller (https://github.com/megvii-research/mdistiller),
where the cross-entropy has a weight of one and there is no term of the logits; those of `correlation`
and `fsp` are RepDistiller's and one. They are for CIFAR-100: a term's size depends on the network.
"""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from kdjax.config.fields import Count, Decay, NonNegative, Positive, Text, Width
from kdjax.config.training import Weight
from kdjax.ranges import AtLeast, In


@dataclasses.dataclass(frozen=True, kw_only=True)
class KL:
    """`kdjax.losses.kd_kl`."""

    name: Literal["kl"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DKD:
    """`kdjax.losses.dkd`: the target class against the rest, and the rest among themselves.

    Attributes:
      alpha: weight of the first.
      beta: of the second.
      target: of `label` the term is a mean over the rows whose labels may be used; `teacher` has the
        class that the teacher holds likeliest for the label where there is none.
    """

    name: Literal["dkd"]
    alpha: NonNegative = 1.0
    beta: NonNegative = 8.0
    target: Literal["label", "teacher"] = "label"

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if not self.alpha + self.beta:
            yield "alpha, beta", "it is zero, and beta, too; give one of them a weight"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DIST:
    """`kdjax.losses.dist`: correlations within an example (`beta`) and within a class (`gamma`)."""

    name: Literal["dist"]
    beta: NonNegative = 1.0
    gamma: NonNegative = 1.0

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if not self.beta + self.gamma:
            yield "beta, gamma", "it is zero, and gamma, too; give one of them a weight"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitMSE:
    """`kdjax.losses.kd_mse`, which has no temperature."""

    name: Literal["mse"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftCE:
    """`kdjax.losses.kd_ce`: the gradient of `kl`."""

    name: Literal["ce"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLevel:
    """`kdjax.losses.multi_level_kd`, at temperatures of its own: the stage's is not looked at."""

    name: Literal["multi_level"]
    temperatures: Annotated[tuple[Positive, ...], AtLeast(1)] = (2.0, 3.0, 4.0, 5.0, 6.0)


LogitLoss = KL | DKD | DIST | LogitMSE | SoftCE | MultiLevel

PLAIN_KD: LogitLoss = KL(name="kl")
"""That of Hinton et al."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherFree:
    """A virtual teacher made of the label alone: see `kdjax.losses.tf_kd`.

    Attributes:
      correct_probability: that it gives the label.
      temperature: of both softmaxes.
      weight: of the KL to it, with the factor of a squared temperature that every KL here has. The
        paper's equation has none: its `alpha` is this times `temperature^2`.
      ce_weight: of the cross-entropy with the label.
    """

    correct_probability: Annotated[float, In("(0, 1)")] = 0.99
    temperature: Positive = 20.0
    weight: NonNegative = 0.1
    ce_weight: NonNegative = 0.9

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if not self.weight + self.ce_weight:
            yield "weight, ce_weight", "it is zero, and ce_weight, too; give one of them a weight"


Paths = Annotated[tuple[Text, ...], AtLeast(1)]
"""Of modules, by the names of their parameters."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Taps:
    """Which features of the student are compared with which of the teacher.

    Attributes:
      student: paths of modules whose outputs are looked at, by the names of their parameters:
        `encoder/stage1_block0`. An activation that comes after the module is not in its output.
      teacher: as many of the teacher's.
    """

    student: Paths
    teacher: Paths

    least: ClassVar = 1
    most: ClassVar = 0  # for any number

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if len(self.student) != len(self.teacher):
            yield (
                "teacher, student",
                f"{len(self.teacher)} paths for {len(self.student)} of the student; give one for each",
            )
        if len(self.student) < self.least:
            yield "student", "it is of two maps; give two paths or more"
        if self.most and len(self.student) > self.most:
            yield "student", "it has one memory; give one path"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Maps(Taps):
    """Feature maps, paired in order; a loss of several pairs is their sum.

    Attributes:
      relu: put a ReLU behind each tap: where one is a convolution with its norm alone, as the blocks of
        the CNN are, the model's own ReLU comes after it.
    """

    relu: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hint(Maps):
    """FitNets: `kdjax.losses.hint_mse` behind a learned regressor, see `kdjax.models.regressor`."""

    name: Literal["hint"]
    weight: Weight = 100.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention(Maps):
    """`kdjax.losses.attention_transfer`."""

    name: Literal["attention"]
    weight: Weight = 1000.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class NST(Maps):
    """`kdjax.losses.nst`."""

    name: Literal["nst"]
    weight: Weight = 50.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class VID(Maps):
    """`kdjax.losses.vid` behind a learned `kdjax.models.VariationalRegressor`."""

    name: Literal["vid"]
    weight: Weight = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FSP(Maps):
    """`kdjax.losses.fsp` of each tap and the one after it; both models are of the same widths there."""

    name: Literal["fsp"]
    weight: Weight = 1.0

    least: ClassVar = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Review(Maps):
    """Knowledge review: `kdjax.losses.review_hcl` behind a learned fusion, see `kdjax.models.review`.

    Taps from the shallowest to the deepest; the last may be the pooled features, `encoder`.
    """

    name: Literal["review"]
    weight: Weight = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class OFD(Taps):
    """`kdjax.losses.ofd` behind a learned connector, of what comes before a ReLU.

    The margins are from the BatchNorm of the teacher's taps, each of which is a convolution with its
    norm: a block of the CNN, `second` in a residual block. The sum before the last ReLU of a residual
    block, which the paper taps, is the output of no module.
    Each pair weighs twice the one before it, the last one 1.
    """

    name: Literal["ofd"]
    weight: Weight = 0.001


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vectors(Taps):
    """Features of a batch, a row for each example; by default those that the classifier sees."""

    student: Paths = ("encoder",)
    teacher: Paths = ("encoder",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RKD(Vectors):
    """`distance` x `kdjax.losses.rkd_distance` + `angle` x `kdjax.losses.rkd_angle`."""

    name: Literal["rkd"]
    weight: Weight = 1.0
    distance: NonNegative = 25.0
    angle: NonNegative = 50.0

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if not self.distance + self.angle:
            yield "distance, angle", "it is zero, and angle, too; give one of them a weight"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Similarity(Vectors):
    """`kdjax.losses.similarity_preserving`."""

    name: Literal["similarity"]
    weight: Weight = 3000.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Correlation(Vectors):
    """`kdjax.losses.correlation_congruence`."""

    name: Literal["correlation"]
    weight: Weight = 0.02
    gamma: Positive = 0.4
    order: Annotated[int, In("[1, 100]")] = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class PKT(Vectors):
    """`kdjax.losses.pkt`."""

    name: Literal["pkt"]
    weight: Weight = 30_000.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CRD(Vectors):
    """`kdjax.losses.crd` of two learned linear embeddings, one of each model's features.

    Negatives are any other examples, each as likely as the next: as there may be no labels they are
    not those of another class, as the authors' are.

    Attributes:
      dim: of the embeddings.
      negatives: drawn for each example in each step, some of them twice.
      temperature: of the scores.
      momentum: share of the old row in the memory.
    """

    name: Literal["crd"]
    weight: Weight = 0.8
    dim: Width = 128
    negatives: Count = 16_384
    temperature: Positive = 0.07
    momentum: Decay = 0.5

    most: ClassVar = 1


FeatureTerm = (
    Hint | Attention | RKD | Similarity | Correlation | PKT | NST | VID | FSP | Review | OFD | CRD
)
