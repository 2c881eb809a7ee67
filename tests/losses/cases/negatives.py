"""Contrastive losses beside NT-Xent: DCL, and MoCo with a queue and without."""

import functools
import math

import numpy as np

from kdjax.losses import dcl, info_nce, moco_v3
from tests.losses.by_hand import dot, unit
from tests.losses.laws import Case


def _dcl_by_hand(arrays, fixed, temperature, sigma=None):
    """The paper's eq. 6, anchor by anchor; DCLW's weights are of the fixed arrays."""
    n = len(arrays[0])
    z = [unit(row) for row in np.concatenate(arrays)]
    weight = [1.0] * n
    if sigma is not None:
        a, b = ([unit(row) for row in x] for x in fixed)
        exp = [math.exp(dot(a[i], b[i]) / sigma) for i in range(n)]
        weight = [2 - e / (math.fsum(exp) / n) for e in exp]

    def loss(i, j):
        others = [k for k in range(2 * n) if k not in (i, j)]
        negatives = math.fsum(math.exp(dot(z[i], z[k]) / temperature) for k in others)
        return math.log(negatives) - weight[i % n] * dot(z[i], z[j]) / temperature

    return np.array([(loss(k, k + n) + loss(k + n, k)) / 2 for k in range(n)])


def _info_nce_by_hand(arrays, _, temperature):
    losses = []
    queue = [unit(row) for row in arrays[2]]
    for query, key in zip(arrays[0], arrays[1], strict=True):
        q = unit(query)
        scores = [math.exp(dot(q, k) / temperature) for k in [unit(key), *queue]]
        losses.append(-math.log(scores[0] / math.fsum(scores)))
    return np.array(losses)


def _moco_v3_by_hand(arrays, _, temperature):
    query, key = ([unit(row) for row in x] for x in arrays)
    losses = []
    for i, q in enumerate(query):
        scores = [math.exp(dot(q, k) / temperature) for k in key]
        losses.append(-2 * temperature * math.log(scores[i] / math.fsum(scores)))
    return np.array(losses)


def _pair(random, rows):
    return random.normal(0, 2, (2, rows, 4))


def _with_queue(random, rows):
    return [*_pair(random, rows), random.normal(size=(7, 4))]


CASES = [
    *(
        Case(
            f"dcl {temperature}",
            functools.partial(dcl, temperature=temperature),
            _pair,
            functools.partial(_dcl_by_hand, temperature=temperature),
            learned=(0, 1),
            batch_axes=(0, 0),
        )
        for temperature in (0.1, 0.5)
    ),
    Case(
        "dclw",
        functools.partial(dcl, temperature=0.2, sigma=0.5),
        _pair,
        functools.partial(_dcl_by_hand, temperature=0.2, sigma=0.5),
        learned=(0, 1),
        batch_axes=(0, 0),
    ),
    Case(
        "info_nce",
        functools.partial(info_nce, temperature=0.2),
        _with_queue,
        functools.partial(_info_nce_by_hand, temperature=0.2),
        learned=(0,),
    ),
    Case(
        "moco_v3",
        functools.partial(moco_v3, temperature=0.2),
        _pair,
        functools.partial(_moco_v3_by_hand, temperature=0.2),
        learned=(0,),
        batch_axes=(0, 0),
    ),
]
