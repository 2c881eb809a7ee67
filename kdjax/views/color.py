"""Views that change colours: jitter, grayscale, blur.

Each is `f(key, image, *, hyper-parameters)` on one float32 image in [0, 1]; `jax.vmap` it over a
batch. Jitter and grayscale take 1 or 3 (RGB) channels, and blur any number. Hyper-parameters are
static; one of zero costs nothing.
Pixels come out on the levels of `kdjax.views.fixed`, within 1e-3 of the formula.
"""

import itertools
import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from kdjax.types import BadInput
from kdjax.views import fixed
from kdjax.views.geometry import Image, Size, check_probability, scaled, sides_at

# ITU-R BT.601 (0.299, 0.587, 0.114) in 12 bits: whole numbers, so that the sum is exact.
_LUMA = (1225.0, 2404.0, 467.0)

Plane: TypeAlias = Float[Array, "height width"]
# The channels of an image as arrays of their own, in levels. Work that mixes channels runs along
# whole rows this way; on the interleaved image it is several times slower.
Planes: TypeAlias = tuple[Plane, ...]


def _check_channels(image: Image):
    if image.shape[-1] not in (1, 3):
        raise BadInput(
            "image",
            f"{image.shape[-1]} channels have no colours to change, only 1 (grey) or 3 (RGB)",
        )


def _planes(image: Image) -> Planes:
    level = fixed.levels(image)
    return tuple(level[..., channel] for channel in range(image.shape[-1]))


def _luma(planes: Planes) -> Plane:
    if len(planes) == 1:
        return planes[0]
    red, green, blue = (weight * plane for weight, plane in zip(_LUMA, planes, strict=True))
    return jnp.round((red + green + blue) / sum(_LUMA))


def _mean(luma: Plane) -> Float[Array, ""]:
    """Mean level, summed in int32: whole numbers add up alike in every order."""
    # From 2**19 pixels on the sum would overflow: the last bits go, which is far below a level.
    drop = 2.0 ** max(0, luma.size.bit_length() - 19)
    total = jnp.round(luma / drop).astype(jnp.int32).sum()
    return total.astype(jnp.float32) * (drop / luma.size)


def _blended(planes: Planes, blend: Float[Array, "3"]) -> Planes:
    """`gain x + tint luma(x) + pull mean(luma(x))`, clipped."""
    gain, tint, pull = blend
    luma = _luma(planes)
    lift = fixed.product(tint, luma) + fixed.product(pull, _mean(luma))
    levels = (fixed.product(gain, plane) + lift for plane in planes)
    return tuple(jnp.clip(jnp.round(level), 0.0, fixed.LEVELS) for level in levels)


def _turned(planes: Planes, turn: Float[Array, ""]) -> Planes:
    """The hue turned by `turn` sixths of the circle, HSV's saturation and value kept."""
    red, green, blue = planes
    top = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = top - jnp.minimum(jnp.minimum(red, green), blue)
    safe = jnp.where(chroma > 0, chroma, 1.0)
    hue = jnp.where(top == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0)
    hue = jnp.where(top == red, (green - blue) / safe, hue) + turn

    def channel(offset):
        sixth = hue + offset
        sixth = sixth - 6.0 * jnp.floor(sixth / 6.0)
        far = jnp.clip(jnp.minimum(sixth, 4.0 - sixth), 0.0, 1.0)
        return jnp.round(top - fixed.product(chroma, far))

    return channel(5.0), channel(3.0), channel(1.0)


def _order(unit: Float[Array, ""], count: int) -> Int[Array, "{count}"]:
    """A uniform order of `0 .. count - 1`."""
    orders = np.array(list(itertools.permutations(range(count))), np.int32)
    return jnp.asarray(orders)[fixed.below(unit, math.factorial(count))]


