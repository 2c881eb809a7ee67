"""Views that change colours: jitter, grayscale, blur.

Each is `f(key, image, *, hyper-parameters)` on one float32 image in [0, 1] with 1 or 3 (RGB)
channels; `jax.vmap` it over a batch. Hyper-parameters are static; one of zero costs nothing.
Pixels come out on the levels of `kdjax.views.fixed`, at most a level (2.5e-4) off the formula.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from kdjax.types import BadInput, PyTree
from kdjax.views import fixed
from kdjax.views.geometry import Image, check_probability

# ITU-R BT.601 (0.299, 0.587, 0.114) in 12 bits: whole numbers, so that the sum is exact.
_LUMA = (1225.0, 2404.0, 467.0)
_IDENTITY = (1.0, 0.0, 0.0)


def _check_channels(image: Image):
    if image.shape[-1] not in (1, 3):
        raise BadInput(f"image: {image.shape[-1]} channels; a colour view takes 1 or 3 (RGB)")


def _luma(level: Image) -> Float[Array, "height width 1"]:
    if level.shape[-1] == 1:
        return level
    total = sum(weight * level[..., i : i + 1] for i, weight in enumerate(_LUMA))
    return jnp.round(total / sum(_LUMA))


def _mean(luma: Float[Array, "height width 1"]) -> Float[Array, ""]:
    """Mean level, summed in int32: whole numbers add up alike in every order."""
    # Images above 2**19 pixels would overflow: their last bits go, which is far below a level.
    drop = 2.0 ** max(0, luma.size.bit_length() - 19)
    total = jnp.round(luma / drop).astype(jnp.int32).sum()
    return total.astype(jnp.float32) * (drop / luma.size)


def _once(value: PyTree) -> PyTree:
    """`value`, held in memory: fused into its readers, it is worked out again by every one.

    Those are the pixels for a number per example, and the channels for a pass over the image.
    Without it a jitter takes 20 times as long on a CPU, for the same bytes.
    """
    return lax.optimization_barrier(value)


def _blend(
    steps: Float[Array, "steps 3"], mean: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """`gain, tint, lift` of all steps, the first row first.

    A step maps a level x to `gain x + tint luma(x) + pull mean(luma)`; so do several, and as
    luma is linear the mean that a later step needs follows from that of the image.
    """
    gain, tint, lift = jnp.float32(1.0), jnp.float32(0.0), jnp.float32(0.0)
    for step_gain, step_tint, step_pull in steps:
        mean_now = fixed.product(gain + tint, mean) + lift
        gain, tint, lift = (
            fixed.product(step_gain, gain),
            fixed.product(step_gain, tint) + fixed.product(step_tint, gain + tint),
            fixed.product(step_gain + step_tint, lift) + fixed.product(step_pull, mean_now),
        )
    return _once((gain, tint, lift))


def _blended(level: Image, steps: Float[Array, "steps 3"]) -> Image:
    luma = _luma(level)
    gain, tint, lift = _blend(steps, _mean(luma))
    level = fixed.product(gain, level) + (fixed.product(tint, luma) + lift)
    return _once(jnp.clip(jnp.round(level), 0.0, fixed.LEVELS))


def _turned(level: Float[Array, "height width 3"], turn: Float[Array, ""]) -> Image:
    """The hue turned by `turn` sixths of the circle, HSV's saturation and value kept."""
    red, green, blue = level[..., 0], level[..., 1], level[..., 2]
    top, bottom = level.max(axis=-1), level.min(axis=-1)
    chroma = top - bottom
    safe = jnp.where(chroma > 0, chroma, 1.0)
    hue = jnp.where(top == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0)
    hue = jnp.where(top == red, (green - blue) / safe, hue) + turn

    def channel(offset):
        sixth = hue + offset
        sixth = sixth - 6.0 * jnp.floor(sixth / 6.0)
        return top - fixed.product(chroma, jnp.clip(jnp.minimum(sixth, 4.0 - sixth), 0.0, 1.0))

    return _once(jnp.round(jnp.stack([channel(5.0), channel(3.0), channel(1.0)], axis=-1)))


