"""A class that cannot be, a logit of -inf on both sides: every loss is that of the other classes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.losses import (
    cross_entropy,
    dino,
    dist,
    dkd,
    kd_ce,
    kd_kl,
    kd_kl_top_k,
    kd_mse,
    multi_level_kd,
    standardize,
    swav,
    tf_kd,
    top_k_signal,
)
from tests.losses.by_hand import softmax
from tests.losses.laws import slopes

ROWS, CLASSES = 6, 7
RNG = np.random.default_rng(0)
# Of each row another set of classes is left, three at least in the first five; of the last row two.
LEFT = [[0, 1, 2, 3, 4, 5, 6], [1, 2, 4], [0, 6, 3], [2, 3, 4, 5, 6], [0, 1, 2, 5], [4, 5]]
LABEL = [3, 2, 0, 5, 1, 5]
POSSIBLE = np.array([[c in left for c in range(CLASSES)] for left in LEFT])
STUDENT, TEACHER = np.where(POSSIBLE, RNG.normal(0, 2, (2, ROWS, CLASSES)), -np.inf)


def _kl(p, q):
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def _kd_kl(s, t, y, temperature=2.0):
    return temperature**2 * _kl(softmax(t, temperature), softmax(s, temperature))


def _kd_ce(s, t, y):
    p, q = softmax(t, 4.0), softmax(s, 4.0)
    return -16 * math.fsum(a * math.log(b) for a, b in zip(p, q, strict=True))


def _kd_mse(s, t, y):
    return float(np.mean((s - t) ** 2))


def _dkd(s, t, y):
    q, p = softmax(s, 2.0), softmax(t, 2.0)
    q_others, p_others = ([x for c, x in enumerate(r) if c != y] for r in (q, p))
    q_rest, p_rest = math.fsum(q_others), math.fsum(p_others)
    within = _kl([x / p_rest for x in p_others], [x / q_rest for x in q_others])
    return 4 * (_kl([p[y], p_rest], [q[y], q_rest]) + 8 * within)


def _smoothed(smoothing):
    def loss(s, t, y):
        q = softmax(s)
        wanted = [smoothing / len(s) + (1 - smoothing) * (c == y) for c in range(len(s))]
        return -math.fsum(a * math.log(b) for a, b in zip(wanted, q, strict=True))

    return loss


def _tf_kd(s, t, y):
    rest = 0.1 / (len(s) - 1)
    virtual = np.array([math.log(0.9 if c == y else rest) for c in range(len(s))])
    return _kd_kl(s, virtual, y, 3.0)


def _standardized(s, t, y):
    def rows(x):
        return (x - x.mean()) / (1e-7 + x.std(ddof=1))

    return _kd_kl(rows(s), rows(t), y)


def _top(s, t, label):
    indices, log_probs, tail = top_k_signal(t, k=2, temperatures=(2.0,))
    return kd_kl_top_k(s, indices, log_probs, tail[..., 0], temperature=2.0)


def _top_2(s, t, y):
    def outcomes(x):
        p = softmax(x, 2.0)
        return [p[c] for c in kept] + [math.fsum(v for c, v in enumerate(p) if c not in kept)]

    kept = np.argsort(-t)[:2].tolist()
    return 4 * _kl(outcomes(t), outcomes(s))


LOSSES = {
    "kd_kl": (lambda s, t, y: kd_kl(s, t, temperature=2.0), _kd_kl),
    "kd_ce": (lambda s, t, y: kd_ce(s, t, temperature=4.0), _kd_ce),
    "kd_mse": (lambda s, t, y: kd_mse(s, t), _kd_mse),
    "dkd": (lambda s, t, y: dkd(s, t, y, alpha=1.0, beta=8.0, temperature=2.0), _dkd),
    "cross_entropy": (lambda s, t, y: cross_entropy(s, y), _smoothed(0.0)),
    "smoothed": (lambda s, t, y: cross_entropy(s, y, label_smoothing=0.3), _smoothed(0.3)),
    "tf_kd": (lambda s, t, y: tf_kd(s, y, correct_probability=0.9, temperature=3.0), _tf_kd),
    "standardize": (
        lambda s, t, y: kd_kl(standardize(s), standardize(t), temperature=2.0),
        _standardized,
    ),
    "kd_kl_top_k": (_top, _top_2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_those_of_the_other_classes(name):
    loss, by_hand = LOSSES[name]

    def of_row(s, row):
        return by_hand(np.asarray(s), TEACHER[row, LEFT[row]], LEFT[row].index(LABEL[row]))

    expected = [of_row(STUDENT[row, left], row) for row, left in enumerate(LEFT)]
    slope = np.zeros((ROWS, CLASSES))
    for row, left in enumerate(LEFT):
        slope[row, left] = slopes(lambda s, row=row: of_row(s, row), STUDENT[row, left])

    @jax.jit
    def both(s, t):
        losses = loss(s, t, jnp.asarray(LABEL))
        grads = jax.grad(lambda *x: loss(*x, jnp.asarray(LABEL)).sum(), argnums=(0, 1))(s, t)
        return losses, *grads

    losses, grad, to_teacher = both(*(jnp.asarray(x, jnp.float32) for x in (STUDENT, TEACHER)))
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(grad, slope, rtol=2e-3, atol=2e-4)
    assert (np.asarray(grad)[~POSSIBLE] == 0).all()
    assert (np.asarray(to_teacher) == 0).all()


@pytest.mark.parametrize("name", [n for n in LOSSES if n not in ("standardize", "tf_kd")])
def test_what_the_student_alone_holds_impossible_costs_infinitely_much(name):
    student, teacher = np.array(STUDENT[:1]), TEACHER[:1]
    best = int(teacher.argmax())
    student[0, best] = -np.inf
    found = LOSSES[name][0](jnp.asarray(student), jnp.asarray(teacher), jnp.array([best]))
    assert np.asarray(found) == [np.inf]


@pytest.mark.parametrize("name", LOSSES)
def test_nan_is_seen(name):
    student = np.array(STUDENT)
    student[:, 5] = np.nan
    found = LOSSES[name][0](jnp.asarray(student), jnp.asarray(TEACHER), jnp.asarray(LABEL))
    assert np.isnan(found).all()


# --- losses of a whole batch: of entries that are there, the others left out of every sum and mean -----


def _entries(logits, left, temperature):
    """Of each row the probabilities of the classes that it has, by class."""
    return [
        dict(zip(classes, softmax([row[c] for c in classes], temperature), strict=True))
        for row, classes in zip(np.asarray(logits), left, strict=True)
    ]


def _columns(rows):
    """Of each class that some row has, what these rows say of it, by row."""
    classes = sorted({c for row in rows for c in row})
    return [{i: row[c] for i, row in enumerate(rows) if c in row} for c in classes]


def _pearson(x, y):
    x, y = ([v - math.fsum(z.values()) / len(z) for v in z.values()] for z in (x, y))
    xy, xx, yy = (math.fsum(np.multiply(*pair)) for pair in ((x, y), (x, x), (y, y)))
    return xy / (math.sqrt(xx * yy) + 1e-8)


def _mean(values):
    values = list(values)
    return math.fsum(values) / len(values)


def _dist(s, t, left, temperature=2.0):
    q, p = (_entries(x, left, temperature) for x in (s, t))
    inter = _mean(_pearson(*pair) for pair in zip(q, p, strict=True))
    intra = _mean(_pearson(*pair) for pair in zip(_columns(q), _columns(p), strict=True))
    return temperature**2 * (1.5 * (1 - inter) + 0.5 * (1 - intra))


def _gram(q, p):
    """Squared differences of the dot products of all vectors, over their number."""

    def dot(a, b):
        return math.fsum(a[k] * b[k] for k in a.keys() & b.keys())

    size = len(q)
    pairs = [(i, k) for i in range(size) for k in range(size)]
    return math.fsum((dot(q[i], q[k]) - dot(p[i], p[k])) ** 2 for i, k in pairs) / size


def _multi_level(s, t, left):
    loss = 0.0
    for temperature in (1.0, 4.0):
        q, p = (_entries(x, left, temperature) for x in (s, t))
        kl = [_kl(list(b.values()), list(a.values())) for a, b in zip(q, p, strict=True)]
        loss += temperature**2 * _mean(kl) + _gram(q, p) + _gram(_columns(q), _columns(p))
    return loss


def _standardized_dist(s, t, left):
    def rows(x):
        made = np.full(x.shape, np.nan)
        for i, classes in enumerate(left):
            own = x[i, classes]
            made[i, classes] = (own - own.mean()) / (1e-7 + own.std(ddof=1))
        return made

    return _dist(rows(np.asarray(s)), rows(np.asarray(t)), left)


def _dist_of(s, t, axis_name=None):
    return dist(s, t, beta=1.5, gamma=0.5, temperature=2.0, axis_name=axis_name)


def _multi_level_of(s, t, axis_name=None):
    return multi_level_kd(s, t, temperatures=(1.0, 4.0), axis_name=axis_name)


RELATIONS = {
    "dist": (_dist_of, _dist),
    "multi_level_kd": (_multi_level_of, _multi_level),
    "standardize, dist": (
        lambda s, t, axis_name=None: _dist_of(standardize(s), standardize(t), axis_name),
        _standardized_dist,
    ),
}
# A masked vocabulary: two classes of the seven are of no example. And one that is each example's own.
MASKS = {"of all": [[0, 2, 3, 4, 6]] * ROWS, "of each": LEFT, "both": [[0, 2, 4, 6], [2, 4, 6]] * 3}


def _masked(left, seed):
    possible = np.array([[c in classes for c in range(CLASSES)] for classes in left])
    sides = np.random.default_rng(seed).normal(0, 2, (2, len(left), CLASSES))
    return possible, *np.where(possible, sides, -np.inf)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", RELATIONS)
def test_relations_of_a_batch_are_those_of_the_entries_that_are_there(name, mask):
    loss, by_hand = RELATIONS[name]
    left = MASKS[mask]
    possible, student, teacher = _masked(left, seed=1)
    sides = [jnp.asarray(x, jnp.float32) for x in (student, teacher)]
    found, (grad, to_teacher) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*sides)
    np.testing.assert_allclose(found, by_hand(student, teacher, left), rtol=1e-4)
    there = np.nonzero(possible)

    def of_entries(values):
        moved = np.array(student)
        moved[there] = values
        return by_hand(moved, teacher, left)

    slope = np.zeros((ROWS, CLASSES))
    slope[there] = slopes(of_entries, student[there])
    np.testing.assert_allclose(grad, slope, rtol=2e-3, atol=2e-4)
    assert (np.asarray(grad)[~possible] == 0).all()
    assert (np.asarray(to_teacher) == 0).all()


@pytest.mark.parametrize("name", RELATIONS)
def test_of_a_class_that_no_example_has_the_loss_is_that_without_its_column(name):
    loss, _ = RELATIONS[name]
    possible, *sides = _masked(MASKS["of all"], seed=2)
    both = jax.jit(jax.value_and_grad(loss))
    columns = possible[0].nonzero()[0]
    found, grad = both(*(jnp.asarray(x, jnp.float32) for x in sides))
    expected, rest = both(*(jnp.asarray(x[:, columns], jnp.float32) for x in sides))
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    np.testing.assert_allclose(grad[:, columns], rest, rtol=1e-4, atol=2e-6)


def test_eight_devices_count_the_classes_of_all_examples():
    # Most devices lack a class that another one has; class 6 is of none.
    rest = [[0, 1, 2, 3], [2, 3, 4], [4, 5, 0], [1, 2, 5]] * 4
    _, *sides = _masked(rest, seed=3)
    sides = [jnp.asarray(x, jnp.float32) for x in sides]

    def both(s, t, axis_name=None):
        return _dist_of(s, t, axis_name), _multi_level_of(s, t, axis_name)

    mapped = jax.pmap(lambda s, t: both(s, t, "data"), axis_name="data")
    found = mapped(*(x.reshape(8, 2, CLASSES) for x in sides))
    for devices, one in zip(found, jax.jit(both)(*sides), strict=True):
        np.testing.assert_allclose(devices, np.full(8, one), rtol=1e-5)


@pytest.mark.parametrize("name", ["dist", "multi_level_kd"])
def test_relations_see_what_one_side_alone_holds_impossible_as_a_probability_of_zero(name):
    sides = np.random.default_rng(4).normal(0, 2, (2, ROWS, CLASSES))
    left = [list(range(CLASSES))] * ROWS
    loss, by_hand = RELATIONS[name]
    student, teacher = np.array(sides[0]), np.array(sides[1])
    teacher[:, 2] = -1e4
    expected = by_hand(student, teacher, left)
    teacher[:, 2] = -np.inf
    found, grad = jax.jit(jax.value_and_grad(loss))(
        *(jnp.asarray(x, jnp.float32) for x in (student, teacher))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.abs(grad[:, 2]).min() > 0


@pytest.mark.parametrize("name", RELATIONS)
def test_nan_is_seen_in_relations(name):
    loss, _ = RELATIONS[name]
    _, student, teacher = _masked(MASKS["of all"], seed=5)
    student[3, 2] = np.nan
    assert np.isnan(jax.jit(loss)(*(jnp.asarray(x) for x in (student, teacher))))


# --- prototypes ----------------------------------------------------------------------------------------

MASK, KEPT = jnp.array([0.0, -jnp.inf, 0.0, 0.0, -jnp.inf, 0.0, 0.0]), jnp.array([0, 2, 3, 5, 6])


def _dino_of(scores, center):
    temperatures = {"student_temperature": 0.5, "teacher_temperature": 0.2}
    return dino(scores, scores[:2][::-1] / 2, center, **temperatures)


def _swav_of(scores, center):
    return swav(scores, assigned=2, epsilon=0.3, temperature=0.4)


@pytest.mark.parametrize("loss", [_dino_of, _swav_of])
def test_prototypes_that_cannot_be_are_no_part_of_a_loss(loss):
    # `test_laws` has these losses in float64; here, that a masked one is the same loss of fewer.
    scores = jnp.asarray(np.random.default_rng(6).normal(0, 0.5, (3, ROWS, CLASSES)), jnp.float32)
    center = jnp.linspace(-0.2, 0.3, CLASSES)

    def both(scores, center):
        grad = jax.grad(lambda scores: loss(scores, center).sum())(scores)
        return loss(scores, center), grad

    losses, grad = jax.jit(both)(scores + MASK[None, None], center)
    expected, rest = jax.jit(both)(scores[..., KEPT], center[KEPT])
    np.testing.assert_allclose(losses, expected, rtol=2e-5)
    np.testing.assert_allclose(grad[..., KEPT], rest, rtol=1e-4, atol=2e-6)
    assert (np.asarray(grad)[..., ~np.isfinite(MASK)] == 0).all()


@pytest.mark.parametrize("name", ["kd_kl", "kd_ce", "kd_mse", "dkd", "cross_entropy", "tf_kd"])
def test_the_only_class_that_can_be_costs_nothing(name):
    only = jnp.array([[-jnp.inf, 1.5, -jnp.inf]])

    def loss(s):
        return LOSSES[name][0](s, only, jnp.array([1])).sum()

    value, grad = jax.jit(jax.value_and_grad(loss))(only)
    assert value == 0
    assert (np.asarray(grad) == 0).all()
