import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kdjax.losses import CRDState, crd, crd_state
from kdjax.types import BadInput

RNG = np.random.default_rng(0)
EXAMPLES, DIM, BATCH, NEGATIVES = 12, 5, 4, 3
STUDENT, TEACHER = jnp.asarray(RNG.normal(0, 2, (2, BATCH, DIM)), jnp.float32)
INDEX = jnp.array([7, 0, 11, 3])
OTHERS = jnp.asarray(RNG.integers(0, EXAMPLES, (BATCH, NEGATIVES)), jnp.int32)
STATE = crd_state(jax.random.key(0), examples=EXAMPLES, dim=DIM)
TRACES = []


def _mean(student, teacher, state, index, negatives, temperature):
    TRACES.append(0)
    found, after = crd(student, teacher, state, index, negatives, temperature=temperature)
    return found.mean(), (found, after)


_run = jax.jit(jax.value_and_grad(_mean, argnums=(0, 1), has_aux=True))


def _found(student=STUDENT, teacher=TEACHER, state=STATE, index=INDEX, temperature=0.3):
    (_, (found, after)), grads = _run(student, teacher, state, index, OTHERS, temperature)
    return found, after, grads


def _unit(row):
    return row / math.sqrt(math.fsum(v * v for v in row))


def _by_hand(student, teacher, state, temperature=0.3):
    """Float64, as the authors' code has it, outside of the logarithm: `(losses, state after)`."""
    student, teacher = ([_unit(row) for row in np.asarray(x, float)] for x in (student, teacher))
    memories = [np.array(x, float) for x in (state.student_memory, state.teacher_memory)]
    chosen = np.concatenate([INDEX[:, None], OTHERS], axis=1)
    noise = NEGATIVES / EXAMPLES
    losses, constants = np.zeros(BATCH), []
    log_zs = state.student_log_z, state.teacher_log_z
    for rows, memory, log_z in zip((student, teacher), memories[::-1], log_zs, strict=True):
        scores = [
            [math.exp(math.fsum(row * memory[n]) / temperature) for n in ns]
            for row, ns in zip(rows, chosen, strict=True)
        ]
        z = math.fsum(map(math.fsum, scores)) / np.size(scores) * EXAMPLES
        z = z if np.isneginf(log_z) else math.exp(log_z)
        constants.append(z)
        for i, (positive, *negatives) in enumerate(scores):
            losses[i] -= math.log(positive / z / (positive / z + noise + 1e-7))
            for negative in negatives:
                losses[i] -= math.log(noise / (negative / z + noise + 1e-7))
    for rows, memory in zip((student, teacher), memories, strict=True):
        for row, place in zip(rows, INDEX, strict=True):
            memory[place] = _unit(0.5 * memory[place] + 0.5 * row)
    return losses, CRDState(*memories, *map(math.log, constants))


