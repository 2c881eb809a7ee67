"""Views that move pixels: crop, resize, flip, turn, warp, shift, cutout.

Each is `f(key, image, *, hyper-parameters)` on one float32 image in [0, 1], any number of channels;
`jax.vmap` it over a batch. Hyper-parameters are static, and so is the shape of the result.
"""

import math
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from kdjax.types import BadInput
from kdjax.views import fixed

Image: TypeAlias = Float[Array, "height width channel"]

Size: TypeAlias = int | tuple[int, int]
"""Height and width in pixels, or one integer for both."""

_Pixels = TypeVar("_Pixels", int, Array)


def check_probability(probability: float):
    """Raises BadInput unless `probability` is in [0, 1]."""
    if not 0.0 <= probability <= 1.0:
        raise BadInput("probability", f"{probability} is outside [0, 1]")


def sides(size: Size, *, name: str = "size") -> tuple[int, int]:
    """Height and width: those of `8` are those of `(8, 8)`.

    Args:
      size: in pixels.
      name: that it has in messages.

    Raises:
      BadInput: one of them is not positive.
    """
    height, width = size if isinstance(size, tuple) else (size, size)
    if min(height, width) < 1:
        raise BadInput(name, f"{size} is not a positive number of pixels")
    return height, width


def meant_for(size: Size, pixels_at: Size | None) -> tuple[int, int]:
    """Height and width that what is in pixels is given for: `pixels_at`, `size` where there is none.

    Raises:
      BadInput: one of them is not positive.
    """
    return sides(size) if pixels_at is None else sides(pixels_at, name="pixels_at")


def sides_at(pixels_at: Size | None) -> tuple[int, int] | tuple[None, None]:
    """`pixels_at` of each axis, see `scaled`.

    Raises:
      BadInput: one of them is not positive.
    """
    return (None, None) if pixels_at is None else sides(pixels_at, name="pixels_at")


def scaled(pixels: _Pixels, *, size: int, pixels_at: int | None) -> _Pixels:
    """What `pixels` of an axis of `pixels_at` are on one of `size`: whole, halves rounded up.

    `pixels_at=None` stands for `size` itself.
    """
    if pixels_at is None:
        return pixels
    return (2 * size * pixels + pixels_at) // (2 * pixels_at)


def _triangle(
    start: Int[Array, ""] | int, length: Int[Array, ""] | int, *, taps: int, size: int
) -> Float[Array, "{taps} {size}"]:
    """Antialiased bilinear weights that take `[start, start + length)` of an axis to `size`.

    The unit is 1 / (2 size) of a pixel, in which all centres are whole numbers.
    """
    tap, out = jnp.arange(taps)[:, None], jnp.arange(size)[None, :]
    centre = 2 * size * start + (2 * out + 1) * length - size
    reach = 2 * jnp.maximum(length, size)
    raw = jnp.maximum(reach - jnp.abs(2 * size * tap - centre), 0)
    return fixed.weights(jnp.where((tap >= start) & (tap < start + length), raw, 0))


