"""The recurrence of an LSTM: what it computes, its gradients, padding, and pieces of a sequence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax import recurrence
from kdjax.evaluate import flops
from kdjax.recurrence import State

BATCH, STEPS, DIM, HIDDEN = 4, 7, 5, 3
LENGTHS = np.asarray([7, 4, 1, 6], np.int32)


@pytest.fixture(scope="module")
def operands():
    random = np.random.default_rng(0)
    shapes = [(BATCH, STEPS, DIM), (DIM, 4, HIDDEN), (HIDDEN, 4, HIDDEN), (4, HIDDEN)]
    return [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes]


def derived(x, kernel, recurrent, bias, *, state=None, reverse=False):
    """One example, step by step, in float64: [step, hidden], and the last state."""
    x, kernel, recurrent, bias = (np.asarray(a, np.float64) for a in (x, kernel, recurrent, bias))

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    hidden, cell = state or (np.zeros(HIDDEN), np.zeros(HIDDEN))
    found = np.zeros((len(x), HIDDEN))
    for at in range(len(x))[:: -1 if reverse else 1]:
        i, f, g, o = (
            x[at] @ kernel[:, gate] + hidden @ recurrent[:, gate] + bias[gate] for gate in range(4)
        )
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        found[at] = hidden
    return found, hidden, cell


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_each_example_is_its_own_steps(operands, reverse, ragged):
    x, *parameters = operands
    length = jnp.asarray(LENGTHS) if ragged else None
    run = jax.jit(functools.partial(recurrence.lstm, reverse=reverse))
    found, state = run(x, *parameters, length=length)
    for i, steps in enumerate(LENGTHS if ragged else [STEPS] * BATCH):
        expected, hidden, cell = derived(x[i, :steps], *parameters, reverse=reverse)
        np.testing.assert_allclose(found[i, :steps], expected, atol=1e-6)
        assert not np.any(found[i, steps:])
        np.testing.assert_allclose(state.hidden[i], hidden, atol=1e-6)
        np.testing.assert_allclose(state.cell[i], cell, atol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_what_stands_in_the_padding_changes_nothing(operands, reverse):
    x, *parameters = operands
    there = (np.arange(STEPS) < LENGTHS[:, None])[..., None]
    wider = jnp.pad(jnp.where(there, x, 1e3), ((0, 0), (0, 4), (0, 0)), constant_values=-1e3)

    def loss(parameters, x):
        found, state = recurrence.lstm(x, *parameters, length=jnp.asarray(LENGTHS), reverse=reverse)
        return (found**2).sum() + state.cell.sum()

    one, other = (jax.value_and_grad(loss)(parameters, each) for each in (x, wider))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("ragged", [False, True])
def test_gradients(operands, ragged):
    length = jnp.asarray(LENGTHS) if ragged else None
    random = np.random.default_rng(1)
    state = [jnp.asarray(random.normal(size=(BATCH, HIDDEN)), jnp.float32) for _ in range(2)]

    def value(*given):
        x, kernel, recurrent, bias, hidden, cell = map(jnp.asarray, given)
        found, after = recurrence.lstm(
            x, kernel, recurrent, bias, length=length, state=State(hidden, cell)
        )
        return jnp.tanh(found).sum(1), after.cell

    check_grads(value, (*operands, *state), order=1, atol=2e-2, rtol=2e-2, eps=1e-2)
    # Under what training does to a step.
    plain = jax.grad(lambda *given: value(*given)[0].sum(), argnums=1)(*operands, *state)
    kept = jax.grad(lambda *given: jax.checkpoint(value)(*given)[0].sum(), argnums=1)
    np.testing.assert_allclose(jax.jit(kept)(*operands, *state), plain, rtol=1e-5, atol=1e-6)


def test_several_parameters_at_once(operands):
    x, kernel, *rest = operands
    kernels = jnp.stack([kernel, 2 * kernel, -kernel])
    found = jax.vmap(lambda kernel: recurrence.lstm(x, kernel, *rest)[0])(kernels)
    for each, kernel in zip(found, kernels, strict=True):
        np.testing.assert_allclose(each, recurrence.lstm(x, kernel, *rest)[0], atol=1e-6)


def test_pieces_of_a_sequence_are_the_whole(operands):
    x, *parameters = operands
    whole, end = recurrence.lstm(x, *parameters)
    found, state = [], None
    for piece in (x[:, :1], x[:, 1:5], x[:, 5:]):
        given, state = recurrence.lstm(piece, *parameters, state=state)
        found.append(given)
    np.testing.assert_allclose(jnp.concatenate(found, 1), whole, atol=1e-6)
    assert state is not None
    np.testing.assert_allclose(state.cell, end.cell, atol=1e-6)


def test_its_products_are_counted(operands):
    """Four gates of each step: what goes in, and the hidden state."""
    found = flops(lambda *given: recurrence.lstm(*given)[0], *operands)
    assert found == 2 * BATCH * STEPS * 4 * HIDDEN * (DIM + HIDDEN)


def test_shapes_may_be_open(operands):
    _, *parameters = operands
    batch, steps = jax.export.symbolic_shape("b, t")
    x = jax.ShapeDtypeStruct((batch, steps, DIM), jnp.float32)
    length = jax.ShapeDtypeStruct((batch,), jnp.int32)

    def run(x, length):
        return recurrence.lstm(x, *parameters, length=length)[0]

    exported = jax.export.export(jax.jit(run))(x, length)
    given = jnp.ones((2, 9, DIM)), jnp.asarray([9, 2], jnp.int32)
    np.testing.assert_allclose(exported.call(*given), run(*given), atol=1e-6)
