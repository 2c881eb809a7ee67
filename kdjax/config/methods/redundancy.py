"""Methods that keep the dimensions of the projections apart."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

from kdjax import ssl
from kdjax.config.fields import NonNegative
from kdjax.config.methods import Method
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class BarlowTwins(Method):
    """Cross-correlation towards the identity; Zbontar et al. 2021, https://arxiv.org/abs/2103.03230.

    Attributes:
      off_diagonal_weight: the paper's lambda.
    """

    name: Literal["barlow_twins"]
    off_diagonal_weight: NonNegative = 0.005

    least_rows: ClassVar = 2

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """See `kdjax.ssl.barlow_twins`."""
        return ssl.barlow_twins(
            trained.model,
            off_diagonal_weight=self.off_diagonal_weight,
            axis_name=trained.compute.axis_name,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VICReg(Method):
    """Variance, invariance, covariance; Bardes et al. 2021, https://arxiv.org/abs/2105.04906.

    Attributes:
      invariance, variance, covariance: weights, see `kdjax.losses.vicreg`.
    """

    name: Literal["vicreg"]
    invariance: NonNegative = 25.0
    variance: NonNegative = 25.0
    covariance: NonNegative = 1.0

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if not self.invariance + self.variance + self.covariance:
            yield (
                "invariance, variance, covariance",
                "all three weights are zero",
                "give one of them a weight",
            )

    least_rows: ClassVar = 2

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """See `kdjax.ssl.vicreg`."""
        return ssl.vicreg(
            trained.model,
            invariance=self.invariance,
            variance=self.variance,
            covariance=self.covariance,
            axis_name=trained.compute.axis_name,
        )