def test_golden_for_two_steps():
    found, state, _ = _found()
    expected, expected_state = _by_hand(STUDENT, TEACHER, STATE)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for ours, theirs in zip(state, expected_state, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    # The constants stay; the memory is that of the step before, the batch's rows moved.
    second, after, _ = _found(TEACHER, STUDENT, state)
    expected, expected_state = _by_hand(TEACHER, STUDENT, expected_state)
    np.testing.assert_allclose(second, expected, rtol=1e-5)
    np.testing.assert_array_equal(after[2:], state[2:])
    for ours, theirs in zip(after, expected_state, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    untouched = np.setdiff1d(np.arange(EXAMPLES), INDEX)
    for before, now in zip(STATE[:2], after[:2], strict=True):
        np.testing.assert_array_equal(before[untouched], now[untouched])


@pytest.mark.parametrize("side", [0, 1], ids=["student", "teacher"])
def test_gradient_is_the_slope_of_the_golden_on_both_sides(side):
    # With the constants of an earlier batch: of their own batch they send no gradient.
    state = STATE._replace(student_log_z=jnp.float32(2.0), teacher_log_z=jnp.float32(2.5))
    _, _, grads = _found(state=state)
    pair = [np.asarray(x, float) for x in (STUDENT, TEACHER)]
    for seed in range(3):
        ahead = np.random.default_rng(seed).normal(size=(BATCH, DIM))
        ends = []
        for step in (1e-5, -1e-5):
            moved = list(pair)
            moved[side] = moved[side] + step * ahead
            ends.append(_by_hand(*moved, state)[0].mean())
        slope = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose((grads[side] * ahead).sum(), slope, rtol=1e-4, atol=1e-6)


def test_no_gradient_reaches_or_leaves_the_state():
    def loss(state):
        found, after = crd(STUDENT, TEACHER, state, INDEX, OTHERS, temperature=0.3)
        return found.sum() + sum(x.sum() for x in after)

    state = STATE._replace(student_log_z=jnp.float32(2.0), teacher_log_z=jnp.float32(2.5))
    assert all((np.asarray(x) == 0).all() for x in jax.jit(jax.grad(loss))(state))

    def kept(student, teacher):
        _, after = crd(student, teacher, STATE, INDEX, OTHERS, temperature=0.3)
        return sum(x.sum() for x in after)

    assert all(
        (np.asarray(x) == 0).all() for x in jax.jit(jax.grad(kept, (0, 1)))(STUDENT, TEACHER)
    )


def test_is_blind_to_scale_and_swaps_with_the_sides():
    found, state, _ = _found()
    scaled, _, _ = _found(STUDENT * 8, TEACHER / 8)
    np.testing.assert_allclose(scaled, found, rtol=1e-5)
    swapped = CRDState(STATE[1], STATE[0], STATE[3], STATE[2])
    other, after, _ = _found(TEACHER, STUDENT, swapped)
    np.testing.assert_allclose(other, found, rtol=1e-5)
    np.testing.assert_allclose(after.student_memory, state.teacher_memory, rtol=1e-5)
    assert (found > 0).all()


def test_certainty_costs_the_logarithm_of_the_noise():
    # Each example alone on its axis, remembered by both sides, and negatives on others: at a low
    # temperature P is Z^-1 e^(1/T) for the positive and nothing for the negatives.
    rows = jnp.eye(4)
    state = CRDState(rows, rows, jnp.float32(10.0), jnp.float32(10.0))
    negatives = jnp.array([[1, 2], [2, 3], [3, 0], [0, 1]])
    loss = jax.jit(lambda *args: crd(*args, temperature=0.05))
    found, _ = loss(rows, rows, state, jnp.arange(4), negatives)
    noise = 2 / 4
    right = math.log1p((noise + 1e-7) * math.exp(10 - 1 / 0.05))
    wrong = 2 * math.log((math.exp(-10) + noise + 1e-7) / noise)
    np.testing.assert_allclose(found, 2 * (right + wrong), rtol=1e-3)


@pytest.mark.parametrize("temperature", [1e-3, 0.07, 10.0])
def test_degenerate_embeddings_stay_finite(temperature):
    # At 1e-3 scores are e^1000.
    student, teacher = np.array(STUDENT), np.array(TEACHER)
    student[0] = teacher[0] = 0
    student[1] = 0
    student[2], teacher[2] = 1e4, -1e4
    memory = STATE.student_memory.at[INDEX[2]].set(-student[2] / np.linalg.norm(student[2]))
    state = STATE._replace(student_memory=memory)
    for _ in range(2):
        found, state, grads = _found(student, teacher, state, temperature=temperature)
        for x in jax.tree.leaves((found, state, grads)):
            assert np.isfinite(x).all()


def test_an_example_that_is_not_in_the_memory_is_not_passed_over():
    found, _, _ = _found(state=_found()[1], index=INDEX.at[1].set(EXAMPLES))
    np.testing.assert_array_equal(np.isnan(found), [False, True, False, False])


def test_low_precision_is_computed_in_float32():
    low = [x.astype(jnp.bfloat16) for x in (STUDENT, TEACHER)]
    found, state, _ = _found(*low)
    assert {x.dtype for x in (found, *state)} == {jnp.dtype("float32")}
    expected, wide, _ = _found(*(x.astype(jnp.float32) for x in low))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(state.student_memory, wide.student_memory, rtol=1e-5)


def test_eight_devices_give_the_loss_the_gradient_and_the_state_of_one():
    x, teacher = jnp.asarray(RNG.normal(size=(2, 16, 6)), jnp.float32)
    weight = jnp.asarray(RNG.normal(size=(6, DIM)), jnp.float32)
    state = crd_state(jax.random.key(1), examples=20, dim=DIM)
    index = jnp.asarray(RNG.permutation(20)[:16], jnp.int32)
    negatives = jnp.asarray(RNG.integers(0, 20, (16, 3)), jnp.int32)

    def loss(weight, x, teacher, index, negatives, axis_name):
        found, after = crd(
            x @ weight,
            teacher @ weight,
            state,
            index,
            negatives,
            temperature=0.2,
            axis_name=axis_name,
        )
        return found.mean(), (found, after)

    def mapped(*args):
        grad, rest = jax.grad(loss, has_aux=True)(*args, "data")
        return lax.pmean(grad, "data"), *rest

    arrays = x, teacher, index, negatives
    expected, (one, after) = jax.jit(lambda *args: jax.grad(loss, has_aux=True)(*args, None))(
        weight, *arrays
    )
    shards = [rows.reshape(8, 2, *rows.shape[1:]) for rows in arrays]
    found, many, states = jax.pmap(mapped, axis_name="data", in_axes=(None, 0, 0, 0, 0))(
        weight, *shards
    )
    np.testing.assert_allclose(many.ravel(), one, rtol=1e-5)
    for device in range(8):
        np.testing.assert_allclose(found[device], expected, rtol=1e-4, atol=1e-6)
        for ours, theirs in zip(states, after, strict=True):
            np.testing.assert_allclose(ours[device], theirs, rtol=1e-5, atol=1e-6)


def test_a_fresh_state_is_of_unit_length_on_average_and_has_no_constants():
    state = crd_state(jax.random.key(2), examples=2000, dim=8)
    for memory in state[:2]:
        assert memory.shape == (2000, 8)
        assert np.abs(memory).max() <= math.sqrt(3 / 8)
        np.testing.assert_allclose((memory**2).sum(-1).mean(), 1, rtol=0.03)
    assert np.abs(state.student_memory - state.teacher_memory).mean() > 0.1
    assert np.isneginf(state[2:]).all()


def test_no_negatives_are_named():
    with pytest.raises(BadInput, match=r"^negatives: none"):
        crd(STUDENT, TEACHER, STATE, INDEX, jnp.zeros((BATCH, 0), jnp.int32), temperature=0.1)


def test_second_call_does_not_retrace():
    _, state, _ = _found()
    traced = len(TRACES)
    _found(TEACHER, STUDENT, state, INDEX[::-1], temperature=0.7)
    assert len(TRACES) == traced
