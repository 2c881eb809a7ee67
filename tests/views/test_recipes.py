import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import views
from kdjax.types import BadInput
from tests.views.recipes import CROP_FLIP, KEY, SIMCLR, STREAM, batch, raw

OFF = {
    "crop_scale": (1.0, 1.0),
    "crop_ratio": (1.0, 1.0),
    "flip": 0.0,
    "jitter": 0.0,
    "grayscale": 0.0,
    "blur": 0.0,
}


@pytest.mark.parametrize("shape", [(8, 8, 1), (20, 28, 3)])
def test_views_are_finite_and_in_range(shape):
    size = shape[0]
    for recipe in (
        functools.partial(views.simclr, size=size, blur_kernel=3),
        functools.partial(views.crop_flip, size=size),
    ):
        result = jax.jit(functools.partial(views.batch_views, recipe))(STREAM, *batch(32, *shape))
        assert result.shape == (32, size, size, shape[2])
        assert result.dtype == jnp.float32
        assert np.isfinite(result).all()
        assert 0.0 <= result.min() < 0.5 < result.max() <= 1.0


def test_second_call_does_not_retrace():
    traces = []

    def recipe(key, image):
        traces.append(key)
        return views.crop_flip(key, image, size=8, shift=1)

    make = jax.jit(functools.partial(views.batch_views, recipe))
    view, id, image = batch(4, 8, 8, 1)
    make(STREAM, view, id, image)
    make(STREAM, view + 1, id + 5, image)
    assert len(traces) == 1


@pytest.mark.parametrize("recipe", [SIMCLR, CROP_FLIP])
def test_float_image_gives_the_same_view(recipe):
    image = raw(20, 24, 3)
    as_float = image.astype(jnp.float32) / 255
    np.testing.assert_allclose(recipe(KEY, image), recipe(KEY, as_float), atol=2e-6)


def test_parts_that_are_off_leave_the_image():
    image = raw(16, 16, 3)
    expected = np.float64(image) / 255
    simclr = views.simclr(KEY, image, size=16, **OFF)
    crop_flip = views.crop_flip(KEY, image, size=16, shift=0, flip=0.0)
    np.testing.assert_allclose(simclr, expected, atol=1e-6)
    np.testing.assert_allclose(crop_flip, expected, atol=1e-6)


@pytest.mark.parametrize(
    "part",
    [
        {"flip": 1.0},
        {"shift": 3},
        {"cutout": 5},
        {"grayscale": 1.0},
        {"blur": 1.0, "blur_kernel": 5},
        {"jitter": 1.0},
        {"crop_scale": (0.1, 0.2)},
    ],
)
def test_every_part_of_simclr_reaches_the_view(part):
    image = raw(16, 16, 3)
    plain = views.simclr(KEY, image, size=16, **OFF)
    changed = views.simclr(KEY, image, size=16, **{**OFF, **part})
    assert float(jnp.abs(changed - plain).max()) > 0.01


def test_turning_a_part_off_leaves_the_draws_of_the_others():
    image = raw(20, 24, 3)
    cropped = {**OFF, "crop_scale": (0.2, 0.8)}
    plain = views.simclr(KEY, image, size=16, **cropped)
    flipped = views.simclr(KEY, image, size=16, **{**cropped, "flip": 1.0})
    np.testing.assert_array_equal(flipped, plain[:, ::-1])


def test_crop_stands_in_for_the_shift():
    image = raw(20, 24, 3)
    cropped = views.crop_flip(KEY, image, size=16, crop_scale=(0.3, 0.6))
    plain = views.simclr(KEY, image, size=16, **{**OFF, "crop_scale": (0.3, 0.6)})
    assert cropped.shape == plain.shape
    with pytest.raises(BadInput, match=r"shift: 2, and crop_scale stands in for it"):
        views.crop_flip(KEY, image, size=16, crop_scale=(0.3, 0.6), shift=2)
    shifted = views.crop_flip(KEY, image, size=16)
    np.testing.assert_array_equal(shifted, views.crop_flip(KEY, image, size=16, shift=4))


def test_normalization_golden():
    image = raw(12, 12, 3)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (np.float64(image) / 255 - mean) / std
    np.testing.assert_allclose(
        views.eval_view(image, size=12, mean=mean, std=std), expected, atol=2e-6
    )
    expected = (np.float64(image) / 255 - 0.1) / 0.3
    np.testing.assert_allclose(
        views.eval_view(image, size=12, mean=(0.1,), std=(0.3,)), expected, atol=2e-6
    )


