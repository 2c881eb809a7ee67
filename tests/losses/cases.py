"""What every self-supervised loss must hold to, whatever its formula: one check each.

A test file lists its losses as cases, each with a derivation in float64 and plain loops.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@dataclasses.dataclass(frozen=True)
class Case:
    """One loss with its hyper-parameters.

    Attributes:
      name: of the test.
      loss: of the arrays; takes `axis_name` too if `batch_axes` is there.
      draw: `(random, rows) -> arrays`, for a batch of that many rows.
      by_hand: `(arrays, fixed) -> losses` in float64; `fixed` are the arrays that a differentiated
        loss takes as given, which differ from `arrays` in finite differences alone.
      learned: which of the arrays get a gradient.
      batch_axes: where the batch is in each array, None for one that all devices hold.
    """

    name: str
    loss: Callable[..., jax.Array]
    draw: Callable[[np.random.Generator, int], Sequence[np.ndarray]]
    by_hand: Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], Any]
    learned: tuple[int, ...]
    batch_axes: tuple[int | None, ...] | None = None

    @functools.cached_property
    def arrays(self) -> list[jax.Array]:
        return self.drawn(0, 6)

    def drawn(self, seed: int, batch: int) -> list[jax.Array]:
        drawn = self.draw(np.random.default_rng(seed), batch)
        return [jnp.asarray(x, None if x.dtype == bool else jnp.float32) for x in drawn]

    @functools.cached_property
    def traces(self) -> list[int]:
        return []

    @functools.cached_property
    def run(self):
        """`arrays -> (losses, gradients of their sum, one for each array of floats)`, compiled."""

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
            floats = [x if jnp.issubdtype(x.dtype, jnp.floating) else None for x in arrays]
            others = [x if a is None else None for x, a in zip(arrays, floats, strict=True)]
            return both(floats, others)

        return run


def named(cases: Sequence[Case]) -> dict[str, Any]:
    """Arguments of `pytest.mark.parametrize`."""
    return {"argnames": "case", "argvalues": cases, "ids": [case.name for case in cases]}


def unit(row: np.ndarray) -> np.ndarray:
    return row / math.sqrt(math.fsum(v * v for v in row))


def dot(a: np.ndarray, b: np.ndarray) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def softmax(row: np.ndarray) -> list[float]:
    exp = [math.exp(value - max(row)) for value in row]
    return [value / math.fsum(exp) for value in exp]


def _wide(arrays) -> list[np.ndarray]:
    return [x if x.dtype == bool else np.asarray(x, np.float64) for x in map(np.asarray, arrays)]


def check_value(case: Case, rtol: float = 2e-5):
    found, _ = case.run(case.arrays)
    assert found.dtype == jnp.float32
    wide = _wide(case.arrays)
    expected = np.asarray(case.by_hand(wide, wide))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-6)


def check_gradient(case: Case, rtol: float = 1e-3):
    """Against differences of the float64 derivation; zero to whatever is not learned."""
    _, grads = case.run(case.arrays)
    wide = _wide(case.arrays)
    for index, grad in enumerate(grads):
        if grad is None:
            continue
        if index not in case.learned:
            assert (np.asarray(grad) == 0).all()
            continue
        expected = np.zeros(grad.shape)
        for at in np.ndindex(grad.shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = [x.copy() for x in wide]
                moved[index][at] += step
                sides.append(np.sum(case.by_hand(moved, wide)))
            expected[at] = (sides[0] - sides[1]) / 2e-5
        scale = np.abs(expected).max()
        assert scale > 1e-3
        np.testing.assert_allclose(grad, expected, rtol=rtol, atol=1e-4 * scale)


def _hard(x: jax.Array, kind: str) -> jax.Array:
    if x.dtype == bool:
        return x
    sign = np.where(np.random.default_rng(x.size).random(x.shape) < 0.5, -1.0, 1.0)
    made = {
        "zero": np.zeros(x.shape),
        "one zero row": np.where(np.arange(x.shape[-2])[:, None] == 0, 0.0, x)
        if x.ndim > 1
        else np.asarray(x),
        "constant": np.full(x.shape, 0.3),
        "duplicates": np.broadcast_to(x[..., :1, :], x.shape) if x.ndim > 1 else np.asarray(x),
        "30": 30.0 * sign,
        "10,000": 1e4 * sign,
    }
    return jnp.asarray(made[kind], jnp.float32)


def check_finite(case: Case):
    for kind in ("zero", "one zero row", "constant", "duplicates", "30", "10,000"):
        found, grads = case.run([_hard(x, kind) for x in case.arrays])
        assert np.isfinite(found).all(), kind
        assert all(np.isfinite(g).all() for g in grads if g is not None), kind
        if kind == "zero":
            continue
        # One array at its worst beside others that are not.
        for index in range(len(case.arrays)):
            arrays = list(case.arrays)
            arrays[index] = _hard(arrays[index], kind)
            found, grads = case.run(arrays)
            assert np.isfinite(found).all(), (kind, index)
            assert all(np.isfinite(g).all() for g in grads if g is not None), (kind, index)


def check_low_precision(case: Case):
    low = [x if x.dtype == bool else x.astype(jnp.bfloat16) for x in case.arrays]
    wide = [x if x.dtype == bool else x.astype(jnp.float32) for x in low]
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
