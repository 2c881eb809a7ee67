"""Terms of feature maps, behind learned connectors or as they are."""

import dataclasses
from typing import ClassVar, Literal

from kdjax import distill
from kdjax.config.feature_terms import FeatureTerm, Maps
from kdjax.config.training import Weight
from kdjax.distill import Comparison, Taps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hint(Maps):
    """FitNets: `kdjax.losses.hint_mse` behind a learned regressor, see `kdjax.models.regressor`."""

    name: Literal["hint"]
    weight: Weight = 100.0

    def compared(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.hint`."""
        return distill.hint(taps.student, taps.teacher, compute=taps.compute)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention(Maps):
    """`kdjax.losses.attention_transfer`."""

    name: Literal["attention"]
    weight: Weight = 1000.0

    def compared(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.attention`."""
        return distill.attention(taps.student, taps.teacher)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NST(Maps):
    """`kdjax.losses.nst`."""

    name: Literal["nst"]
    weight: Weight = 50.0

    def compared(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.nst`."""
        return distill.nst(taps.student, taps.teacher)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VID(Maps):
    """`kdjax.losses.vid` behind a learned `kdjax.models.VariationalRegressor`."""

    name: Literal["vid"]
    weight: Weight = 1.0

    def compared(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.vid`."""
        return distill.vid(taps.student, taps.teacher, compute=taps.compute)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FSP(Maps):
    """`kdjax.losses.fsp` of each tap and the one after it; both models are of the same widths there."""

    name: Literal["fsp"]
    weight: Weight = 1.0

    least: ClassVar = 2

    def compared(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.fsp`."""
        return distill.fsp(taps.student, taps.teacher)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Review(Maps):
    """Knowledge review: `kdjax.losses.review_hcl` behind a learned fusion, see `kdjax.models.review`.

    Taps from the shallowest to the deepest; the last may be the pooled features, `encoder`.
    """

    name: Literal["review"]
    weight: Weight = 1.0

    def compared(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.review`."""
        return distill.review(taps.student, taps.teacher, compute=taps.compute)


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

    def comparison(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.ofd`."""
        return distill.ofd(taps.student, taps.teacher, margins=taps.margins, compute=taps.compute)
