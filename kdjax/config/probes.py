"""What the features of a frozen encoder are judged by."""

import dataclasses
from typing import Annotated

from kdjax.config.fields import Count, Positive
from kdjax.config.views import Views
from kdjax.ranges import AtLeast, Distinct, In

_STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KNN:
    """A weighted vote of the nearest labelled examples: see `kdjax.evaluate.knn`.

    Attributes:
      k: how many vote; None takes 200, or all where there are fewer.
      temperature: divisor of their cosines.
    """

    k: Count | None = None
    temperature: Positive = 0.07


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """Logistic regression on frozen features: see `kdjax.evaluate.linear_probe`.

    Attributes:
      strengths: of the L2 penalty, of which a part of the labelled examples chooses; one alone needs
        none to choose.
      validation: share of each class that is held out to choose.
      max_iterations: of one fit.
    """

    strengths: Annotated[tuple[Positive, ...], AtLeast(1), Distinct()] = _STRENGTHS
    validation: Annotated[float, In("(0, 1)")] = 0.2
    max_iterations: Count = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """Two views of test examples: `kdjax.evaluate.alignment`, `kdjax.evaluate.uniformity`.

    Attributes:
      views: of which two are drawn.
      examples: how many, drawn by the seed; None takes 1000, or all where there are fewer. Figures of
        one number of them are comparable.
    """

    views: Views
    examples: Annotated[int, In("[2, 2^31)")] | None = None
