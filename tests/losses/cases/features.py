"""Losses between the features of a student and of a teacher."""

import functools

import jax.numpy as jnp
import numpy as np

from kdjax import losses
from tests.losses import by_hand
from tests.losses.laws import Case

LOG_SCALE, MARGIN = np.array([0.4, -1.3, 1.9], np.float32), np.array([-1.2, -0.3, -2.0], np.float32)


def _shaped(shape):
    """Arrays of any shape but for the batch, or a tuple of them."""
    if isinstance(shape[0], tuple):
        parts = [_shaped(part) for part in shape]
        return lambda random, rows: tuple(part(random, rows) for part in parts)
    return lambda random, rows: random.normal(0, 1.5, (rows, *shape))


def _case(name, student, teacher, extra=None, *, batch=False):
    """Of `losses.NAME` and `by_hand.NAME`; what follows a dash tells cases of one loss apart."""
    formula, _, variant = name.partition("-")
    loss, derivation = getattr(losses, formula), getattr(by_hand, formula)
    if extra is not None:
        loss = functools.partial(lambda f, s, t: f(s, t, jnp.asarray(extra)), loss)
        derivation = functools.partial(lambda f, s, t: f(s, t, extra), derivation)
    sides = _shaped(student), _shaped(teacher)
    return Case(
        name,
        loss,
        lambda random, rows: [side(random, rows) for side in sides],
        lambda arrays, _: derivation(*arrays),
        batch_axes=(0, 0) if batch else None,
        bound=600,
        variant=bool(variant),
    )


LEVELS = ((5, 5, 6), (4, 4, 5), (1, 1, 2))
CASES = [
    _case("hint_mse", (3, 2, 5), (3, 2, 5)),
    _case("hint_mse-vectors", (5,), (5,)),
    _case("attention_transfer", (4, 3, 2), (4, 3, 5)),
    _case("attention_transfer-student-larger", (5, 5, 2), (3, 3, 3)),
    _case("attention_transfer-teacher-larger", (2, 2, 4), (4, 5, 3)),
    _case("nst", (3, 2, 5), (3, 2, 4)),
    _case("nst-student-larger", (5, 5, 2), (3, 3, 3)),
    _case("nst-teacher-larger", (3, 3, 2), (6, 6, 3)),
    _case("vid", (3, 2, 3), (3, 2, 3), LOG_SCALE),
    _case("vid-vectors", (3,), (3,), LOG_SCALE),
    _case("fsp", ((5, 5, 2), (3, 3, 4)), ((3, 3, 2), (4, 4, 4))),
    _case("ofd", (3, 4, 3), (3, 4, 3), MARGIN),
    _case("review_hcl", LEVELS, LEVELS),
    _case("rkd_distance", (4,), (7,), batch=True),
    _case("rkd_angle", (4,), (7,), batch=True),
    _case("similarity_preserving", (4,), (7,), batch=True),
    _case("similarity_preserving-maps", (2, 2, 3), (7,), batch=True),
    _case("correlation_congruence", (4,), (7,), batch=True),
    _case("pkt", (4,), (7,), batch=True),
]