def test_an_evaluation_that_crops_sees_the_centre_in_its_own_shape():
    """Of 30 x 20 pixels: 20 of 25 is 37 x 25, of which 9 and 8, and 2 and 3, are left at the sides."""
    image = raw(30, 20, 3)
    whole = views.eval_view(image, size=(37, 25))
    found = views.eval_view(image, size=20, crop=0.8)
    np.testing.assert_array_equal(found, whole[8:28, 2:22])
    np.testing.assert_array_equal(
        views.eval_view(image, size=20, crop=1.0), views.eval_view(image, size=(30, 20))[5:25]
    )
    filled = views.eval_view(image, size=(48, 32))
    np.testing.assert_array_equal(views.eval_view(image, size=(16, 32), crop=1.0), filled[16:32])


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"crop": 0.0}, "crop"),
        ({"crop": 1.5}, "crop"),
        ({"mean": (0.1, 0.2)}, "mean"),
        ({"std": (0.1, 0.2)}, "std"),
        ({"std": (0.0,)}, "std"),
        ({"size": 0}, "size"),
    ],
)
def test_bad_input_names_the_field(values, field):
    with pytest.raises(BadInput, match=f"^{field}: "):
        views.eval_view(raw(8, 8, 3), **{"size": 8, **values})


def halved(view):
    """The 2 x 2 means of a batch of views."""
    count, height, width, channels = view.shape
    return view.reshape(count, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def seen(recipe, image, count=200):
    """One image under many keys."""
    return np.asarray(
        jax.jit(jax.vmap(lambda key: recipe(key, image)))(jax.random.split(KEY, count))
    )


@pytest.mark.parametrize("recipe", [views.simclr, views.crop_flip])
@pytest.mark.parametrize(
    "part", [{"crop_scale": (0.1, 0.5)}, {"flip": 0.5}, {"shift": 9}, {"cutout": 11}]
)
def test_another_size_shows_the_same_part_of_the_image(recipe, part):
    off = OFF if recipe is views.simclr else {"shift": 0, "flip": 0.0}
    recipe = functools.partial(recipe, pixels_at=32, **{**off, **part})
    image = raw(64, 64, 3)
    small, large = (seen(functools.partial(recipe, size=size), image) for size in (16, 32))
    same = np.abs(small - halved(large)).mean((1, 2, 3))
    other = np.abs(small - np.roll(halved(large), 1, axis=0)).mean((1, 2, 3))
    # A border is off by half a pixel of 16 at most, that is by a 32nd of the view for each axis.
    assert same.max() < 0.08
    assert same.mean() < other.mean() / 5


def test_another_size_of_a_rectangle_shows_the_same_part_of_the_image():
    """A view of 16 x 48 in half that size, and squeezed into a square."""
    recipe = functools.partial(
        views.crop_flip, pixels_at=(16, 48), crop_scale=(0.1, 0.5), cutout=6, flip=0.0
    )
    image = raw(32, 96, 3)
    large = seen(functools.partial(recipe, size=(16, 48)), image)
    half = halved(large)
    for size, means in (((8, 24), half), (8, half.reshape(-1, 8, 8, 3, 3).mean(3))):
        small = seen(functools.partial(recipe, size=size), image)
        same = np.abs(small - means).mean((1, 2, 3))
        other = np.abs(small - np.roll(means, 1, axis=0)).mean((1, 2, 3))
        assert same.max() < 0.08
        assert same.mean() < other.mean() / 5


@pytest.mark.parametrize("size", [8, 16, 20, 64])
def test_shift_is_scaled_to_the_nearest_pixel(size):
    """The offsets of a view of 32, scaled: halves away from zero, so that no direction is favoured."""
    ramp = jnp.broadcast_to(jnp.arange(1.0, size + 1)[:, None, None], (size, size, 1))
    ramp = jnp.concatenate([ramp, ramp.swapaxes(0, 1)], axis=-1)
    shift = functools.partial(views.shift, pixels=5, pixels_at=32)
    middle = seen(shift, ramp, 600)[:, size // 2, size // 2]
    draw = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(jax.random.split(KEY, 600))
    offset = np.floor(np.float64(draw) * 11) - 5
    expected = np.sign(offset) * np.floor(np.abs(offset) * size / 32 + 0.5)
    np.testing.assert_array_equal(middle - (size // 2 + 1), expected)


@pytest.mark.parametrize("size", [8, 16, 20, 64])
def test_cutout_is_scaled_to_the_nearest_pixel(size):
    """The edges of the square in a view of 32, clipped, scaled and rounded."""
    cut = functools.partial(views.cutout, length=7, pixels_at=32)
    at_32 = seen(functools.partial(views.cutout, length=7), jnp.ones((32, 32, 1)))[..., 0] == 0
    found = seen(cut, jnp.ones((size, size, 1)))[..., 0] == 0
    for axis in (1, 2):
        inside, scaled = at_32.any(axis), found.any(axis)
        low, high = inside.argmax(-1), 32 - inside[:, ::-1].argmax(-1)
        low, high = (np.floor(edge * size / 32 + 0.5)[:, None] for edge in (low, high))
        np.testing.assert_array_equal(scaled, (np.arange(size) >= low) & (np.arange(size) < high))


def test_pixels_are_scaled_by_axis():
    """A view of 16 x 64 of pixels meant for 32 x 32: half as far down, and twice as far along."""
    ramp = jnp.stack(jnp.meshgrid(jnp.arange(1.0, 17), jnp.arange(1.0, 65), indexing="ij"), -1)
    pixels_at = {"pixels_at": (32, 32)}
    found = seen(functools.partial(views.shift, pixels=5, **pixels_at), ramp, 300)[:, 8, 32]
    draw = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(jax.random.split(KEY, 300))
    offset = np.floor(np.float64(draw) * 11) - 5
    down = np.sign(offset[:, 0]) * np.floor(np.abs(offset[:, 0]) / 2 + 0.5)
    np.testing.assert_array_equal(found - [9, 33], np.stack([down, 2 * offset[:, 1]], -1))

    cut = seen(functools.partial(views.cutout, length=8, **pixels_at), jnp.ones((16, 64, 1)))
    at_32 = seen(functools.partial(views.cutout, length=8), jnp.ones((32, 32, 1)))
    rows, columns = ((cut[..., 0] == 0).any(axis).sum(-1) for axis in (2, 1))
    at_rows, at_columns = ((at_32[..., 0] == 0).any(axis).sum(-1) for axis in (2, 1))
    assert np.abs(rows - at_rows / 2).max() <= 0.5
    np.testing.assert_array_equal(columns, 2 * at_columns)


@pytest.mark.parametrize("recipe", [views.simclr, views.crop_flip])
def test_a_square_is_an_integer_or_a_pair(recipe):
    how = {"cutout": 5, "shift": 2, "turn": 10.0}
    image = raw(20, 20, 3)
    ways = [
        functools.partial(recipe, size=size, pixels_at=at, **how)
        for size, at in ((12, 24), ((12, 12), (24, 24)))
    ]
    integers, pairs = (seen(way, image, 5) for way in ways)
    np.testing.assert_array_equal(integers, pairs)
    np.testing.assert_array_equal(
        views.eval_view(image, size=12), views.eval_view(image, size=(12, 12))
    )


@pytest.mark.parametrize("channels", [2, 7])
def test_recipes_of_any_number_of_channels(channels):
    """Every channel is treated as an image of its own would be."""
    image = raw(12, 20, channels)
    plain = {"size": (9, 24), "cutout": 4, "shift": 2, "turn": 20.0, "mean": (0.2,), "std": (0.5,)}
    for recipe in (
        functools.partial(views.simclr, jitter=0.0, grayscale=0.0, blur_kernel=5, **plain),
        functools.partial(views.crop_flip, **plain),
    ):
        found = seen(recipe, image, 6)
        assert found.shape == (6, 9, 24, channels)
        assert np.ptp(found) > 0.5
        alone = seen(
            lambda key, planes, recipe=recipe: jax.vmap(lambda one: recipe(key, one))(planes),
            jnp.moveaxis(image, -1, 0)[..., None],
            6,
        )
        np.testing.assert_array_equal(found, np.moveaxis(alone[..., 0], 1, -1))


@pytest.mark.parametrize("part", [{"grayscale": 0.0}, {"jitter": 0.0}, {"brightness": 0.0}])
def test_colours_of_channels_that_have_none_are_refused(part):
    with pytest.raises(BadInput, match=r"^image: 2 channels have no colours to change"):
        views.simclr(KEY, raw(8, 8, 2), size=8, **part)


def test_blur_is_scaled():
    image = raw(64, 64, 3)
    scaled = functools.partial(views.blur, kernel_size=9, sigma=(1.0, 2.0), pixels_at=32)
    direct = functools.partial(views.blur, kernel_size=17, sigma=(2.0, 4.0))
    as_float = image.astype(jnp.float32) / 255
    np.testing.assert_array_equal(seen(scaled, as_float, 20), seen(direct, as_float, 20))
    # A kernel below a tap is none; the default one is a tenth of the size it is given for.
    small = as_float[:8, :8]
    assert views.blur(KEY, small, kernel_size=3, pixels_at=32) is small
    plain = views.simclr(KEY, image, size=16, **OFF)
    for pixels_at, is_blurred in ((None, False), (16, False), (40, True)):
        blurred = views.simclr(KEY, image, size=16, pixels_at=pixels_at, **{**OFF, "blur": 1.0})
        assert bool((blurred != plain).any()) == is_blurred


@pytest.mark.parametrize(
    ("recipe", "values", "field"),
    [
        (views.simclr, {"pixels_at": 0}, "pixels_at"),
        (views.crop_flip, {"pixels_at": -32}, "pixels_at"),
        (views.crop_flip, {"pixels_at": 0, "crop_scale": (0.5, 1.0)}, "pixels_at"),
        (views.simclr, {"pixels_at": 32, "blur_kernel": 4}, "kernel_size"),
        (views.simclr, {"pixels_at": 1, "blur_kernel": 223}, "kernel_size"),
    ],
)
def test_bad_pixels_at_names_the_field(recipe, values, field):
    with pytest.raises(BadInput, match=f"^{field}: "):
        recipe(KEY, raw(8, 8, 3), size=8, **values)
