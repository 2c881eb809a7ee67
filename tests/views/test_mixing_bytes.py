"""The bytes of mixtures are the same in every program, as users' programs are compiled."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kdjax import keys, views
from kdjax.views import mixing

pytestmark = pytest.mark.optimized
KEY = jax.random.key(0)
STREAM = keys.stream(KEY, "distill")
MIXES = {
    "mixup": functools.partial(views.mixup, alpha=0.4),
    "cutmix": functools.partial(views.cutmix, alpha=1.0),
}
# One `std` for all channels: its reciprocal is a scalar, which XLA likes to move.
RECIPE = functools.partial(views.crop_flip, size=16, shift=2, cutout=4, mean=(0.45,), std=(0.3,))


@pytest.fixture(scope="module")
def reference():
    """256 raw images, their views and their mixtures: what every other program must repeat."""
    id = jnp.arange(256, dtype=jnp.uint32) * 7919 + 3
    raw = np.random.default_rng(0).integers(0, 256, (256, 20, 24, 3), np.uint8)
    partner = np.random.default_rng(1).permutation(256)
    data = id % 3, id, jnp.asarray(raw)
    seen = jax.jit(functools.partial(views.batch_views, RECIPE))(STREAM, *data)
    make = {name: jax.jit(functools.partial(views.batch_mixed, mix)) for name, mix in MIXES.items()}
    mixed = {name: one(STREAM, *data[:2], seen, seen[partner]) for name, one in make.items()}
    return data, partner, seen, make, jax.tree.map(np.asarray, mixed)


def assert_same(result, expected, rows):
    for found, whole in zip(result, expected, strict=True):
        found = np.asarray(found)
        np.testing.assert_array_equal(
            found.reshape(-1, *whole.shape[1:]).view(np.uint32), whole[rows].view(np.uint32)
        )


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("size", [1, 7, 32])
def test_same_bytes_in_any_batch(reference, name, size):
    (view, id, _), partner, seen, make, expected = reference
    rows = np.random.default_rng(size).permutation(256)[:size]
    result = make[name](STREAM, view[rows], id[rows], seen[rows], seen[partner[rows]])
    assert_same(result, expected[name], rows)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_same_bytes_in_one_program_with_the_recipe_and_what_follows(reference, name):
    data, partner, _, _, expected = reference

    @jax.jit
    def program(batches):
        def step(total, rows):
            view, id, partner_id, image, partner_image = rows
            a = views.batch_views(RECIPE, STREAM, view, id, image)
            b = views.batch_views(RECIPE, STREAM, view, partner_id, partner_image)
            mixed, weight = views.batch_mixed(MIXES[name], STREAM, view, id, a, b)
            used = (mixed * 1.7 + 0.3).mean((1, 2, 3)) * weight + (1.0 - weight) * 0.1
            return total * 0.9 + used.sum(), (mixed, weight)

        return lax.scan(step, 0.0, batches)[1]

    view, id, image = (np.asarray(x) for x in data)
    rows = np.flatnonzero(view[partner] == view)[:64]  # where the partner's view is in `seen`
    other = partner[rows]
    batches = (view[rows], id[rows], id[other], image[rows], image[other])
    result = program(tuple(x.reshape(8, 8, *x.shape[1:]) for x in batches))
    assert_same(result, expected[name], rows)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_same_bytes_of_a_constant_key(reference, name):
    """All draws are folded into constants at compile time, and the weight into the `1 / std`."""
    (view, id, image), partner, _, _, expected = reference
    rows = np.flatnonzero(np.asarray(view[partner] == view))[:3]

    @jax.jit
    def program(images, partners):
        views_of = functools.partial(views.batch_views, RECIPE, STREAM, view[rows])
        pair = views_of(id[rows], images), views_of(id[partner[rows]], partners)
        return views.batch_mixed(MIXES[name], STREAM, view[rows], id[rows], *pair)

    assert_same(program(image[rows], image[partner[rows]]), expected[name], rows)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_same_bytes_on_eight_devices(reference, name):
    (view, id, _), partner, seen, _, expected = reference
    make = jax.pmap(functools.partial(views.batch_mixed, MIXES[name]), in_axes=(None, 0, 0, 0, 0))
    parts = (x.reshape(8, 32, *x.shape[1:]) for x in (view, id, seen, seen[partner]))
    result = make(STREAM, *parts)
    assert len(result[0].devices()) == 8
    assert_same(result, expected[name], np.arange(256))


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_same_bytes_op_by_op(reference, name):
    (view, id, _), partner, seen, _, expected = reference
    for row in range(3):
        key = jax.random.fold_in(keys.example(STREAM, view[row], id[row]), mixing.MIX)
        mixed, weight = MIXES[name](key, seen[row], seen[partner[row]])
        assert_same((mixed[None], weight[None]), expected[name], np.array([row]))


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_other_id_view_or_stream_is_another_mixture(reference, name):
    (view, id, _), partner, seen, make, expected = reference
    rows = np.arange(16)
    pair = seen[rows], seen[partner[rows]]
    for stream, view_, id_ in (
        (STREAM, view[rows], id[rows] + 1),
        (STREAM, view[rows] + 1, id[rows]),
        (keys.stream(KEY, "pretrain"), view[rows], id[rows]),
    ):
        _, weight = make[name](stream, view_, id_, *pair)
        assert (weight != expected[name][1][rows]).mean() > 0.9


def test_a_version_has_its_pixels(reference):
    """Other mixtures from the same keys need another RECIPES_VERSION, as caches rest on it."""
    *_, expected = reference
    whole = {
        name: [np.round(mixed[:8] * 4080), np.round(weight[:8] * 8192)]
        for name, (mixed, weight) in expected.items()
    }
    checksums = {
        name: [zlib.crc32(x.astype("<i4").tobytes()) for x in parts]
        for name, parts in whole.items()
    }
    assert (views.RECIPES_VERSION, checksums) == (
        1,
        {"mixup": [599407319, 3597549073], "cutmix": [2209305956, 2248470690]},
    )
