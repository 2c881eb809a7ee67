"""What every loss must hold to, whatever its formula: one check each.

`cases` lists the losses, most with a derivation in float64 and plain loops.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def slopes(loss: Callable[[np.ndarray], Any], x, *, step: float = 1e-5) -> np.ndarray:
    """Central differences of `loss(x).sum()`, one entry of `x` at a time, in float64."""
    x = np.array(x, np.float64)
    found = np.empty_like(x)
    for place in np.ndindex(x.shape):
        way = np.zeros_like(x)
        way[place] = 1.0
        found[place] = slope_along(loss, x, way, step=step)
    return found


def slope_along(loss: Callable[[Any], Any], x, way, *, step: float = 1e-5) -> float:
    """Central difference of `loss(x).sum()` along one way, `x` an array or a tree of them."""

    def at(distance):
        moved = jax.tree.map(lambda a, d: np.asarray(a, np.float64) + distance * d, x, way)
        return np.sum(loss(moved))

    return (at(step) - at(-step)) / (2 * step)


@dataclasses.dataclass(frozen=True)
class Case:
    """One loss with its hyper-parameters.

    Attributes:
      name: of the test.
      loss: of the arrays; takes `axis_name` too if `batch_axes` is there.
      draw: `(random, rows) -> arrays`, for a batch of that many rows. One may be a tuple of arrays.
      by_hand: `(arrays, fixed) -> losses` in float64; `fixed` are the arrays that a differentiated
        loss takes as given, which differ from `arrays` in finite differences alone.
      learned: which of the arrays get a gradient.
      batch_axes: where the batch is in each array, None for one that all devices hold.
      rows: where the rows of an array are, those that are spoiled to try a loss.
      bound: of gradients where directions are unknown, if there is one.
      variant: other shapes or weights of a loss that is a case by itself: what is of the program and
        not of its numbers need not be tried again.
    """

    name: str
    loss: Callable[..., jax.Array]
    draw: Callable[[np.random.Generator, int], Sequence[Any]]
    by_hand: Callable[[Sequence[Any], Sequence[Any]], Any] | None = None
    learned: tuple[int, ...] = (0,)
    batch_axes: tuple[int | None, ...] | None = None
    rows: int = 0
    bound: float | None = None
    variant: bool = False

    @functools.cached_property
    def arrays(self) -> list[Any]:
        return self.drawn(0, 6)

    def drawn(self, seed: int, batch: int) -> list[Any]:
        drawn = self.draw(np.random.default_rng(seed), batch)
        return jax.tree.map(
            lambda x: jnp.asarray(x, None if x.dtype == bool else jnp.float32), list(drawn)
        )

    @functools.cached_property
    def traces(self) -> list[int]:
        return []

    @functools.cached_property
    def run(self):
        """`arrays -> (losses, gradients of their sum, None for what is not of floats)`, compiled."""

        def total(floats, others):
            self.traces.append(0)
            losses = self.loss(
                *(a if b is None else b for a, b in zip(floats, others, strict=True))
            )
            return losses.sum(), losses

        @jax.jit
        def both(floats, others):
            (_, losses), grads = jax.value_and_grad(total, has_aux=True)(floats, others)
            return losses, grads

        def run(arrays):
            floats = [None if _is_mask(x) else jax.tree.map(jnp.asarray, x) for x in arrays]
            return both(floats, [x if _is_mask(x) else None for x in arrays])

        return run


def _is_mask(x) -> bool:
    return isinstance(x, jax.Array | np.ndarray) and x.dtype == bool


def _wide(arrays) -> list[Any]:
    return jax.tree.map(lambda x: np.asarray(x, None if _is_mask(x) else np.float64), list(arrays))


def named(cases: Sequence[Case]) -> dict[str, Any]:
    """Arguments of `pytest.mark.parametrize`."""
    return {"argnames": "case", "argvalues": cases, "ids": [case.name for case in cases]}


def check_value(case: Case, rtol: float = 2e-5):
    assert case.by_hand is not None
    found, _ = case.run(case.arrays)
    assert found.dtype == jnp.float32
    wide = _wide(case.arrays)
    expected = np.asarray(case.by_hand(wide, wide))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-6)


def check_gradient(case: Case, rtol: float = 1e-3):
    """Along three ways, against differences of the float64 derivation; zero to what is not learned."""
    by_hand = case.by_hand
    assert by_hand is not None
    _, grads = case.run(case.arrays)
    wide, random = _wide(case.arrays), np.random.default_rng(1)
    for index, grad in enumerate(grads):
        if index not in case.learned:
            assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(grad))
            continue

        def moved(x, index=index):
            return by_hand([*wide[:index], x, *wide[index + 1 :]], wide)

        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(grad)) > 1e-3
        size = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(grad)))
        for _ in range(3):
            way = jax.tree.map(lambda x: random.normal(size=x.shape), wide[index])
            found = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), grad, way)))
            expected = slope_along(moved, wide[index], way)
            np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-4 * size)


# Directions and correlations are not known of these, or of some of their rows.
UNKNOWN = ("zero", "zero row", "constant", "equal rows", "equal pair", "zero column")
HARD = (*UNKNOWN, "opposite pair", "30", "90", "10,000", "1e-20")


def _hard(kind: str, x: jax.Array, axis: int) -> jax.Array:
    if _is_mask(x):
        return x
    axis = axis if x.ndim > 1 else 0
    z = np.moveaxis(np.array(x), axis, 0)
    sign = np.where(np.random.default_rng(x.size).random(z.shape) < 0.5, -1.0, 1.0)
    match kind:
        case "zero":
            z[:] = 0
        case "zero row":
            z[1] = 0
        case "constant":
            z[:], z[0], z[2] = 0.3, 7, -3
        case "equal rows":
            z[:] = z[:1]
        case "equal pair":
            z[2] = z[0]
        case "opposite pair":
            z[2] = -z[0]
        case "zero column":
            z[..., 1] = 0
        case "1e-20":
            z *= 1e-20
        case size:
            z = float(size.replace(",", "")) * sign
    return jnp.asarray(np.moveaxis(z, 0, axis), jnp.float32)


def check_finite(case: Case):
    """Losses and gradients of hard rows, of all arrays and of one beside others that are not hard.

    No gradient reaches what is not learned.
    """
    whole = case.arrays
    for kind in HARD:
        hard = jax.tree.map(lambda x, kind=kind: _hard(kind, x, case.rows), whole)
        tries = [hard, *([*whole[:i], x, *whole[i + 1 :]] for i, x in enumerate(hard))]
        first = jax.tree.map(jnp.shape, whole[:2])
        if len(whole) > 1 and first[0] == first[1] and not _is_mask(whole[1]):
            opposed = jax.tree.map(jnp.negative, hard[0])
            tries += [[hard[0], hard[0], *whole[2:]], [hard[0], opposed, *whole[2:]]]
        for number, arrays in enumerate(tries):
            found, grads = case.run(arrays)
            assert np.isfinite(found).all(), (kind, number)
            for index, grad in enumerate(grads):
                for leaf in map(np.asarray, jax.tree.leaves(grad)):
                    assert np.isfinite(leaf).all(), (kind, number)
                    assert index in case.learned or (leaf == 0).all(), (kind, number)
                    if case.bound is not None and kind in UNKNOWN:
                        assert np.abs(leaf).max() < case.bound, (kind, number)


def check_low_precision(case: Case):
    low = jax.tree.map(lambda x: x if _is_mask(x) else x.astype(jnp.bfloat16), case.arrays)
    wide = jax.tree.map(lambda x: x if _is_mask(x) else x.astype(jnp.float32), low)
    found, expected = jax.jit(case.loss)(*low), case.run(wide)[0]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def check_no_retrace(case: Case):
    case.run(case.arrays)
    before = len(case.traces)
    case.run(case.drawn(1, 6))
    assert len(case.traces) == before


def check_devices(case: Case):
    """Eight devices give the loss and, after the mean over them, the gradient of one."""
    axes = case.batch_axes
    assert axes is not None
    arrays = case.drawn(2, 16)
    dim = arrays[0].shape[-1]
    weight = jnp.asarray(np.random.default_rng(3).normal(size=(dim, dim)), jnp.float32)

    def total(weight, arrays, axis_name):
        live = [x @ weight if i in case.learned else x for i, x in enumerate(arrays)]
        losses = case.loss(*live, axis_name=axis_name)
        return losses.mean(), losses

    def mapped(weight, *arrays):
        grad, losses = jax.grad(total, has_aux=True)(weight, arrays, "data")
        return lax.pmean(grad, "data"), losses

    one = jax.jit(lambda weight, *arrays: jax.grad(total, has_aux=True)(weight, arrays, None))
    expected, losses = one(weight, *arrays)
    shards = [
        x if axis is None else x.reshape(*x.shape[:axis], 8, 2, *x.shape[axis + 1 :])
        for x, axis in zip(arrays, axes, strict=True)
    ]
    spread = jax.pmap(mapped, axis_name="data", in_axes=(None, *axes))
    found, mapped_losses = spread(weight, *shards)
    if losses.ndim == 0:
        losses = jnp.broadcast_to(losses, (8,))
    np.testing.assert_allclose(mapped_losses.ravel(), losses, rtol=1e-5, atol=1e-6)
    close = {"rtol": 1e-4, "atol": 1e-5 * float(np.abs(expected).max())}
    for device in np.asarray(found):
        np.testing.assert_allclose(device, expected, **close)
    # Without the name every device would see its own two rows alone.
    own = [
        x if axis is None else x.take(jnp.arange(2), axis)
        for x, axis in zip(arrays, axes, strict=True)
    ]
    _, alone = one(weight, *own)
    assert np.abs(alone - losses[:2]).max() > 1e-3
