import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from kdjax import views
from kdjax.types import BadInput
from kdjax.views import geometry

KEY = jax.random.key(0)


def picture(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).random(shape), jnp.float32)


def triangle_resize(image, size):
    """Bilinear, antialiased, one axis after the other; float64."""
    image = np.float64(image)
    for axis, side in enumerate(size if isinstance(size, tuple) else (size, size)):
        n = image.shape[axis]
        stride = n / side
        centre = (np.arange(side) + 0.5) * stride - 0.5
        weights = 1 - np.abs(np.arange(n)[:, None] - centre) / max(stride, 1.0)
        weights = np.maximum(weights, 0)
        weights /= weights.sum(axis=0)
        image = np.moveaxis(np.tensordot(weights, image, (0, axis)), 0, axis)
    return image


def boxes(count, **kwargs):
    draw = jax.jit(jax.vmap(lambda key: jnp.stack(geometry.crop_box(key, **kwargs))))
    return np.asarray(draw(jax.random.split(KEY, count))).T


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (12, 20, 2)])
def test_crop_of_everything_is_identity(shape):
    image = jnp.round(picture(*shape) * 255) / 255
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    view = jax.jit(lambda key: views.crop_resize(key, image, size=shape[:2], **whole))(KEY)
    np.testing.assert_allclose(view, image, rtol=2e-7)


@pytest.mark.parametrize(("shape", "size"), [((8, 8, 1), 8), ((40, 33, 3), 16), ((9, 14, 3), 24)])
def test_crop_resize_golden(shape, size):
    image, ranges = picture(*shape), {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)}
    drawn = jax.random.split(KEY, 9)
    crop = jax.jit(jax.vmap(lambda key: views.crop_resize(key, image, size=size, **ranges)))
    where = boxes(9, height=shape[0], width=shape[1], **ranges).T
    for view, (top, left, height, width) in zip(crop(drawn), where, strict=True):
        box = np.asarray(image)[top : top + height, left : left + width]
        np.testing.assert_allclose(view, triangle_resize(box, size), atol=1e-3)


def test_crop_boxes_lie_inside():
    top, left, height, width = boxes(
        2000, height=11, width=48, scale=(0.01, 1.0), ratio=(0.25, 4.0)
    )
    assert (np.minimum(top, left) >= 0).all()
    assert (np.minimum(height, width) >= 1).all()
    assert (top + height).max() == 11
    assert (left + width).max() == 48


def test_crop_box_area_is_uniform():
    _, _, height, width = boxes(4000, height=200, width=200, scale=(0.2, 1.0), ratio=(1.0, 1.0))
    area = np.sort(height * width / 200**2)
    np.testing.assert_allclose(area, np.linspace(0.2, 1.0, 4000), atol=0.03)
    assert (height == width).all()


def test_crop_box_ratio_is_log_uniform_and_place_uniform():
    top, left, height, width = boxes(
        4000, height=300, width=300, scale=(0.2, 0.4), ratio=(0.5, 2.0)
    )
    ratio = np.sort(np.log2(width / height))
    np.testing.assert_allclose(ratio, np.linspace(-1.0, 1.0, 4000), atol=0.08)
    places = np.array([top / (300 - height), left / (300 - width)])
    for place in places:
        np.testing.assert_allclose(np.sort(place), np.linspace(0.0, 1.0, 4000), atol=0.04)
    assert abs(np.corrcoef(places)[0, 1]) < 0.05


def test_the_ratio_of_a_crop_is_how_far_it_is_stretched():
    """A box has the shape of the view that the ratio is meant for, whatever the view's own shape is."""
    image = picture(24, 80, 1)
    ranges = {"scale": (0.2, 0.5), "ratio": (3 / 4, 4 / 3)}
    # 4/3 of it and 3/4: the shape of a view of 12 x 40 is 40/12.
    where = boxes(9, height=24, width=80, scale=(0.2, 0.5), ratio=(2.5, 40 / 9)).T
    for size, pixels_at in (((12, 40), None), ((6, 6), (12, 40))):
        crop = functools.partial(views.crop_resize, size=size, pixels_at=pixels_at, **ranges)
        crops = jax.jit(jax.vmap(lambda key, crop=crop: crop(key, image)))(jax.random.split(KEY, 9))
        for view, (top, left, height, width) in zip(crops, where, strict=True):
            assert 0.7 < (width / height) / (40 / 12) < 1.45
            box = np.asarray(image)[top : top + height, left : left + width]
            np.testing.assert_allclose(view, triangle_resize(box, size), atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((28, 28, 1), 8),
        ((8, 8, 1), 28),
        ((30, 50, 3), 20),
        ((30, 50, 3), (9, 64)),
        ((28, 28, 4), (28, 8)),
        ((8, 20, 7), (20, 8)),
    ],
)
def test_resize_golden(shape, size):
    image = picture(*shape)
    result = jax.jit(functools.partial(views.resize, size=size))(image)
    np.testing.assert_allclose(result, triangle_resize(image, size), atol=1e-3)
    theirs = jax.image.resize(image, (*views.sides(size), shape[2]), "linear", antialias=True)
    np.testing.assert_allclose(result, theirs, atol=1e-3)


