"""A linear classifier on frozen features."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epy
from jaxtyping import Array, Bool, Float, Float32, Float64, Integer

from kdjax.evaluate.bags import Bags
from kdjax.evaluate.classification import check_classes
from kdjax.types import BadInput

with epy.lazy_imports():  # slow to import, and few runs fit a probe
    from sklearn import exceptions, linear_model

STRENGTHS = tuple(10.0**power for power in range(-6, 2))

MOST_TO_CHOOSE = 10_000
"""Examples that a strength is chosen by; one means the same whatever their number."""


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier and how it was chosen.

    Attributes:
      kernel: of the features as they came, not of standardised ones.
      bias: one a class.
      strength: the L2 strength that was chosen.
      validation_accuracy: for each strength tried, in their order, as a fraction; empty where there
        was one alone.
    """

    kernel: Float64[np.ndarray, "dim classes"]
    bias: Float64[np.ndarray, " classes"]
    strength: float
    validation_accuracy: tuple[float, ...]

    def logits(
        self, features: Float[Array | np.ndarray, "n dim"] | Bags
    ) -> Float32[np.ndarray, "n classes"]:
        """Scores of features of the same encoder."""
        wide: Any = features
        if isinstance(features, np.ndarray | Array):
            wide = np.asarray(features, np.float64)
        logits = wide @ self.kernel + self.bias
        return logits.astype(np.float32)


def linear_probe(
    features: Float[Array | np.ndarray, "n dim"] | Bags,
    label: Integer[Array | np.ndarray, " n"],
    *,
    classes: int,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
    validation: float = 0.2,
    max_iterations: int = 1000,
    standardize: bool = True,
) -> Probe:
    """Multinomial logistic regression on frozen features, its L2 strength chosen by validation.

    Minimises the mean cross-entropy (nats) plus `strength / 2` times the sum of the squared weights
    of standardised features, bias apart: so a strength means the same whatever the number of examples
    and the encoder's scale. A part of each class is held out, every strength is fitted on the rest,
    and the one that predicts most of the held-out examples right, the largest where several do, is
    fitted on all of them. One strength alone is fitted at once. Of many labelled examples
    `MOST_TO_CHOOSE`, drawn by the seed with the shares of the classes, do for the choice.

    scikit-learn's LBFGS does the fitting, in float64 on the host, where cached features are: the
    problem is convex, so what counts is that its minimum is reached, and scikit-learn tests for that
    and warns. With `optax.lbfgs` the loop and its test would be ours to keep, in float32.

    Args:
      features: of labelled examples, from the cache of a frozen encoder; or sparse rows of SciPy's.
      label: their classes, `0 <= label < classes`, at least two examples of each; one, where there is
        nothing to choose.
      classes: number of classes, at least 2.
      seed: of the choice of what is held out.
      strengths: L2 strengths to try, each > 0.
      validation: share of each class that is held out, in (0, 1); at least one example of it.
      max_iterations: of one fit; scikit-learn's `ConvergenceWarning` says so where they did not do for
        the one that is kept.
      standardize: the features; not of sparse ones, which would not be sparse any more.

    Raises:
      BadInput: `strengths`, `validation` or `classes` is out of range.
      ValueError: a label is out of range, a class has too few examples, or the numbers of features
        and labels differ.

    Reference: Kornblith et al. 2018, https://arxiv.org/abs/1805.08974; Chen et al. 2020,
    https://arxiv.org/abs/2002.05709, appendix B.8.
    """
    if classes < 2:
        raise BadInput("classes", f"{classes}", "give at least two")
    if not strengths or min(strengths) <= 0.0:
        raise BadInput("strengths", f"{tuple(strengths)}", "give at least one, each above zero")
    if not 0.0 < validation < 1.0:
        raise BadInput("validation", f"{validation} is outside (0, 1)")
    x: Any = np.asarray(features, np.float64) if standardize else features
    y = np.asarray(label)
    if x.shape[0] != len(y):
        raise ValueError(f"{x.shape[0]} features but {len(y)} labels")
    check_classes("label", y, classes=classes)
    least, said = (1, "no example") if len(strengths) == 1 else (2, "fewer than two examples")
    few = np.flatnonzero(np.bincount(y, minlength=classes) < least)
    if few.size:
        raise ValueError(f"label: class {few[0]} has {said}")

    fit = _fit if standardize else _fit_as_they_are
    accuracy, strength = [], strengths[0]
    if len(strengths) > 1:
        some_x, some_y = x, y
        if len(y) > MOST_TO_CHOOSE:
            some = _drawn(y, share=MOST_TO_CHOOSE / len(y), seed=seed)
            some_x, some_y = x[some], y[some]
        held_out = _drawn(some_y, share=validation, seed=seed)
        for strength in strengths:
            with (
                warnings.catch_warnings()
            ):  # the weakest of them converge last, and are seldom best
                warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
                kernel, bias = fit(some_x[~held_out], some_y[~held_out], strength, max_iterations)
            prediction = (some_x[held_out] @ kernel + bias).argmax(-1)
            accuracy.append(float((prediction == some_y[held_out]).mean()))
        _, strength = max(zip(accuracy, strengths, strict=True))
    kernel, bias = fit(x, y, strength, max_iterations)
    return Probe(kernel, bias, strength, tuple(accuracy))


def _drawn(label: Integer[np.ndarray, " n"], *, share: float, seed: int) -> Bool[np.ndarray, " n"]:
    """True for `share` of each class, drawn by `seed`; at least one, and never all."""
    random = np.random.default_rng(seed)
    drawn = np.zeros(len(label), bool)
    for name in np.unique(label):
        of_class = random.permutation(np.flatnonzero(label == name))
        count = min(max(1, round(share * len(of_class))), len(of_class) - 1)
        drawn[of_class[:count]] = True
    return drawn


def _fit(
    x: Float64[np.ndarray, "n dim"],
    label: Integer[np.ndarray, " n"],
    strength: float,
    max_iterations: int,
) -> tuple[Float64[np.ndarray, "dim classes"], Float64[np.ndarray, " classes"]]:
    """Kernel and bias on features as they are, fitted on standardised ones."""
    mean, std = x.mean(0), x.std(0)
    # One that is constant but for float32's rounding must not be blown up; its weight will be zero.
    std[std <= 1e-6 * np.abs(x).max(0)] = 1.0
    kernel, bias = _fit_as_they_are((x - mean) / std, label, strength, max_iterations)
    kernel = kernel / std[:, None]
    return kernel, bias - mean @ kernel


def _fit_as_they_are(
    x: Float64[np.ndarray, "n dim"] | Bags,
    label: Integer[np.ndarray, " n"],
    strength: float,
    max_iterations: int,
) -> tuple[Float64[np.ndarray, "dim classes"], Float64[np.ndarray, " classes"]]:
    """Kernel and bias, which has no penalty."""
    classes = len(np.unique(label))
    # Of two classes it fits the difference of their weights, whose penalty is half that of both.
    inverse = (2.0 if classes == 2 else 1.0) / (strength * x.shape[0])
    regression = linear_model.LogisticRegression(C=inverse, max_iter=max_iterations, tol=1e-6)
    fitted = regression.fit(x, label)
    kernel, bias = fitted.coef_.T, fitted.intercept_
    if classes == 2:
        kernel, bias = np.concatenate([-kernel, kernel], 1) / 2, np.concatenate([-bias, bias]) / 2
    return kernel, bias
