"""Recipes with a bit of everything, and images to see with them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import keys, views

KEY = jax.random.key(0)
STREAM = keys.stream(KEY, "pretrain")
SIMCLR = functools.partial(
    views.simclr, size=16, shift=2, blur_kernel=3, cutout=4, mean=(0.5,), std=(0.25,)
)
CROP_FLIP = functools.partial(
    views.crop_flip, size=16, shift=2, cutout=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)
)


def raw(*shape, seed=0):
    """Smooth pictures, as uint8."""
    noise = np.random.default_rng(seed).random((*shape[:-3], 4, 4, shape[-1]))
    smooth = jax.image.resize(jnp.asarray(noise, jnp.float32), shape, "linear")
    return jnp.round(255 * smooth).astype(jnp.uint8)


def batch(count, *shape):
    id = jnp.arange(count, dtype=jnp.uint32) * 7919 + 3
    return id % 3, id, raw(count, *shape)
