"""Losses between the positions of a student's and a teacher's transformer."""

import math

import numpy as np

from kdjax import losses
from tests.losses.by_hand import dot, mean, softmax, unit
from tests.losses.laws import Case

LENGTHS = (4, 1, 3, 4, 2, 3)


def where_of(rows, positions=4):
    """Which positions are no padding: the first ones of each example."""
    lengths = np.resize(LENGTHS, rows)
    return np.arange(positions)[None, :] < lengths[:, None]


def _real(arrays):
    """The examples without their padding."""
    *others, where = arrays
    for row, length in enumerate(where.sum(-1)):
        yield [x[row, :length] for x in others]


def _hidden_mse(arrays, _):
    return [mean(((x - y) ** 2).ravel()) for x, y in _real(arrays)]


def _hidden_cosine(arrays, _):
    return [
        mean(1 - dot(unit(a), unit(b)) for a, b in zip(x, y, strict=True)) for x, y in _real(arrays)
    ]


def _distilhubert(arrays, _):
    found = []
    for x, y in _real(arrays):
        each = []
        for a, b in zip(x, y, strict=True):
            cos = dot(unit(a), unit(b))
            direction = math.log1p(math.exp(-cos)) - math.log1p(math.exp(-1))
            each.append(mean(np.abs(a - b)) + direction)
        found.append(mean(each))
    return found


def _pkd(arrays, _):
    return [
        dot(apart, apart)
        for apart in (unit(x[0]) - unit(y[0]) for x, y in zip(*arrays, strict=True))
    ]


def _score(query, key):
    return dot(query, key) / math.sqrt(len(query))


def _attention_mse(arrays, _):
    found = []
    for student_query, student_key, teacher_query, teacher_key in _real(arrays):
        places, heads = range(len(student_query)), range(student_query.shape[1])
        found.append(
            mean(
                (
                    _score(student_query[i, h], student_key[j, h])
                    - _score(teacher_query[i, h], teacher_key[j, h])
                )
                ** 2
                for h in heads
                for i in places
                for j in places
            )
        )
    return found


def _relation_kl(arrays, _):
    found = []
    for student_query, student_key, teacher_query, teacher_key in _real(arrays):
        places, each = range(len(student_query)), []
        for h in range(student_query.shape[1]):
            for i in places:
                q, p = (
                    softmax([_score(query[i, h], key[j, h]) for j in places])
                    for query, key in ((student_query, student_key), (teacher_query, teacher_key))
                )
                each.append(math.fsum(b * math.log(b / a) for a, b in zip(q, p, strict=True)))
        found.append(mean(each))
    return found


def _hidden(random, rows):
    return [random.normal(0, 1.5, (rows, 4, 5)) for _ in range(2)]


def _with_where(random, rows):
    return [*_hidden(random, rows), where_of(rows)]


def _attentions(random, rows):
    """Two heads of three numbers of the student, of five of the teacher."""
    widths = (3, 3, 5, 5)
    return [*(random.normal(0, 1.2, (rows, 4, 2, w)) for w in widths), where_of(rows)]


def _case(name, draw, derivation, *, learned=(0,)):
    return Case(
        name,
        getattr(losses, name),
        draw,
        lambda arrays, fixed: np.asarray(derivation(arrays, fixed)),
        learned=learned,
    )


CASES = [
    _case("hidden_mse", _with_where, _hidden_mse),
    _case("hidden_cosine", _with_where, _hidden_cosine),
    _case("distilhubert", _with_where, _distilhubert),
    _case("pkd", _hidden, _pkd),
    _case("attention_mse", _attentions, _attention_mse, learned=(0, 1)),
    _case("relation_kl", _attentions, _relation_kl, learned=(0, 1)),
]
