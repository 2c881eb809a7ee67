"""Losses between the dimensions of a batch: Barlow Twins and VICReg."""

import functools
import math

from kdjax.losses import barlow_twins, vicreg
from tests.losses.laws import Case


def _columns(z):
    """The dimensions of a batch, each less its mean, with its sum of squares."""
    for column in z.T:
        mean = math.fsum(column) / len(column)
        centred = [value - mean for value in column]
        yield centred, math.fsum(value * value for value in centred)


def _barlow_by_hand(arrays, _, weight):
    n = len(arrays[0])
    ya, yb = (
        [[v / math.sqrt(square / n + 1e-5) for v in column] for column, square in _columns(z)]
        for z in arrays
    )
    loss = 0.0
    for i, a in enumerate(ya):
        for j, b in enumerate(yb):
            c = math.fsum(x * y for x, y in zip(a, b, strict=True)) / n
            loss += (1 - c) ** 2 if i == j else weight * c**2
    return loss


def _vicreg_by_hand(arrays, _, invariance=25.0, variance=25.0, covariance=1.0):
    """As in the authors' code: halves before the two hinges, none before the covariances."""
    za, zb = arrays
    n, dim = za.shape
    distance = math.fsum((a - b) ** 2 for a, b in zip(za.ravel(), zb.ravel(), strict=True))
    loss = invariance * distance / (n * dim)
    for z in arrays:
        columns = list(_columns(z))
        for i, (a, square) in enumerate(columns):
            hinge = max(0.0, 1 - math.sqrt(square / (n - 1) + 1e-4))
            loss += variance * hinge / (2 * dim)
            for j, (b, _) in enumerate(columns):
                if i != j:
                    c = math.fsum(x * y for x, y in zip(a, b, strict=True)) / (n - 1)
                    loss += covariance * c**2 / dim
    return loss


def _pair(random, rows):
    # Half of the dimensions vary by less than one, where the hinge of VICReg pulls, and one of view a
    # by so little that the epsilons show.
    za = random.normal(0.5, [0.03, 2.0, 0.6, 1.5], (rows, 4))
    return [za, za + random.normal(0, 0.5, (rows, 4))]


def _case(name, loss, by_hand, *, variant, **kwargs):
    loss = functools.partial(loss, **kwargs)
    return Case(name, loss, _pair, by_hand, (0, 1), (0, 0), variant=variant)


CASES = [
    *(
        _case(
            f"barlow {weight}",
            barlow_twins,
            functools.partial(_barlow_by_hand, weight=weight),
            variant=weight != 0.005,
            off_diagonal_weight=weight,
        )
        for weight in (0.005, 1.0)
    ),
    *(
        _case(
            f"vicreg {weights}",
            vicreg,
            functools.partial(_vicreg_by_hand, **weights),
            variant=bool(weights),
            **weights,
        )
        for weights in (
            {},
            {"invariance": 1.0, "variance": 0.0, "covariance": 0.0},
            {"invariance": 0.0, "variance": 1.0, "covariance": 0.0},
            {"invariance": 0.0, "variance": 0.0, "covariance": 1.0},
        )
    ),
]