def test_a_transposed_image_gives_the_transposed_view():
    image = picture(12, 20, 2)
    turned = image.swapaxes(0, 1)
    small = views.resize(image, size=(5, 26))
    np.testing.assert_allclose(
        views.resize(turned, size=(26, 5)).swapaxes(0, 1), small, atol=2.1 / 4080
    )
    # 12 x 20 at 6 x 40: taps of 17 pixels are 33 down the rows and 9 along the columns.
    how = {"kernel_size": 17, "probability": 1.0}
    blur = jax.jit(functools.partial(views.blur, KEY, **how), static_argnames="pixels_at")
    there = blur(turned, pixels_at=(40, 6)).swapaxes(0, 1)
    np.testing.assert_allclose(there, blur(image, pixels_at=(6, 40)), atol=2.1 / 4080)


def test_resize_keeps_size_and_constants():
    image = picture(8, 8, 3)
    assert views.resize(image, size=8) is image
    grey = jnp.full((30, 21, 3), 77 / 255, jnp.float32)
    result = jax.jit(functools.partial(views.resize, size=13))(grey)
    np.testing.assert_allclose(result, 77 / 255, rtol=2e-7)


def test_flip():
    image = picture(6, 5, 3)
    once = views.flip(KEY, image, probability=1.0)
    np.testing.assert_array_equal(once, image[:, ::-1])
    np.testing.assert_array_equal(views.flip(KEY, once, probability=1.0), image)
    assert views.flip(KEY, image, probability=0.0) is image


def test_flip_frequency():
    keys = jax.random.split(KEY, 4000)
    ramp = jnp.arange(2.0).reshape(1, 2, 1)
    flipped = jax.vmap(lambda key: views.flip(key, ramp, probability=0.3)[0, 0, 0])(keys)
    assert abs(float(flipped.mean()) - 0.3) < 0.03


def test_warp_is_an_affine_map_about_the_centre():
    """Against scipy, in float64, with the matrix written out from the three parts."""
    image = np.asarray(views.resize(picture(5, 5, 2), size=24))[:20]
    drawn = {"turn": 35.0, "shear": 0.3, "stretch": 1.4}
    for seed in range(5):
        key = jax.random.key(seed)
        a, b, c, d = np.asarray(jax.random.uniform(key, (4,)), np.float64)
        angle, slant = np.deg2rad(35) * (2 * a - 1), 0.3 * (2 * b - 1)
        tall, wide = 1.4 ** (2 * c - 1), 1.4 ** (2 * d - 1)
        turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = np.diag([1 / tall, 1 / wide]) @ turned @ np.array([[1, 0], [slant, 1]])
        centre = (np.array(image.shape[:2]) - 1) / 2
        offset = centre - matrix @ centre
        expected = [
            ndimage.affine_transform(x, matrix, offset, order=1, mode="nearest")
            for x in np.moveaxis(np.float64(image), -1, 0)
        ]
        view = views.warp(key, jnp.asarray(image), **drawn)
        # A 1/32 of a pixel, of slopes up to 0.3 a pixel.
        np.testing.assert_allclose(view, np.moveaxis(expected, 0, -1), atol=0.012)


def test_warp_by_nothing_and_the_middle():
    image = jnp.round(picture(7, 7, 1) * 255) / 255
    assert views.warp(KEY, image) is image
    turns = jax.vmap(lambda key: views.warp(key, image, turn=180.0))(jax.random.split(KEY, 200))
    assert (turns[0] != turns[1]).any()
    # All keep the pixel in the middle, which no turn moves.
    np.testing.assert_allclose(turns[:, 3, 3], jnp.broadcast_to(image[3, 3], (200, 1)), atol=1e-6)


def test_quarter_turns_are_those_of_numpy():
    image = picture(5, 5, 3)
    turn = jax.jit(jax.vmap(views.quarter_turns, in_axes=(None, 0)))
    turns = np.arange(-1, 6)
    for turned, count in zip(turn(image, jnp.asarray(turns)), turns, strict=True):
        np.testing.assert_array_equal(turned, np.rot90(image, count))
    np.testing.assert_array_equal(views.quarter_turns(image, 3), np.rot90(image, 3))
    # Four different labels of four different views.
    assert len({np.asarray(turned).tobytes() for turned in turn(image, jnp.arange(4))}) == 4


