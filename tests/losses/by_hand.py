"""Losses between features, in float64, one number after the other, from their definitions."""

import math

import numpy as np


def _length(values):
    return math.sqrt(math.fsum(v * v for v in values))


def _unit(values):
    length = _length(values)
    return [v / length if length else 0.0 for v in values]


def _dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def _mean(values):
    values = list(values)
    return math.fsum(values) / len(values)


def _smooth_l1(a, b):
    gap = abs(a - b)
    return 0.5 * gap * gap if gap < 1 else gap - 0.5


def _each(loss, *sides):
    """One call an example, on float64 arrays without the batch axis."""
    return np.array([loss(*(np.asarray(x, np.float64) for x in pair)) for pair in zip(*sides)])  # noqa: B905


def pooled(maps, height, width):
    """Of one map [height, width, channel]: means over torch's windows."""
    found = np.zeros((height, width, maps.shape[2]))
    for i in range(height):
        rows = range(
            math.floor(i * maps.shape[0] / height), math.ceil((i + 1) * maps.shape[0] / height)
        )
        for j in range(width):
            columns = range(
                math.floor(j * maps.shape[1] / width), math.ceil((j + 1) * maps.shape[1] / width)
            )
            for c in range(maps.shape[2]):
                found[i, j, c] = _mean(maps[h, w, c] for h in rows for w in columns)
    return found


def _of_one_size(a, b):
    size = min(a.shape[0], b.shape[0]), min(a.shape[1], b.shape[1])
    return pooled(a, *size), pooled(b, *size)


def _mean_square(a, b):
    return _mean((x - y) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True))


def hint_mse(student, teacher):
    return _each(_mean_square, student, teacher)


def attention_transfer(student, teacher):
    def attention(maps):
        return _unit([_mean(v * v for v in place) for row in maps for place in row])

    def loss(s, t):
        s, t = (np.array(attention(maps)) for maps in _of_one_size(s, t))
        return _mean_square(s, t)

    return _each(loss, student, teacher)


def nst(student, teacher):
    def loss(s, t):
        s, t = (
            [_unit(maps[:, :, c].ravel()) for c in range(maps.shape[2])]
            for maps in _of_one_size(s, t)
        )

        def kernel(x, y):
            return _mean(_dot(a, b) ** 2 for a in x for b in y)

        return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)

    return _each(loss, student, teacher)


def vid(student_mean, teacher, log_scale):
    variances = [math.log(1 + math.exp(value)) + 1e-5 for value in np.asarray(log_scale, float)]

    def loss(s, t):
        terms = []
        for place in np.ndindex(s.shape):
            var = variances[place[-1]]
            terms.append(0.5 * ((s[place] - t[place]) ** 2 / var + math.log(var)))
        return _mean(terms)

    return _each(loss, student_mean, teacher)


def fsp(student_pair, teacher_pair):
    def flow(lower, upper):
        lower, upper = _of_one_size(lower, upper)
        places = [(h, w) for h in range(lower.shape[0]) for w in range(lower.shape[1])]
        return np.array(
            [
                [_mean(lower[p][i] * upper[p][j] for p in places) for i in range(lower.shape[2])]
                for j in range(upper.shape[2])
            ]
        )

    def loss(s1, s2, t1, t2):
        return _mean_square(flow(s1, s2), flow(t1, t2))

    return _each(loss, *student_pair, *teacher_pair)


def ofd(student, teacher, margin):
    def loss(s, t):
        total = 0.0
        for place in np.ndindex(s.shape):
            least = float(margin[place[-1]])
            if t[place] > 0:
                total += (s[place] - t[place]) ** 2
            elif t[place] > least:
                total += max(s[place] - t[place], 0.0) ** 2
            else:
                total += max(s[place] - least, 0.0) ** 2
        return total

    return _each(loss, student, teacher)


def review_hcl(student_levels, teacher_levels):
    def level(s, t):
        sides = [side for side in (4, 2, 1) if side < s.shape[0]]
        found = [_mean_square(s, t)]
        found += [_mean_square(pooled(s, side, side), pooled(t, side, side)) for side in sides]
        weights = [0.5**i for i in range(len(found))]
        return _dot(weights, found) / math.fsum(weights)

    pairs = zip(student_levels, teacher_levels, strict=True)
    return sum(_each(level, s, t) for s, t in pairs)


def _rows(x):
    return np.asarray(x, np.float64).reshape(len(x), -1)


def rkd_distance(student, teacher):
    def relative(rows):
        n = len(rows)
        distances = [
            [max(_length(b - a), 1e-6) if i != j else 0.0 for j, b in enumerate(rows)]
            for i, a in enumerate(rows)
        ]
        mean = _mean(distances[i][j] for i in range(n) for j in range(n) if i != j)
        return [[d / mean for d in row] for row in distances]

    pairs = zip(relative(_rows(student)), relative(_rows(teacher)), strict=True)
    return np.array([_mean(map(_smooth_l1, s, t)) for s, t in pairs])


def rkd_angle(student, teacher):
    def cosines(rows, i):
        towards = [_unit(row - rows[i]) for row in rows]
        return [_dot(a, b) for a in towards for b in towards]

    student, teacher = _rows(student), _rows(teacher)
    return np.array(
        [
            _mean(map(_smooth_l1, cosines(student, i), cosines(teacher, i)))
            for i in range(len(student))
        ]
    )


def similarity_preserving(student, teacher):
    def similar(rows, i):
        return _unit([_dot(rows[i], other) for other in rows])

    student, teacher = _rows(student), _rows(teacher)
    return np.array(
        [
            _mean_square(np.array(similar(student, i)), np.array(similar(teacher, i)))
            for i in range(len(student))
        ]
    )


def correlation_congruence(student, teacher, gamma=0.4, order=2):
    def kernel(rows, i):
        rows = [_unit(row) for row in rows]
        return np.array(
            [
                math.exp(-2 * gamma)
                * math.fsum(
                    (2 * gamma) ** p / math.factorial(p) * _dot(rows[i], other) ** p
                    for p in range(order + 1)
                )
                for other in rows
            ]
        )

    student, teacher = _rows(student), _rows(teacher)
    return np.array(
        [_mean_square(kernel(student, i), kernel(teacher, i)) for i in range(len(student))]
    )


def pkt(student, teacher):
    def probabilities(rows, i):
        rows = [_unit(row) for row in rows]
        similar = [(_dot(rows[i], other) + 1) / 2 for other in rows]
        return [value / math.fsum(similar) for value in similar]

    def loss(q, p):
        return _mean(b * math.log((b + 1e-7) / (a + 1e-7)) for a, b in zip(q, p, strict=True))

    student, teacher = _rows(student), _rows(teacher)
    return np.array(
        [loss(probabilities(student, i), probabilities(teacher, i)) for i in range(len(student))]
    )
