"""Recipes: a raw image to the view that a model is trained on.

A recipe is `recipe(key, image, *, size, ...) -> [height, width, channel]` of one example, uint8 or
float in [0, 1]; `batch_views` runs one over a batch, each example with its own key. The size is
`(height, width)`, or one integer for both.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8, UInt32

from kdjax import keys
from kdjax.types import BadInput, Interpolation, PyTree
from kdjax.views import centre, color, fixed, geometry, pillow

# Raise it whenever a recipe, or what mixes its views, draws other pixels from the same key: it is part
# of a cache's manifest, and a cache of other pixels must be refused.
RECIPES_VERSION = 1

# Far from the numbers of the other parts, which `split` counts.
_WARP = 1 << 20

Recipe: TypeAlias = Callable[[Key[Array, ""], Array], Float[Array, "height width channel"]]
"""`(key, raw image) -> view`, hyper-parameters bound."""

RawImage: TypeAlias = UInt8[Array, "height width channel"] | Float[Array, "height width channel"]


def to_float(image: RawImage) -> geometry.Image:
    """Float32 in [0, 1]: uint8 is divided by 255, floats are taken to be there already."""
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 255.0
    return image.astype(jnp.float32)


def _warped(key: Key[Array, ""], image: RawImage, **amounts: float) -> geometry.Image:
    """See `geometry.warp`, by a key that no other part of a recipe draws from."""
    return geometry.warp(jax.random.fold_in(key, _WARP), to_float(image), **amounts)


def normalize(
    image: geometry.Image, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> geometry.Image:
    """`(image - mean) / std` for each channel; one number stands for all of them.

    Raises:
      BadInput: `mean` or `std` has neither one number nor one a channel, or a `std` is not
        positive.
    """
    channels = image.shape[-1]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise BadInput(name, f"{len(values)} numbers for {channels} channels", "give 1 or all")
    if min(std) <= 0.0:
        raise BadInput("std", f"{std} must be positive")
    if not any(mean) and all(value == 1.0 for value in std):
        return image
    mean_row, std_row = (np.asarray(values, np.float32)[None, None, :] for values in (mean, std))
    return (fixed.product(image, 1.0) - mean_row) / std_row


def simclr(
    key: Key[Array, ""],
    image: RawImage,
    *,
    size: geometry.Size,
    pixels_at: geometry.Size | None = None,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
    shift: int = 0,
    flip: float = 0.5,
    brightness: float = 0.8,
    contrast: float = 0.8,
    saturation: float = 0.8,
    hue: float = 0.2,
    jitter: float = 0.8,
    grayscale: float = 0.2,
    blur: float = 0.5,
    blur_kernel: int | None = None,
    blur_sigma: tuple[float, float] = (0.1, 2.0),
    cutout: int = 0,
    turn: float = 0.0,
    shear: float = 0.0,
    stretch: float = 1.0,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
) -> Float[Array, "rows columns channel"]:
    """SimCLR: warp, crop, shift, flip, colour jitter, grayscale, blur, cutout; then normalisation.

    The defaults are the paper's, at colour strength 1. Each part draws from a key of its own, so
    turning one off leaves what the others draw as it was.

    Args:
      key: key of this view.
      image: uint8, or float in [0, 1].
      size: height and width of the view in pixels, or the side of a square.
      pixels_at: the size that what is in pixels of the view is given for, `size` by default. At
        another size it is scaled by axis: the same part of the image shows, shifted, hidden and
        blurred alike.
      crop_scale: range of the crop's area, as a fraction of the image's.
      crop_ratio: range of the crop's width / height, over that of the view (at `pixels_at`).
      shift: largest shift after the crop, in pixels.
      flip: probability of mirroring; 0 for digits and text.
      brightness: strength, see `kdjax.views.jitter`.
      contrast: strength.
      saturation: strength.
      hue: strength, in turns.
      jitter: probability of the colour jitter.
      grayscale: probability.
      blur: probability.
      blur_kernel: odd number of taps. `None`: a tenth of the shorter side of `pixels_at`, which below
        20 is no blur.
      blur_sigma: range of the blur's standard deviation, in pixels.
      cutout: side of the zeroed square, in pixels. It is zero before normalisation.
      turn: largest angle, in degrees; with `shear` and `stretch` the first that is done to the image,
        see `kdjax.views.warp`.
      shear: largest slant, as a part of the height.
      stretch: largest factor of the height, and of the width.
      mean: subtracted, in [0, 1]: one number or one a channel.
      std: divided by: one number or one a channel.

    Raises:
      BadInput: a hyper-parameter is out of its range.

    Reference: Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix A.
    """
    part = jax.random.split(key, 7)
    tenth = min(geometry.meant_for(size, pixels_at)) // 20
    kernel_size = 2 * tenth + 1 if blur_kernel is None else blur_kernel
    view = _warped(key, image, turn=turn, shear=shear, stretch=stretch)
    view = geometry.crop_resize(
        part[0], view, size=size, scale=crop_scale, ratio=crop_ratio, pixels_at=pixels_at
    )
    view = geometry.shift(part[1], view, pixels=shift, pixels_at=pixels_at)
    view = geometry.flip(part[2], view, probability=flip)
    view = color.jitter(
        part[3],
        view,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        probability=jitter,
    )
    view = color.grayscale(part[4], view, probability=grayscale)
    view = color.blur(
        part[5],
        view,
        kernel_size=kernel_size,
        sigma=blur_sigma,
        probability=blur,
        pixels_at=pixels_at,
    )
    view = geometry.cutout(part[6], view, length=cutout, pixels_at=pixels_at)
    return normalize(view, mean=mean, std=std)


def crop_flip(
    key: Key[Array, ""],
    image: RawImage,
    *,
    size: geometry.Size,
    pixels_at: geometry.Size | None = None,
    crop_scale: tuple[float, float] | None = None,
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
    shift: int | None = None,
    flip: float = 0.5,
    cutout: int = 0,
    turn: float = 0.0,
    shear: float = 0.0,
    stretch: float = 1.0,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
) -> Float[Array, "rows columns channel"]:
    """The usual view of supervised training: warp, shift or crop, flip, cutout; then normalisation.

    Args:
      key: key of this view.
      image: uint8, or float in [0, 1].
      size: height and width of the view in pixels, or the side of a square.
      pixels_at: the size that what is in pixels of the view is given for, `size` by default. At
        another size it is scaled by axis: the same part of the image shows, shifted and hidden alike.
      crop_scale: range of a random resized crop's area, which then stands in for resizing and
        shifting. `None`: the image is resized where it has another size, then shifted.
      crop_ratio: range of the crop's width / height, over that of the view (at `pixels_at`).
      shift: largest shift, in pixels; 4 by default without a `crop_scale`, and none with one.
      flip: probability of mirroring; 0 for digits and text.
      cutout: side of the zeroed square, in pixels. It is zero before normalisation.
      turn: largest angle, in degrees; with `shear` and `stretch` the first that is done to the image,
        see `kdjax.views.warp`.
      shear: largest slant, as a part of the height.
      stretch: largest factor of the height, and of the width.
      mean: subtracted, in [0, 1]: one number or one a channel.
      std: divided by: one number or one a channel.

    Raises:
      BadInput: a hyper-parameter is out of its range, or there are both a shift and a crop.

    Reference: He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2.
    """
    part = jax.random.split(key, 3)
    view = _warped(key, image, turn=turn, shear=shear, stretch=stretch)
    if crop_scale is None:
        pixels = 4 if shift is None else shift
        view = geometry.resize(view, size=size)
        view = geometry.shift(part[0], view, pixels=pixels, pixels_at=pixels_at)
    else:
        if shift:
            raise BadInput(
                "shift", f"{shift}, and crop_scale stands in for it", "give one of the two"
            )
        view = geometry.crop_resize(
            part[0], view, size=size, scale=crop_scale, ratio=crop_ratio, pixels_at=pixels_at
        )
    view = geometry.flip(part[1], view, probability=flip)
    view = geometry.cutout(part[2], view, length=cutout, pixels_at=pixels_at)
    return normalize(view, mean=mean, std=std)


def eval_view(
    image: RawImage,
    *,
    size: geometry.Size,
    crop: float | None = None,
    interpolation: Interpolation | None = None,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
) -> Float[Array, "rows columns channel"]:
    """The one view to evaluate on: resized where the image has another size, and normalised.

    As published networks are evaluated, of a picture of any shape, with a `crop`, and to the bit with an
    `interpolation`, too.

    Args:
      image: uint8, or float in [0, 1].
      size: height and width of the view in pixels, or the side of a square.
      crop: its short side as a part of that of the image, which is resized in its own shape before the
        centre is cut out: 0.875 is 224 of 256 pixels. None squeezes the whole image into the view.
        What is left at both sides is the same, half a pixel rounded to even.
      interpolation: Pillow's, whose pixels of 8 bits it gives; None for `kdjax.views.resize`, which is
        bilinear, antialiased, and has 16 levels for each of these.
      mean: subtracted, in [0, 1]: one number or one a channel.
      std: divided by: one number or one a channel.

    Raises:
      BadInput: a hyper-parameter is out of its range.
    """
    tall, wide = geometry.sides(size)
    rows, columns = centre.before_crop(image.shape[0], image.shape[1], size=size, crop=crop)
    pixels = to_float(image)
    if interpolation is None:
        pixels = geometry.resize(pixels, size=(rows, columns))
    elif pixels.shape[:2] != (rows, columns):
        pixels = pillow.resize(pixels, size=(rows, columns), interpolation=interpolation)
    top, left = round((rows - tall) / 2), round((columns - wide) / 2)
    return normalize(pixels[top : top + tall, left : left + wide], mean=mean, std=std)


def batch_views(
    recipe: Callable[..., Any],
    stream_key: Key[Array, ""],
    view: UInt32[Array, " batch"],
    id: UInt32[Array, " batch"],
    example: PyTree,
) -> PyTree:
    """View `view[i]` of example `id[i]`, for each `i`: the same bytes in any batch.

    Args:
      recipe: `recipe(key, example)` of one example, hyper-parameters bound by `functools.partial`.
      stream_key: from `kdjax.keys.stream`.
      view: number of the view of each example.
      id: stable id of each example.
      example: raw images [batch, ...], or whatever the recipe takes, in the same order.
    """

    def one(view, id, example):
        return recipe(keys.example(stream_key, view, id), example)

    return jax.vmap(one)(view, id, example)
