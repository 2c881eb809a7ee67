"""Terms of feature maps, behind learned connectors or as they are."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

from jaxtyping import Array

from kdjax import distill
from kdjax.config.feature_terms import FeatureTerm, Maps
from kdjax.config.training import Weight
from kdjax.distill import Comparison, Shapes
from kdjax.models import Compute


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hint(Maps):
    """FitNets: `kdjax.losses.hint_mse` behind a learned regressor, see `kdjax.models.regressor`."""

    name: Literal["hint"]
    weight: Weight = 100.0

    def comparison(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        margins: Sequence[Array] = (),
        compute: Compute,
    ) -> Comparison:
        """See `kdjax.distill.hint`."""
        return distill.behind_relu(distill.hint(student, teacher, compute=compute), self.relu)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention(Maps):
    """`kdjax.losses.attention_transfer`."""

    name: Literal["attention"]
    weight: Weight = 1000.0

    def comparison(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        margins: Sequence[Array] = (),
        compute: Compute,
    ) -> Comparison:
        """See `kdjax.distill.attention`."""
        return distill.behind_relu(distill.attention(student, teacher), self.relu)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NST(Maps):
    """`kdjax.losses.nst`."""

    name: Literal["nst"]
    weight: Weight = 50.0

    def comparison(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        margins: Sequence[Array] = (),
        compute: Compute,
    ) -> Comparison:
        """See `kdjax.distill.nst`."""
        return distill.behind_relu(distill.nst(student, teacher), self.relu)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VID(Maps):
    """`kdjax.losses.vid` behind a learned `kdjax.models.VariationalRegressor`."""

    name: Literal["vid"]
    weight: Weight = 1.0

    def comparison(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        margins: Sequence[Array] = (),
        compute: Compute,
    ) -> Comparison:
        """See `kdjax.distill.vid`."""
        return distill.behind_relu(distill.vid(student, teacher, compute=compute), self.relu)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FSP(Maps):
    """`kdjax.losses.fsp` of each tap and the one after it; both models are of the same widths there."""

    name: Literal["fsp"]
    weight: Weight = 1.0

    least: ClassVar = 2

    def comparison(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        margins: Sequence[Array] = (),
        compute: Compute,
    ) -> Comparison:
        """See `kdjax.distill.fsp`."""
        return distill.behind_relu(distill.fsp(student, teacher), self.relu)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Review(Maps):
    """Knowledge review: `kdjax.losses.review_hcl` behind a learned fusion, see `kdjax.models.review`.

    Taps from the shallowest to the deepest; the last may be the pooled features, `encoder`.
    """

    name: Literal["review"]
    weight: Weight = 1.0

    def comparison(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        margins: Sequence[Array] = (),
        compute: Compute,
    ) -> Comparison:
        """See `kdjax.distill.review`."""
        return distill.behind_relu(distill.review(student, teacher, compute=compute), self.relu)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OFD(FeatureTerm):
    """`kdjax.losses.ofd` behind a learned connector, of what comes before a ReLU.

    The margins are from the BatchNorm of the teacher's taps, each of which is a convolution with its
    norm: a block of the CNN, `second` in a residual block. The sum before the last ReLU of a residual
    block, which the paper taps, is the output of no module.
    Each pair weighs twice the one before it, the last one 1.
    """

    name: Literal["ofd"]
    weight: Weight = 0.001

    reads_norms: ClassVar = True

    def comparison(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        margins: Sequence[Array] = (),
        compute: Compute,
    ) -> Comparison:
        """See `kdjax.distill.ofd`."""
        return distill.ofd(student, teacher, margins=margins, compute=compute)
