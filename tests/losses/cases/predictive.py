"""Losses of a prediction: of another view's embedding, or of hidden patches."""

import functools

import numpy as np

from kdjax.losses import byol, masked_patch_mse, negative_cosine
from tests.losses.by_hand import dot, unit
from tests.losses.laws import Case


def _cosines(arrays):
    return np.array([dot(unit(p), unit(t)) for p, t in zip(*arrays, strict=True)])


def _byol_by_hand(arrays, _):
    """The squared distance of the unit rows."""
    pairs = zip(*arrays, strict=True)
    return np.array([dot(d, d) for d in (unit(p) - unit(t) for p, t in pairs)])


def _patches_by_hand(arrays, _, normalize):
    """Patch by patch, pixel by pixel, as the paper says it."""
    losses = []
    for prediction, patches, hidden in zip(*arrays, strict=True):
        errors = []
        for i in np.flatnonzero(hidden):
            target = list(patches[i])
            if normalize:
                mean = sum(target) / len(target)
                variance = sum((v - mean) ** 2 for v in target) / (len(target) - 1)
                target = [(v - mean) / (variance + 1e-6) ** 0.5 for v in target]
            squares = [(p - t) ** 2 for p, t in zip(prediction[i], target, strict=True)]
            errors.append(sum(squares) / len(squares))
        losses.append(sum(errors) / len(errors))
    return np.array(losses)


def _pair(random, rows):
    return random.normal(0, 2, (2, rows, 5))


def _with_patches(random, rows):
    hidden = np.argsort(np.argsort(random.random((rows, 4)))) < 3
    hidden[0] = [True, False, False, False]  # the number need not be the same
    return [*random.normal(0, 2, (2, rows, 4, 3)), hidden]


CASES = [
    Case("byol", byol, _pair, _byol_by_hand, learned=(0,)),
    Case("negative_cosine", negative_cosine, _pair, lambda x, _: -_cosines(x), learned=(0,)),
    *(
        Case(
            f"patches {normalize}",
            functools.partial(masked_patch_mse, normalize=normalize),
            _with_patches,
            functools.partial(_patches_by_hand, normalize=normalize),
            learned=(0,),
        )
        for normalize in (False, True)
    ),
]