def _factor(unit: Float[Array, ""], strength: float) -> Float[Array, ""]:
    return fixed.between(unit, max(0.0, 1.0 - strength), 1.0 + strength)


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

    Departs from SimCLR and torchvision in one thing: they clip after each part, here clipping is
    at the turn of the hue and at the end. The parts before the hue, and those after it, are
    then one blend `gain x + tint luma(x) + lift` whose three numbers are worked out per example,
    so a random order costs two passes over the pixels; a `lax.switch` would, under `vmap`, run
    every part in every place.

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
      BadInput: a strength or the probability is out of range, or the channels are not 1 or 3.

    Reference: Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix A.
    """
    _check_channels(image)
    check_probability(probability)
    for name, value in (
        ("brightness", brightness),
        ("contrast", contrast),
        ("saturation", saturation),
        ("hue", hue),
    ):
        if value < 0.0:
            raise BadInput(f"{name}: strength {value} is negative")
    if hue > 0.5:
        raise BadInput(f"hue: {hue} is more than half a turn (0.5)")
    if image.shape[-1] == 1:
        saturation = hue = 0.0

    unit = jax.random.uniform(key, (6,))
    steps = []
    if brightness > 0.0:
        steps.append((_factor(unit[0], brightness), 0.0, 0.0))
    if contrast > 0.0:
        factor = _factor(unit[1], contrast)
        steps.append((factor, 0.0, 1.0 - factor))
    if saturation > 0.0:
        factor = _factor(unit[2], saturation)
        steps.append((factor, 1.0 - factor, 0.0))
    if hue > 0.0:
        steps.append(_IDENTITY)  # holds the place of the hue, which is no blend
    if not steps or probability == 0.0:
        return image

    steps = jnp.stack([jnp.stack([jnp.float32(x) for x in step]) for step in steps])
    order = _order(unit[4], len(steps))
    steps = steps[order]
    level = fixed.levels(image)
    if hue == 0.0:
        level = _blended(level, steps)
    else:
        place = jnp.argmax(order == len(steps) - 1)
        index = jnp.arange(len(steps))
        turn = _once(fixed.between(unit[3], -6.0 * hue, 6.0 * hue))
        if len(steps) == 1:
            level = _turned(level, turn)
        else:
            level = _blended(level, _only(steps, index < place))
            level = _blended(_turned(level, turn), _only(steps, index > place))
    return jnp.where(unit[5] < probability, fixed.pixels(level), image)


def _only(steps: Float[Array, "steps 3"], used: Bool[Array, " steps"]) -> Float[Array, "steps 3"]:
    return jnp.where(used[:, None], steps, jnp.array([_IDENTITY], jnp.float32))


def grayscale(key: Key[Array, ""], image: Image, *, probability: float) -> Image:
    """All channels become the luma (BT.601) with this probability; the channels are kept.

    An image of one channel stays as it is.

    Raises:
      BadInput: `probability` is outside [0, 1], or the channels are not 1 or 3.
    """
    _check_channels(image)
    check_probability(probability)
    if image.shape[-1] == 1 or probability == 0.0:
        return image
    gray = jnp.broadcast_to(fixed.pixels(_luma(fixed.levels(image))), image.shape)
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

    Raises:
      BadInput: `kernel_size` is not odd or above 223, `sigma` is not `0 < low <= high`, or
        `probability` is outside [0, 1].

    Reference: Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix A.
    """
    if kernel_size % 2 != 1 or not 1 <= kernel_size <= 223:
        raise BadInput(f"kernel_size: {kernel_size} is not an odd number from 1 to 223")
    if not 0.0 < sigma[0] <= sigma[1]:
        raise BadInput(f"sigma: {sigma} is not 0 < low <= high")
    check_probability(probability)
    if kernel_size == 1 or probability == 0.0:
        return image
    height, width, _ = image.shape
    radius = kernel_size // 2
    unit = jax.random.uniform(key, (2,))
    width_of_kernel = fixed.between(unit[0], *sigma)
    padding = ((radius, radius), (radius, radius), (0, 0))
    padded = jnp.pad(fixed.levels(image), padding, mode="edge")
    rows = _gaussian(width_of_kernel, radius=radius, size=height)
    columns = _gaussian(width_of_kernel, radius=radius, size=width)
    blurred = fixed.pixels(fixed.separable(padded, rows, columns))
    return jnp.where(unit[1] < probability, blurred, image)