def jitter(
    key: Key[Array, ""],
    image: Image,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    probability: float = 1.0,
) -> Image:
    """Random brightness, contrast, saturation and hue, in a random order.

    With a factor `f` uniform in `[max(0, 1 - strength), 1 + strength]` for each: brightness is
    `f x`, contrast `f x + (1 - f) mean(luma(x))`, saturation `f x + (1 - f) luma(x)`; hue turns
    by a uniform part of the circle in `[-hue, hue]`. All orders of the parts in use are equally
    likely.

    The parts run one after another and clip to [0, 1] each, as torchvision's do. Brightness,
    contrast and saturation are one blend `gain x + tint luma(x) + pull mean(luma(x))` with three
    numbers an example, so each place in the order costs that blend, the hue and a choice between
    the two. A `lax.switch` would, under `vmap`, run all four parts in every place. SimCLR's own
    code has other formulas for contrast (the mean of each channel) and saturation (HSV's).

    Args:
      key: key of this view.
      image: float32 in [0, 1]. With one channel there is no saturation and no hue: they are
        skipped.
      brightness: strength >= 0.
      contrast: strength >= 0.
      saturation: strength >= 0.
      hue: strength in [0, 0.5], in turns.
      probability: of changing the image at all.

    Raises:
      BadInput: a strength or the probability is out of range, or the channels are not 1 or 3 and
        something is to change.

    Reference: Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix A.
    """
    check_probability(probability)
    for name, value in (
        ("brightness", brightness),
        ("contrast", contrast),
        ("saturation", saturation),
        ("hue", hue),
    ):
        if value < 0.0:
            raise BadInput(name, f"strength {value} is negative")
    if hue > 0.5:
        raise BadInput("hue", f"{hue} is more than half a turn (0.5)")
    if image.shape[-1] == 1:
        saturation = hue = 0.0

    unit = jax.random.uniform(key, (6,))
    bright, strong, vivid = (
        fixed.between(u, max(0.0, 1.0 - strength), 1.0 + strength)
        for u, strength in zip(unit[:3], (brightness, contrast, saturation), strict=True)
    )
    turn = fixed.between(unit[3], -6.0 * hue, 6.0 * hue)
    # Rows are gain, tint and pull, that is x -> gain x + tint luma(x) + pull mean(luma(x)).
    parts = [
        (brightness, (bright, 0.0, 0.0)),
        (contrast, (strong, 0.0, 1.0 - strong)),
        (saturation, (vivid, 1.0 - vivid, 0.0)),
        (hue, (1.0, 0.0, 0.0)),  # only holds its place
    ]
    blends = jnp.array([blend for strength, blend in parts if strength > 0.0], jnp.float32)
    if blends.size == 0 or probability == 0.0:
        return image
    _check_channels(image)
    order = _order(unit[4], len(blends))

    def step(planes, part):
        blend, is_hue = part
        blended = _blended(planes, blend)
        if hue == 0.0:
            return blended, None
        both = zip(_turned(planes, turn), blended, strict=True)
        return tuple(jnp.where(is_hue, turned, other) for turned, other in both), None

    parts = (blends[order], order == len(blends) - 1)
    planes, _ = lax.scan(step, _planes(image), parts)
    changed = fixed.pixels(jnp.stack(planes, axis=-1))
    return jnp.where(unit[5] < probability, changed, image)


def grayscale(key: Key[Array, ""], image: Image, *, probability: float) -> Image:
    """All channels become the luma (BT.601) with this probability; the channels are kept.

    An image of one channel stays as it is.

    Raises:
      BadInput: `probability` is outside [0, 1], or above 0 and the channels are not 1 or 3.
    """
    check_probability(probability)
    if image.shape[-1] == 1 or probability == 0.0:
        return image
    _check_channels(image)
    gray = fixed.pixels(_luma(_planes(image)))[..., None]
    return jnp.where(jax.random.uniform(key) < probability, gray, image)


def _gaussian(sigma: Float[Array, ""], *, radius: int, size: int) -> Float[Array, "taps {size}"]:
    """Weights that take an axis padded by `radius` at both ends to `size` blurred pixels."""
    distance = jnp.arange(size + 2 * radius)[:, None] - radius - jnp.arange(size)[None, :]
    square = (distance * distance).astype(jnp.float32)
    raw = jnp.exp(fixed.product(square, -0.5 / (sigma * sigma)))
    raw = jnp.where(jnp.abs(distance) <= radius, raw, 0.0)
    return fixed.weights(jnp.round(raw * 2**16).astype(jnp.int32))


def blur(
    key: Key[Array, ""],
    image: Image,
    *,
    kernel_size: int,
    sigma: tuple[float, float] = (0.1, 2.0),
    probability: float = 0.5,
    pixels_at: Size | None = None,
) -> Image:
    """Gaussian blur with this probability, each channel by itself, the border pixels repeated.

    Rows and columns are matrix products: a convolution with one kernel an example becomes, under
    `vmap`, one with a group an example, which no backend runs well.

    Args:
      key: key of this view.
      image: float32 in [0, 1].
      kernel_size: odd number of taps, in pixels.
      sigma: range of the uniform standard deviation, in pixels.
      probability: of blurring at all.
      pixels_at: size of the image that `kernel_size` and `sigma` are given for, `None` for this one.
        Both are scaled by axis, the kernel to an odd number of taps again.

    Raises:
      BadInput: `kernel_size` is not odd or, once scaled, above 223, `sigma` is not
        `0 < low <= high`, `probability` is outside [0, 1] or `pixels_at` is not positive.

    Reference: Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix A.
    """
    check_probability(probability)
    at_height, at_width = sides_at(pixels_at)
    if not 0.0 < sigma[0] <= sigma[1]:
        raise BadInput("sigma", f"{sigma} is not 0 < low <= high")
    height, width, _ = image.shape
    up = scaled(kernel_size // 2, size=height, pixels_at=at_height)
    left = scaled(kernel_size // 2, size=width, pixels_at=at_width)
    if kernel_size % 2 != 1 or kernel_size < 1 or max(up, left) > 111:
        at = "" if pixels_at is None else f" at {height} x {width} pixels for {pixels_at}"
        raise BadInput("kernel_size", f"{kernel_size} is not an odd number from 1 to 223{at}")
    if up == left == 0 or probability == 0.0:
        return image
    unit = jax.random.uniform(key, (2,))

    def taps(side, radius, at):
        scale = 1.0 if at is None else side / at
        spread = fixed.between(unit[0], sigma[0] * scale, sigma[1] * scale)
        return _gaussian(spread, radius=radius, size=side)

    padded = jnp.pad(fixed.levels(image), ((up, up), (left, left), (0, 0)), mode="edge")
    rows, columns = taps(height, up, at_height), taps(width, left, at_width)
    blurred = fixed.pixels(fixed.separable(padded, rows, columns))
    return jnp.where(unit[1] < probability, blurred, image)
