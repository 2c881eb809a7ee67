import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from kdjax import views
from kdjax.types import BadInput
from kdjax.views import color

KEY = jax.random.key(0)
LUMA = np.array([0.299, 0.587, 0.114])
# A level is 1 / 4080; luma and the result are rounded to one each, and luma has 12-bit weights.
TOLERANCE = 1e-3


def picture(*shape, low=0.0, high=1.0, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(low, high, shape), jnp.float32)


def many(view, count=200):
    """The same image under many keys; float64."""
    return np.float64(jax.jit(jax.vmap(view))(jax.random.split(KEY, count)))


def factor(result, image, other):
    """`f` of `result = f image + (1 - f) other`, by least squares."""
    direction = image - other
    return ((result - other) * direction).sum((1, 2, 3)) / (direction**2).sum()


def assert_uniform(values, low, high, slack=0.01):
    np.testing.assert_allclose(
        np.sort(values), np.linspace(low, high, len(values)), atol=0.13 * (high - low)
    )
    assert low - slack <= values.min()
    assert values.max() <= high + slack


def test_no_strength_is_no_work():
    image = picture(4, 4, 3)
    assert views.jitter(KEY, image) is image
    assert views.jitter(KEY, image, brightness=0.5, probability=0.0) is image
    assert views.grayscale(KEY, image, probability=0.0) is image
    assert views.blur(KEY, image, kernel_size=3, probability=0.0) is image
    assert views.blur(KEY, image, kernel_size=1) is image


def other_image(part, image):
    """What brightness, contrast and saturation blend the image with."""
    luma = np.broadcast_to((image @ LUMA)[..., None], image.shape)
    return {"brightness": 0 * luma, "contrast": 0 * luma + luma.mean(), "saturation": luma}[part]


@pytest.mark.parametrize("part", ["brightness", "contrast", "saturation"])
def test_blend_golden(part):
    image = picture(6, 5, 3, low=0.3, high=0.6)  # nothing is clipped
    other = other_image(part, np.float64(image))
    results = many(lambda key: views.jitter(key, image, **{part: 0.4}))
    f = factor(results, np.float64(image), other)
    expected = f[:, None, None, None] * (np.float64(image) - other) + other
    np.testing.assert_allclose(results, expected, atol=TOLERANCE)
    assert_uniform(f, 0.6, 1.4)


def test_mean_is_the_same_in_any_order_of_the_pixels():
    image = picture(300, 301, 3)
    mean = jax.jit(lambda image: color._mean(color._luma(color._planes(image))))
    means = {mean(x).tobytes() for x in (image, image[::-1], image[:, ::-1], image[50:])}
    assert len(means) == 2  # the last is another image
    np.testing.assert_allclose(mean(image) / 4080, (image @ LUMA).mean(), atol=1e-4)


def test_mean_of_a_large_image_does_not_overflow():
    image = jnp.ones((1024, 1025, 1))
    assert float(color._mean(color._planes(image)[0])) == pytest.approx(4080, rel=1e-6)


def test_strength_above_one_stops_at_zero():
    image = picture(4, 4, 1, low=0.1, high=0.3)
    results = many(lambda key: views.jitter(key, image, brightness=1.5))
    assert_uniform(factor(results, np.float64(image), 0.0), 0.0, 2.5)


def test_hue_golden():
    image = picture(4, 5, 3)
    results = many(lambda key: views.jitter(key, image, hue=0.2))
    before = np.array([colorsys.rgb_to_hsv(*x) for x in np.float64(image).reshape(-1, 3)])
    turns = []
    for result in results:
        after = np.array([colorsys.rgb_to_hsv(*x) for x in result.reshape(-1, 3)])
        turn = (after - before)[:, 0]
        turn = (turn - turn[0] + 0.5) % 1.0 - 0.5 + (turn[0] + 0.5) % 1.0 - 0.5
        turn = np.median(turn)
        expected = [colorsys.hsv_to_rgb((h + turn) % 1.0, s, v) for h, s, v in before]
        np.testing.assert_allclose(result.reshape(-1, 3), expected, atol=TOLERANCE)
        turns.append(turn)
    assert_uniform(np.array(turns), -0.2, 0.2)


def test_order_of_the_parts_is_random():
    """What a part draws does not depend on the others, so both orders can be worked out."""
    middle = picture(6, 5, 3, low=0.45, high=0.55)  # nothing is clipped
    b, c = (
        factor(
            many(lambda key, part=part: views.jitter(key, middle, **{part: 0.8})),
            np.float64(middle),
            other_image(part, np.float64(middle)),
        )[:, None, None, None]
        for part in ("brightness", "contrast")
    )
    image = picture(6, 5, 3)  # clipped: without that, the two parts commute
    x = np.float64(image)
    results = many(lambda key: views.jitter(key, image, brightness=0.8, contrast=0.8))

    def contrast(x):
        return np.clip(c * x + (1 - c) * (x @ LUMA).mean((-2, -1)).reshape(-1, 1, 1, 1), 0, 1)

    bright_first = contrast(np.clip(b * x, 0, 1))
    contrast_first = np.clip(b * contrast(x), 0, 1)
    # The factors come from fits to rounded pixels, so they are not known to the level.
    first, second = (
        np.abs(results - one).max((1, 2, 3)) < 5e-3 for one in (bright_first, contrast_first)
    )
    assert (first | second).all()
    assert (first & ~second).sum() > 40
    assert (second & ~first).sum() > 40


