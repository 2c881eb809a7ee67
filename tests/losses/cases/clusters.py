"""Losses between views and clusters: DINO and SwAV."""

import decimal
import functools

import numpy as np

from kdjax.losses import dino, swav
from tests.losses.by_hand import dot, softmax
from tests.losses.laws import Case


def codes_by_hand(scores, *, epsilon, iterations):
    """Sinkhorn as in the authors' code, exponentiated first; many digits hold any score."""
    with decimal.localcontext(prec=40, Emax=10**9, Emin=-(10**9)):
        q = [
            [(decimal.Decimal(float(s)) / decimal.Decimal(epsilon)).exp() for s in r]
            for r in scores
        ]
        for _ in range(iterations):
            share = [sum(row[k] for row in q) for k in range(len(q[0]))]
            q = [[value / s for value, s in zip(row, share, strict=True)] for row in q]
            q = [[value / sum(row) for value in row] for row in q]
        return np.array([[float(value / sum(row)) for value in row] for row in q])


def _cross_entropy(p, scores):
    return -dot(np.array(p), np.log(softmax(scores)))


def _dino_by_hand(arrays, _, student_temperature, teacher_temperature):
    student, teacher, center = arrays
    losses = []
    for i in range(student.shape[1]):
        total, pairs = 0.0, 0
        for t in range(len(teacher)):
            p = softmax((teacher[t, i] - center) / teacher_temperature)
            for v in range(len(student)):
                if v != t:
                    total += _cross_entropy(p, student[v, i] / student_temperature)
                    pairs += 1
        losses.append(total / pairs)
    return np.array(losses)


def _swav_by_hand(arrays, fixed, assigned, temperature=0.1):
    scores, losses = arrays[0], 0.0
    for a in range(assigned):
        codes = codes_by_hand(fixed[0][a], epsilon=0.05, iterations=3)
        others = [v for v in range(len(scores)) if v != a]
        for v in others:
            each = zip(codes, scores[v], strict=True)
            losses += np.array([_cross_entropy(p, s / temperature) for p, s in each]) / len(others)
    return losses / assigned


def _logits(random, rows, views=4):
    return [
        random.normal(0, 0.5, (views, rows, 5)),
        random.normal(0, 0.1, (2, rows, 5)),
        random.normal(0, 0.1, 5),
    ]


def _scores(random, rows):
    return [random.uniform(-1, 1, (4, rows, 5))]


def _dino(views):
    temperatures = {"student_temperature": 0.1, "teacher_temperature": 0.055}
    return Case(
        f"dino {views}",
        functools.partial(dino, **temperatures),
        functools.partial(_logits, views=views),
        functools.partial(_dino_by_hand, **temperatures),
        rows=1,
    )


def _swav(assigned):
    return Case(
        f"swav {assigned}",
        functools.partial(swav, assigned=assigned),
        _scores,
        functools.partial(_swav_by_hand, assigned=assigned),
        batch_axes=(1,),
        rows=1,
    )


CASES = [_dino(4), _dino(2), _swav(2), _swav(1)]