def test_shift_golden():
    """Each result is one of the nine slices of the padded image, and they are equally likely."""
    image = np.asarray(picture(5, 6, 2))
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    slices = [padded[y : y + 5, x : x + 6] for y, x in itertools.product(range(3), range(3))]
    keys = jax.random.split(KEY, 900)
    results = np.asarray(jax.vmap(lambda key: views.shift(key, jnp.asarray(image), pixels=1))(keys))
    hits = np.array([[(result == one).all() for one in slices] for result in results])
    assert (hits.sum(axis=1) == 1).all()
    assert hits.sum(axis=0).min() > 60
    plain = jnp.asarray(image)
    assert views.shift(KEY, plain, pixels=0) is plain


@pytest.mark.parametrize("length", [1, 3, 4, 20])
def test_cutout_golden(length):
    """The zeroed rectangles are those of all centres, clipped, and no others."""
    height, width = 7, 6
    expected = set()
    for y, x in itertools.product(range(height), range(width)):
        kept = np.ones((height, width), np.float32)
        y, x = y - length // 2, x - length // 2
        kept[max(y, 0) : max(y + length, 0), max(x, 0) : max(x + length, 0)] = 0
        expected.add(kept.tobytes())
    keys = jax.random.split(KEY, 600)
    cut = jax.vmap(lambda key: views.cutout(key, jnp.ones((height, width, 2)), length=length))(keys)
    cut = np.asarray(cut)
    assert {one[..., 0].tobytes() for one in cut} == expected
    np.testing.assert_array_equal(cut[..., 0], cut[..., 1])


def test_cutout_keeps_the_rest():
    image = picture(8, 8, 3) + 0.1
    cut = views.cutout(KEY, image, length=4)
    assert 4 <= int((cut == 0).all(axis=-1).sum()) <= 16
    np.testing.assert_array_equal(cut, jnp.where(cut == 0, 0, image))


def test_cutout_probability():
    keys = jax.random.split(KEY, 2000)
    cut = jax.vmap(lambda key: views.cutout(key, jnp.ones((1, 1, 1)), length=3, probability=0.2))
    assert abs(float((cut(keys) == 0).mean()) - 0.2) < 0.03
    image = jnp.ones((4, 4, 1))
    assert views.cutout(KEY, image, length=0) is image
    assert views.cutout(KEY, image, length=2, probability=0.0) is image


@pytest.mark.parametrize(
    ("view", "field"),
    [
        (lambda image: views.crop_resize(KEY, image, size=0), "size"),
        (lambda image: views.crop_resize(KEY, image, size=4, scale=(0.0, 1.0)), "scale"),
        (lambda image: views.crop_resize(KEY, image, size=4, scale=(0.5, 1.5)), "scale"),
        (lambda image: views.crop_resize(KEY, image, size=4, ratio=(2.0, 1.0)), "ratio"),
        (lambda image: views.resize(image, size=-1), "size"),
        (lambda image: views.resize(image, size=(4, 0)), "size"),
        (lambda image: views.shift(KEY, image, pixels=1, pixels_at=(0, 4)), "pixels_at"),
        (lambda image: views.flip(KEY, image, probability=1.5), "probability"),
        (lambda image: views.quarter_turns(image[:4], 1), "image"),
        (lambda image: views.warp(KEY, image, turn=181.0), "turn"),
        (lambda image: views.warp(KEY, image, shear=-0.1), "shear"),
        (lambda image: views.warp(KEY, image, stretch=0.9), "stretch"),
        (lambda image: views.shift(KEY, image, pixels=-1), "pixels"),
        (lambda image: views.cutout(KEY, image, length=-2), "length"),
    ],
)
def test_bad_input_names_the_field(view, field):
    with pytest.raises(BadInput, match=f"^{field}: "):
        view(jnp.zeros((8, 8, 3)))


def test_second_call_does_not_retrace():
    traces = []

    @jax.jit
    @jax.vmap
    def view(key, image):
        traces.append(key)
        image = views.crop_resize(key, image, size=6)
        return views.cutout(key, views.shift(key, views.flip(key, image), pixels=1), length=2)

    first = view(jax.random.split(KEY, 3), picture(3, 8, 8, 1))
    second = view(jax.random.split(jax.random.key(1), 3), picture(3, 8, 8, 1))
    assert len(traces) == 1
    assert (first != second).any()