def test_all_orders_are_equally_likely():
    unit = jax.random.uniform(KEY, (4800,))
    orders = np.asarray(jax.vmap(lambda u: color._order(u, 4))(unit))
    assert (np.sort(orders, axis=1) == np.arange(4)).all()
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert counts.min() > 140


@pytest.mark.parametrize("grey", [0.0, 77 / 255, 1.0])
def test_saturation_and_hue_leave_grey_alone(grey):
    image = jnp.full((4, 4, 3), grey, jnp.float32)
    results = many(lambda key: views.jitter(key, image, saturation=0.8, hue=0.5), 50)
    np.testing.assert_allclose(results, grey, rtol=2e-7)


def test_one_channel_has_brightness_and_contrast_only():
    image = picture(8, 8, 1)
    assert views.jitter(KEY, image, saturation=0.8, hue=0.5) is image
    both = views.jitter(KEY, image, brightness=0.5, contrast=0.5, saturation=0.8, hue=0.5)
    alone = views.jitter(KEY, image, brightness=0.5, contrast=0.5)
    np.testing.assert_array_equal(both, alone)
    assert float(jnp.abs(both - image).max()) > 0.01


def test_jitter_probability():
    image = picture(2, 2, 3, low=0.2, high=0.4)
    results = many(lambda key: views.jitter(key, image, brightness=0.5, probability=0.8), 2000)
    same = (results == np.float64(image)).all((1, 2, 3))
    assert abs(same.mean() - 0.2) < 0.03


@jax.jit
def strong(seed, image):
    key = jax.random.key(seed)
    parts = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.5}
    return views.jitter(key, image, **parts), views.blur(key, image, kernel_size=5, probability=1.0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    image=hnp.arrays(np.float32, (3, 4, 3), elements=st.floats(0, 1, width=32)),
)
def test_colours_stay_finite_and_in_range(seed, image):
    for view in strong(seed, jnp.asarray(image)):
        assert np.isfinite(view).all()
        assert 0.0 <= view.min() <= view.max() <= 1.0


def test_grayscale_golden():
    image = picture(6, 7, 3)
    gray = views.grayscale(KEY, image, probability=1.0)
    assert gray.shape == image.shape
    np.testing.assert_array_equal(gray[..., :1] + 0 * gray, gray)
    np.testing.assert_allclose(gray[..., 0], np.float64(image) @ LUMA, atol=5e-4)
    one = picture(6, 7, 1)
    assert views.grayscale(KEY, one, probability=1.0) is one


def test_grayscale_probability():
    image = picture(1, 1, 3)
    results = many(lambda key: views.grayscale(key, image, probability=0.2), 4000)
    assert abs((results[..., 0] == results[..., 1]).mean() - 0.2) < 0.03


@pytest.mark.parametrize(
    ("shape", "kernel_size", "sigma"),
    [((20, 17, 3), 7, 0.8), ((8, 8, 1), 23, 2.0), ((9, 9, 3), 3, 0.1)],
)
def test_blur_golden(shape, kernel_size, sigma):
    image = picture(*shape)
    how = {"kernel_size": kernel_size, "sigma": (sigma, sigma), "probability": 1.0}
    blurred = jax.jit(lambda key: views.blur(key, image, **how))(KEY)
    offset = np.arange(kernel_size) - kernel_size // 2
    kernel = np.exp(-(offset**2) / (2 * sigma**2))
    expected = np.float64(image)
    for axis in (0, 1):
        expected = ndimage.correlate1d(expected, kernel / kernel.sum(), axis, mode="nearest")
    np.testing.assert_allclose(blurred, expected, atol=TOLERANCE)


def test_blur_keeps_constants():
    image = jnp.full((10, 12, 3), 77 / 255, jnp.float32)
    results = many(lambda key: views.blur(key, image, kernel_size=9, probability=1.0), 20)
    np.testing.assert_allclose(results, 77 / 255, rtol=2e-7)


def test_blur_draws_sigma_and_whether():
    spot = jnp.zeros((9, 9, 1)).at[4, 4].set(1.0)
    results = many(lambda key: views.blur(key, spot, kernel_size=9, sigma=(1.0, 2.0)), 400)
    peak = results[:, 4, 4, 0]
    assert abs((peak == 1.0).mean() - 0.5) < 0.1
    side = results[:, 4, 5, 0][peak < 1.0] / peak[peak < 1.0]
    assert_uniform(np.sqrt(-0.5 / np.log(side)), 1.0, 2.0, slack=0.03)


@pytest.mark.parametrize(
    ("view", "field"),
    [
        (lambda image: views.jitter(KEY, image, brightness=-0.1), "brightness"),
        (lambda image: views.jitter(KEY, image, hue=0.6), "hue"),
        (lambda image: views.jitter(KEY, image, hue=0.1, probability=2.0), "probability"),
        (lambda image: views.jitter(KEY, image[..., :2], contrast=0.1), "image"),
        (lambda image: views.grayscale(KEY, image, probability=-1.0), "probability"),
        (lambda image: views.grayscale(KEY, image[..., :2], probability=0.5), "image"),
        (lambda image: views.blur(KEY, image, kernel_size=4), "kernel_size"),
        (lambda image: views.blur(KEY, image, kernel_size=225), "kernel_size"),
        (lambda image: views.blur(KEY, image, kernel_size=3, sigma=(0.0, 1.0)), "sigma"),
    ],
)
def test_bad_input_names_the_field(view, field):
    with pytest.raises(BadInput, match=f"^{field}: "):
        view(jnp.zeros((8, 8, 3)))
