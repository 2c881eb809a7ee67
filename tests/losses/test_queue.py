import collections
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.losses import enqueue, info_nce, random_queue, seed
from kdjax.types import BadInput
from tests.losses.by_hand import dot, softmax, unit

RNG = np.random.default_rng(0)
QUEUE = jnp.asarray(RNG.normal(size=(24, 3)), jnp.float32)
ROWS = jnp.asarray(RNG.normal(size=(8, 3)), jnp.float32)

_enqueue = jax.jit(enqueue)


def _by_hand(queue, rows, pointer):
    queue = [row.tolist() for row in np.asarray(queue)]
    for row in np.asarray(rows):
        queue[pointer] = row.tolist()
        pointer = 0 if pointer == len(queue) - 1 else pointer + 1
    return np.array(queue, np.float32), pointer


@pytest.mark.parametrize(
    ("pointer", "after"), [(0, 8), (8, 16), (16, 0), pytest.param(20, 4, id="over the end")]
)
def test_golden(pointer, after):
    queue, moved = _enqueue(QUEUE, ROWS, jnp.int32(pointer))
    expected, expected_pointer = _by_hand(QUEUE, ROWS, pointer)
    assert (queue.dtype, moved.dtype) == ("float32", "int32")
    assert moved.shape == ()
    assert int(moved) == expected_pointer == after
    np.testing.assert_array_equal(queue, expected)


def test_it_begins_with_directions_that_no_other_row_has():
    queue = np.asarray(random_queue(jax.random.key(0), size=512, dim=64))
    cosines = queue @ queue.T
    np.testing.assert_allclose(np.diag(cosines), 1.0, rtol=1e-5)
    others = cosines[~np.eye(512, dtype=bool)]
    assert abs(others.mean()) < 0.01  # of any direction
    np.testing.assert_allclose(others.std(), 1 / 8, rtol=0.02)  # 1 / sqrt(dim)


def test_the_oldest_are_gone_once_it_has_gone_round():
    queue, pointer = QUEUE, jnp.int32(8)
    batches = jnp.asarray(RNG.normal(size=(4, 8, 3)), jnp.float32)
    for rows in batches:
        queue, pointer = _enqueue(queue, rows, pointer)
    assert int(pointer) == 16
    # First in, first out: from the pointer on, the last three batches in their order.
    found = np.roll(queue, -int(pointer), axis=0)
    np.testing.assert_array_equal(found, batches[1:].reshape(24, 3))


def test_it_is_carried_by_a_scan():
    def step(state, rows):
        return enqueue(state[0], rows, state[1]), None

    batches = jnp.asarray(RNG.normal(size=(4, 8, 3)), jnp.bfloat16)
    (queue, pointer), _ = jax.jit(lambda *args: jax.lax.scan(step, *args))(
        (QUEUE, jnp.int32(0)), batches
    )
    assert queue.dtype == jnp.float32  # whatever the encoder's
    assert int(pointer) == 8
    np.testing.assert_array_equal(queue[:8], batches[3].astype(jnp.float32))


@pytest.mark.parametrize(
    "loss",
    [
        functools.partial(info_nce, temperature=0.3),
        # A teacher so cold is sure of its own embedding: the same loss.
        functools.partial(seed, student_temperature=0.3, teacher_temperature=1e-6),
    ],
    ids=["info_nce", "seed"],
)
def test_a_loss_reads_the_keys_of_the_batches_before(loss):
    images = jnp.asarray(RNG.normal(size=(7, 4, 5)), jnp.float32)
    online, target = jnp.asarray(RNG.normal(size=(2, 5, 3)), jnp.float32)

    def step(state, batch):
        online, target, queue, pointer = state
        keys = batch @ target

        def mean(online):
            losses = loss(batch @ online, keys, queue)
            return losses.mean(), losses

        grad, losses = jax.grad(mean, has_aux=True)(online)
        online = online - 0.5 * grad
        queue, pointer = enqueue(queue, keys, pointer)
        return (online, 0.9 * target + 0.1 * online, queue, pointer), (state[:2], losses)

    start = online, target, QUEUE[:12], jnp.int32(0)
    _, (weights, found) = jax.jit(lambda *args: jax.lax.scan(step, *args))(start, images)

    queue = collections.deque(np.asarray(QUEUE[:12], float), maxlen=12)
    for batch, online, target, losses in zip(
        np.asarray(images, float), *weights, found, strict=True
    ):
        keys = batch @ np.asarray(target, float)
        for query, key, value in zip(batch @ np.asarray(online, float), keys, losses, strict=True):
            cosines = [dot(unit(query), unit(other)) for other in (key, *queue)]
            np.testing.assert_allclose(value, -math.log(softmax(cosines, 0.3)[0]), rtol=1e-4)
        queue.extend(keys)


def test_no_gradient_goes_through_it():
    def total(queue, rows):
        return (enqueue(queue, rows, jnp.int32(0))[0] ** 2).sum()

    for grad in jax.jit(jax.grad(total, argnums=(0, 1)))(QUEUE, ROWS):
        assert (np.asarray(grad) == 0).all()


def test_eight_devices_store_the_rows_of_all_as_one_does():
    rows = jnp.asarray(RNG.normal(size=(16, 3)), jnp.float32)
    queue = jnp.asarray(RNG.normal(size=(32, 3)), jnp.float32)
    expected, expected_pointer = _enqueue(queue, rows, jnp.int32(16))

    def mapped(queue, rows, pointer):
        return enqueue(queue, rows, pointer, axis_name="data")

    pmapped = jax.pmap(mapped, axis_name="data", in_axes=(None, 0, None))
    found, pointers = pmapped(queue, rows.reshape(8, 2, 3), jnp.int32(16))
    for device, pointer in zip(np.asarray(found), pointers, strict=True):
        np.testing.assert_array_equal(device, expected)
        assert int(pointer) == int(expected_pointer) == 0
    # Each device's own rows would fit, those of all of them do not.
    with pytest.raises(BadInput, match=r"^queue: 24 rows; give a multiple of the batch, 16"):
        pmapped(QUEUE, rows.reshape(8, 2, 3), jnp.int32(0))


@pytest.mark.parametrize("batch", [7, 16, 48])
def test_what_does_not_divide_it_is_named(batch):
    with pytest.raises(BadInput, match=f"^queue: 24 rows; give a multiple of the batch, {batch}$"):
        enqueue(QUEUE, jnp.zeros((batch, 3)), jnp.int32(0))
