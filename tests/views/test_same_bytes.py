"""A view is the same bytes in every program: the compiler optimizes here as it does for users."""

import functools
import zlib

import jax
import numpy as np
import pytest
from jax import lax

from kdjax import keys, views
from tests.views.recipes import CROP_FLIP, KEY, SIMCLR, STREAM, batch

pytestmark = pytest.mark.optimized


@pytest.fixture(scope="module")
def reference():
    """Batches of 256 views: what every other way of making them must repeat."""
    data = batch(256, 20, 24, 3)
    make = {
        name: jax.jit(functools.partial(views.batch_views, recipe))
        for name, recipe in (("simclr", SIMCLR), ("crop_flip", CROP_FLIP))
    }
    return data, make, {name: np.asarray(one(STREAM, *data)) for name, one in make.items()}


@pytest.mark.parametrize(
    ("size", "recipe"),
    [
        (1, "simclr"),
        (7, "simclr"),
        (1, "crop_flip"),
        (32, "crop_flip"),
        # A device of eight has as many below; and another recipe has as few.
        pytest.param(32, "simclr", marks=pytest.mark.thorough),
        pytest.param(7, "crop_flip", marks=pytest.mark.thorough),
    ],
)
def test_same_bytes_in_any_batch(reference, recipe, size):
    data, make, expected = reference
    rows = np.random.default_rng(size).permutation(256)[:size]
    result = make[recipe](STREAM, *(x[rows] for x in data))
    np.testing.assert_array_equal(result, expected[recipe][rows])


@pytest.mark.parametrize(("name", "recipe"), [("simclr", SIMCLR), ("crop_flip", CROP_FLIP)])
def test_same_bytes_on_eight_devices(reference, name, recipe):
    data, _, expected = reference
    make = jax.pmap(functools.partial(views.batch_views, recipe), in_axes=(None, 0, 0, 0))
    result = make(STREAM, *(x.reshape(8, 32, *x.shape[1:]) for x in data))
    assert len(result.devices()) == 8
    np.testing.assert_array_equal(result.reshape(expected[name].shape), expected[name])


def test_same_bytes_inside_other_programs(reference):
    """In a scan, with the view used by what follows: there the compiler fuses in other ways."""
    data, _, expected = reference

    @jax.jit
    def program(images):
        def step(total, rows):
            view = views.batch_views(SIMCLR, STREAM, *rows)
            return total * 0.9 + (view * 1.7 + 0.3).sum(), view

        return lax.scan(step, 0.0, images)[1]

    result = program(tuple(x[:64].reshape(8, 8, *x.shape[1:]) for x in data))
    np.testing.assert_array_equal(result.reshape(64, 16, 16, 3), expected["simclr"][:64])


def test_same_bytes_op_by_op(reference):
    data, _, expected = reference
    result = views.batch_views(CROP_FLIP, STREAM, *(x[:3] for x in data))
    np.testing.assert_array_equal(result, expected["crop_flip"][:3])


def test_same_bytes_of_a_warped_view(reference):
    """Alone, in a scan before other arithmetic, and op by op."""
    data, _, expected = reference
    warped = functools.partial(CROP_FLIP, turn=20.0, shear=0.2, stretch=1.2)
    many = functools.partial(views.batch_views, warped)
    of_all = np.asarray(jax.jit(many)(STREAM, *data))
    assert (of_all != expected["crop_flip"]).any((1, 2, 3)).all()

    @jax.jit
    def program(images):
        def step(total, rows):
            view = many(STREAM, *rows)
            return total * 0.9 + (view * 1.7 + 0.3).sum(), view

        return lax.scan(step, 0.0, images)[1]

    scanned = program(tuple(x[:64].reshape(8, 8, *x.shape[1:]) for x in data))
    np.testing.assert_array_equal(scanned.reshape(64, 16, 16, 3), of_all[:64])
    np.testing.assert_array_equal(many(STREAM, *(x[:3] for x in data)), of_all[:3])


def test_other_id_view_or_stream_is_another_view(reference):
    data, make, expected = reference
    view, id, image = (x[:7] for x in data)
    for other in (
        make["simclr"](STREAM, view, id + 1, image),
        make["simclr"](STREAM, view + 1, id, image),
        make["simclr"](keys.stream(KEY, "distill"), view, id, image),
    ):
        assert (other != expected["simclr"][:7]).any((1, 2, 3)).all()


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        pytest.param("simclr", SIMCLR, marks=pytest.mark.thorough),
        ("crop_flip", CROP_FLIP),
    ],
)
def test_pixels_at_the_size_itself_change_nothing(reference, name, recipe):
    data, _, expected = reference
    same = jax.jit(functools.partial(views.batch_views, functools.partial(recipe, pixels_at=16)))
    np.testing.assert_array_equal(same(STREAM, *data), expected[name])


@pytest.fixture(scope="module")
def at_another_size():
    recipe = functools.partial(SIMCLR, pixels_at=24, shift=3, cutout=7, blur_kernel=5, jitter=0.0)
    return functools.partial(views.batch_views, recipe)


def test_same_bytes_in_any_program_at_another_size(reference, at_another_size):
    data, _, _ = reference
    many = at_another_size
    expected = np.asarray(jax.jit(many)(STREAM, *data))
    rows = np.random.default_rng(0).permutation(256)[:7]
    few = tuple(x[rows] for x in data)
    np.testing.assert_array_equal(jax.jit(many)(STREAM, *few), expected[rows])

    @jax.jit
    def program(few):
        view = many(STREAM, *few)
        return (view * 1.7 + 0.3).sum(), view

    np.testing.assert_array_equal(program(few)[1], expected[rows])


@pytest.mark.thorough  # the other recipe's are above, at its own size
def test_same_bytes_op_by_op_at_another_size(reference, at_another_size):
    few = tuple(x[:3] for x in reference[0])
    expected = jax.jit(at_another_size)(STREAM, *few)
    np.testing.assert_array_equal(at_another_size(STREAM, *few), expected)


def test_a_version_has_its_pixels(reference):
    """Other pixels from the same keys need another RECIPES_VERSION, as caches rest on it."""
    _, _, expected = reference
    whole = {name: np.round(view[:8] * 4080).astype("<i4") for name, view in expected.items()}
    checksums = {name: zlib.crc32(view.tobytes()) for name, view in whole.items()}
    assert (views.RECIPES_VERSION, checksums) == (
        1,
        {"simclr": 2477391255, "crop_flip": 2679529340},
    )
