"""Losses in float64, one number after the other, from their definitions; and what they are made of."""

import math

import numpy as np


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def length(values):
    return math.sqrt(dot(values, values))


def unit(values):
    """Zeros stay zeros."""
    size = length(values)
    return np.array([v / size if size else 0.0 for v in values])


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values)


def softmax(row, temperature=1.0):
    top = max(row)
    exp = [math.exp((value - top) / temperature) for value in row]
    whole = math.fsum(exp)
    return [value / whole for value in exp]


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
                found[i, j, c] = mean(maps[h, w, c] for h in rows for w in columns)
    return found


def _of_one_size(a, b):
    size = min(a.shape[0], b.shape[0]), min(a.shape[1], b.shape[1])
    return pooled(a, *size), pooled(b, *size)


def _mean_square(a, b):
    return mean((x - y) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True))


def hint_mse(student, teacher):
    return _each(_mean_square, student, teacher)


def attention_transfer(student, teacher):
    def attention(maps):
        return unit([mean(v * v for v in place) for row in maps for place in row])

    def loss(s, t):
        s, t = (np.array(attention(maps)) for maps in _of_one_size(s, t))
        return _mean_square(s, t)

    return _each(loss, student, teacher)


def nst(student, teacher):
    def loss(s, t):
        s, t = (
            [unit(maps[:, :, c].ravel()) for c in range(maps.shape[2])]
            for maps in _of_one_size(s, t)
        )

        def kernel(x, y):
            return mean(dot(a, b) ** 2 for a in x for b in y)

        return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)

    return _each(loss, student, teacher)


def vid(student_mean, teacher, log_scale):
    variances = [math.log(1 + math.exp(value)) + 1e-5 for value in np.asarray(log_scale, float)]

    def loss(s, t):
        terms = []
        for place in np.ndindex(s.shape):
            var = variances[place[-1]]
            terms.append(0.5 * ((s[place] - t[place]) ** 2 / var + math.log(var)))
        return mean(terms)

    return _each(loss, student_mean, teacher)


def fsp(student_pair, teacher_pair):
    def flow(lower, upper):
        lower, upper = _of_one_size(lower, upper)
        places = [(h, w) for h in range(lower.shape[0]) for w in range(lower.shape[1])]
        return np.array(
            [
                [mean(lower[p][i] * upper[p][j] for p in places) for i in range(lower.shape[2])]
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
        return dot(weights, found) / math.fsum(weights)

    pairs = zip(student_levels, teacher_levels, strict=True)
    return sum(_each(level, s, t) for s, t in pairs)


def _rows(x):
    return np.asarray(x, np.float64).reshape(len(x), -1)


def rkd_distance(student, teacher):
    def relative(rows):
        n = len(rows)
        distances = [
            [max(length(b - a), 1e-6) if i != j else 0.0 for j, b in enumerate(rows)]
            for i, a in enumerate(rows)
        ]
        average = mean(distances[i][j] for i in range(n) for j in range(n) if i != j)
        return [[d / average for d in row] for row in distances]

    pairs = zip(relative(_rows(student)), relative(_rows(teacher)), strict=True)
    return np.array([mean(map(_smooth_l1, s, t)) for s, t in pairs])


def rkd_angle(student, teacher):
    def cosines(rows, i):
        towards = [unit(row - rows[i]) for row in rows]
        return [dot(a, b) for a in towards for b in towards]

    student, teacher = _rows(student), _rows(teacher)
    return np.array(
        [
            mean(map(_smooth_l1, cosines(student, i), cosines(teacher, i)))
            for i in range(len(student))
        ]
    )


def similarity_preserving(student, teacher):
    def similar(rows, i):
        return unit([dot(rows[i], other) for other in rows])

    student, teacher = _rows(student), _rows(teacher)
    return np.array(
        [
            _mean_square(np.array(similar(student, i)), np.array(similar(teacher, i)))
            for i in range(len(student))
        ]
    )


def correlation_congruence(student, teacher, gamma=0.4, order=2):
    def kernel(rows, i):
        rows = [unit(row) for row in rows]
        return np.array(
            [
                math.exp(-2 * gamma)
                * math.fsum(
                    (2 * gamma) ** p / math.factorial(p) * dot(rows[i], other) ** p
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
        rows = [unit(row) for row in rows]
        similar = [(dot(rows[i], other) + 1) / 2 for other in rows]
        return [value / math.fsum(similar) for value in similar]

    def loss(q, p):
        return mean(b * math.log((b + 1e-7) / (a + 1e-7)) for a, b in zip(q, p, strict=True))

    student, teacher = _rows(student), _rows(teacher)
    return np.array(
        [loss(probabilities(student, i), probabilities(teacher, i)) for i in range(len(student))]
    )
