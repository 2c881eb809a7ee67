"""The resizing of Pillow on the device, against Pillow."""

import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import PIL
import pytest
from PIL import Image

from kdjax import views
from kdjax.types import BadInput, Interpolation
from kdjax.views import pillow

DRAW = np.random.default_rng(0)
DOWN_FIRST = pytest.mark.skipif(
    int(PIL.__version__.partition(".")[0]) < 13, reason="Pillow goes along the rows first before 13"
)
SIZES = [
    ((37, 53), (16, 24)),
    ((16, 24), (37, 53)),
    ((50, 20), (50, 33)),
    ((21, 40), (9, 40)),
    ((7, 300), (5, 11)),
    ((64, 60), (20, 38)),
    pytest.param((64, 60), (19, 38), marks=DOWN_FIRST),
    pytest.param((300, 7), (11, 5), marks=DOWN_FIRST),
    ((20, 10), (19, 10)),
    pytest.param((20, 10), (19, 30), marks=DOWN_FIRST),
]


def noise(height, width, channels=3):
    """Black, white and all between: filters with negative parts go beyond both ends."""
    values = DRAW.integers(0, 256, (height, width, channels))
    return np.where(DRAW.uniform(size=values.shape) < 0.3, values // 128 * 255, values).astype(
        np.uint8
    )


def theirs(image, size, name):
    method = Image.Resampling[name.upper()]
    given = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return np.asarray(given.resize(size[::-1], method)).reshape(*size, image.shape[-1])


@pytest.mark.parametrize("name", get_args(Interpolation))
@pytest.mark.parametrize(("own", "size"), SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_pillows_to_the_bit(own, size, channels, name):
    image = noise(*own, channels)
    resize = functools.partial(pillow.resize, size=size, interpolation=name)
    found = np.asarray(jax.jit(resize)(views.to_float(jnp.asarray(image)))) * 255
    np.testing.assert_allclose(found, np.round(found), atol=1e-4)
    np.testing.assert_array_equal(np.round(found), theirs(image, size, name))


@pytest.mark.parametrize("name", ["bilinear", "lanczos"])
def test_pictures_that_are_shrunk_far_are_exact_too(name):
    """More than 64 pixels of each row stand for one: three parts of each weight."""
    image = noise(12, 1500)
    found = pillow.resize(views.to_float(jnp.asarray(image)), size=(8, 20), interpolation=name)
    np.testing.assert_array_equal(np.round(found * 255), theirs(image, (8, 20), name))


def test_what_is_shrunk_too_far_is_refused():
    image = jnp.zeros((4, 3000, 1))
    with pytest.raises(BadInput, match="size: 3000 pixels become 4"):
        pillow.resize(image, size=(4, 4), interpolation="bicubic")