def crop_box(
    key: Key[Array, ""],
    *,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[Int[Array, ""], Int[Array, ""], Int[Array, ""], Int[Array, ""]]:
    """`top, left, height, width` of a random box, in whole pixels inside the image.

    Args:
      key: key of this box.
      height: of the image, in pixels.
      width: of the image, in pixels.
      scale: the area is uniform in this range, as a fraction of the image's.
      ratio: width / height is log-uniform in this range.

    Raises:
      BadInput: `scale` is not `0 < low <= high <= 1`, or `ratio` not `0 < low <= high`.
    """
    if not 0.0 < scale[0] <= scale[1] <= 1.0:
        raise BadInput("scale", f"{scale} is not 0 < low <= high <= 1")
    if not 0.0 < ratio[0] <= ratio[1]:
        raise BadInput("ratio", f"{ratio} is not 0 < low <= high")
    unit = jax.random.uniform(key, (4,))
    side = jnp.sqrt(fixed.between(unit[0], *scale) * (height * width))
    root_ratio = jnp.exp(0.5 * fixed.between(unit[1], math.log(ratio[0]), math.log(ratio[1])))
    box_height = jnp.clip(jnp.round(side / root_ratio), 1, height).astype(jnp.int32)
    box_width = jnp.clip(jnp.round(side * root_ratio), 1, width).astype(jnp.int32)
    top = fixed.below(unit[2], height - box_height + 1)
    left = fixed.below(unit[3], width - box_width + 1)
    return top, left, box_height, box_width


def crop_resize(
    key: Key[Array, ""],
    image: Image,
    *,
    size: Size,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    pixels_at: Size | None = None,
) -> Float[Array, "rows columns channel"]:
    """Random resized crop: a random box (`crop_box`), resized as by `resize`.

    Departs from torchvision's `RandomResizedCrop`, which draws up to ten times until the box fits
    and then falls back to a central crop: here there is one draw, and a side that is longer than
    the image is clipped to it. Every draw is valid and costs the same; large boxes are a little
    closer to the image's shape and smaller than asked for.

    It departs from it where the result is not square, too: `ratio` is the box's width / height over
    that of the result, which is how far things are stretched. torchvision's is the box's own, so that
    all it shows in a result of 1 to 4 would be stretched about four times.

    Args:
      key: key of this view.
      image: float32 in [0, 1].
      size: height and width of the result in pixels, or the side of a square.
      scale: range of the box's area, as a fraction of the image's.
      ratio: range of the box's width / height, over that of the result.
      pixels_at: the result that `ratio` is given for, `None` for this one, so that a result of any
        shape shows the same box.

    Raises:
      BadInput: see `crop_box`; or `size` or `pixels_at` is not positive.

    Reference: Szegedy et al. 2014, https://arxiv.org/abs/1409.4842, section 6.
    """
    tall, wide = sides(size)
    meant_tall, meant_wide = meant_for(size, pixels_at)
    shape = meant_wide / meant_tall
    height, width, _ = image.shape
    top, left, box_height, box_width = crop_box(
        key, height=height, width=width, scale=scale, ratio=(ratio[0] * shape, ratio[1] * shape)
    )
    rows = _triangle(top, box_height, taps=height, size=tall)
    columns = _triangle(left, box_width, taps=width, size=wide)
    return fixed.pixels(fixed.separable(fixed.levels(image), rows, columns))


def resize(image: Image, *, size: Size) -> Float[Array, "rows columns channel"]:
    """The whole image at another size: bilinear, antialiased where it shrinks.

    Draws nothing. An image of that size is returned as it is; one of another shape is squeezed.
    Within 1e-3 of `jax.image.resize(..., "linear")`, on the levels of `kdjax.views.fixed`.

    Args:
      image: float32 in [0, 1].
      size: height and width of the result in pixels, or the side of a square.

    Raises:
      BadInput: `size` is not positive.
    """
    tall, wide = sides(size)
    height, width, _ = image.shape
    if (height, width) == (tall, wide):
        return image
    rows = _triangle(0, height, taps=height, size=tall)
    columns = _triangle(0, width, taps=width, size=wide)
    return fixed.pixels(fixed.separable(fixed.levels(image), rows, columns))


def flip(key: Key[Array, ""], image: Image, *, probability: float = 0.5) -> Image:
    """Mirrors left and right with this probability.

    Raises:
      BadInput: `probability` is outside [0, 1].
    """
    check_probability(probability)
    if probability == 0.0:
        return image
    return jnp.where(jax.random.uniform(key) < probability, image[:, ::-1], image)


def quarter_turns(image: Image, turns: Int[Array, ""] | int) -> Image:
    """The image turned by `turns` quarters of a circle, against the clock, as `numpy.rot90` does.

    Draws nothing and moves pixels only. `turns`, modulo 4, is the label of rotation prediction: a
    classifier of four classes on such views, with `cross_entropy`. It may be traced; draw it as
    `jax.random.randint(key, (), 0, 4)`, or take all four.

    Raises:
      BadInput: the image is not square, so a turned one would have another shape.

    Reference: Gidaris et al. 2018, https://arxiv.org/abs/1803.07728, sec. 3.1.
    """
    height, width, _ = image.shape
    if height != width:
        raise BadInput("image", f"{height} x {width} pixels cannot be turned", "make it square")
    return jnp.stack([jnp.rot90(image, quarter) for quarter in range(4)])[turns % 4]


def warp(
    key: Key[Array, ""],
    image: Image,
    *,
    turn: float = 0.0,
    shear: float = 0.0,
    stretch: float = 1.0,
) -> Image:
    """Turns, shears and stretches the image about its centre, by a random amount of each.

    Bilinear; what comes in from outside repeats the border. Where the pixels come from is found in
    1/32 of a pixel, so that a view has the same bytes in every program.

    Args:
      key: key of this view.
      image: float32 in [0, 1].
      turn: largest angle, in degrees; uniform in `-turn .. turn`.
      shear: largest slant of the columns, as a part of the height; uniform in `-shear .. shear`.
      stretch: largest factor of the height, and of the width, which are drawn apart; log-uniform in
        `1 / stretch .. stretch`.

    Raises:
      BadInput: `turn` is not in [0, 180], `shear` not in [0, 1], or `stretch` not in [1, 4].

    Reference: Cubuk et al. 2019, https://arxiv.org/abs/1909.13719, table 1, of the parts.
    """
    for name, value, low, high in (
        ("turn", turn, 0, 180),
        ("shear", shear, 0, 1),
        ("stretch", stretch, 1, 4),
    ):
        if not low <= value <= high:
            raise BadInput(name, f"{value} is not in [{low}, {high}]")
    if not turn and not shear and stretch == 1:
        return image
    height, width, channels = image.shape
    unit = jax.random.uniform(key, (4,))
    angle = fixed.between(unit[0], -math.radians(turn), math.radians(turn))
    slant = fixed.between(unit[1], -shear, shear)
    tall, wide = jnp.exp(fixed.between(unit[2:], -math.log(stretch), math.log(stretch)))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # From a pixel of the view to that of the image: in 1/1024, so that all that follows is whole.
    slanted_cos, slanted_sin = fixed.product(slant, cos), fixed.product(slant, sin)
    matrix = jnp.stack(
        [(cos - slanted_sin) / tall, -sin / tall, (sin + slanted_cos) / wide, cos / wide]
    )
    matrix = jnp.round(matrix * 1024).astype(jnp.int32)
    # Twice the distance from the centre, which is a whole number for any side.
    down = (2 * jnp.arange(height) - (height - 1))[:, None]
    right = (2 * jnp.arange(width) - (width - 1))[None, :]
    row = _thirty_seconds(matrix[0] * down + matrix[1] * right, height)
    column = _thirty_seconds(matrix[2] * down + matrix[3] * right, width)
    level = fixed.levels(image).reshape(height * width, channels)
    total = jnp.zeros((height, width, channels))
    for below in (0, 1):
        for beside in (0, 1):
            y = jnp.clip((row >> 5) + below, 0, height - 1)
            x = jnp.clip((column >> 5) + beside, 0, width - 1)
            share_y = (row & 31) if below else 32 - (row & 31)
            share_x = (column & 31) if beside else 32 - (column & 31)
            share = (share_y * share_x).astype(jnp.float32)[..., None]
            total += share * level[y * width + x]
    return fixed.pixels(total / 1024)


def _thirty_seconds(distance: Int[Array, "h w"], side: int) -> Int[Array, "h w"]:
    """A place on an axis, in 1/32 of a pixel, from 2048 times its distance to the centre."""
    return ((distance + 32) >> 6) + 16 * (side - 1)


def shift(
    key: Key[Array, ""], image: Image, *, pixels: int, pixels_at: Size | None = None
) -> Image:
    """Moves the image by up to `pixels` each way, zeros coming in ("pad 4, crop 32").

    Both offsets are uniform in `-pixels .. pixels`.

    Args:
      key: key of this view.
      image: float32 in [0, 1].
      pixels: largest shift.
      pixels_at: size of the image that `pixels` is given for, `None` for this one. Offsets are drawn
        there, then scaled and rounded by axis, so that the same part of the image shows at any size.

    Raises:
      BadInput: `pixels` is negative or `pixels_at` is not positive.

    Reference: He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2.
    """
    if pixels < 0:
        raise BadInput("pixels", f"{pixels} is negative")
    at_height, at_width = sides_at(pixels_at)
    if pixels == 0:
        return image
    height, width, _ = image.shape
    up = scaled(pixels, size=height, pixels_at=at_height)
    left = scaled(pixels, size=width, pixels_at=at_width)
    offset = fixed.below(jax.random.uniform(key, (2,)), 2 * pixels + 1) - pixels
    # Scaled without its sign, as rounding must not favour one direction.
    distance, sign = jnp.abs(offset), jnp.sign(offset)
    top = up + sign[0] * scaled(distance[0], size=height, pixels_at=at_height)
    start = left + sign[1] * scaled(distance[1], size=width, pixels_at=at_width)
    padded = jnp.pad(image, ((up, up), (left, left), (0, 0)))
    return lax.dynamic_slice(padded, (top, start, 0), image.shape)


def cutout(
    key: Key[Array, ""],
    image: Image,
    *,
    length: int,
    probability: float = 1.0,
    pixels_at: Size | None = None,
) -> Image:
    """Zeroes a square of side `length` around a uniform pixel, clipped at the border.

    The square spans `[centre - length // 2, centre - length // 2 + length)`, so an odd `length`
    is kept, where the authors' code rounds it down to even.

    Args:
      key: key of this view.
      image: float32 in [0, 1].
      length: side of the square.
      probability: of zeroing at all.
      pixels_at: size of the image that `length` is given for, `None` for this one. The square is
        drawn there, then its edges are scaled and rounded by axis, so that it hides the same part of
        the image at any size.

    Raises:
      BadInput: `length` is negative, `probability` is outside [0, 1] or `pixels_at` is not positive.

    Reference: DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552, section 3.2.
    """
    if length < 0:
        raise BadInput("length", f"{length} is negative")
    check_probability(probability)
    at_height, at_width = sides_at(pixels_at)
    if length == 0 or probability == 0.0:
        return image
    height, width, _ = image.shape
    unit = jax.random.uniform(key, (3,))

    def hidden(unit, side, at):
        start = fixed.below(unit, side if at is None else at) - length // 2
        low = scaled(start, size=side, pixels_at=at)
        high = scaled(start + length, size=side, pixels_at=at)
        pixel = jnp.arange(side)
        return (pixel >= low) & (pixel < high)

    rows, columns = hidden(unit[0], height, at_height), hidden(unit[1], width, at_width)
    inside = rows[:, None] & columns[None, :]
    return jnp.where(inside[..., None] & (unit[2] < probability), 0.0, image)
