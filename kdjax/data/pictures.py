"""Encoded pictures as the pixels that a dataset says it has, or a plain word of why not."""

import io

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")

GREY_16 = ("I;16", "I;16B", "I;16L", "I")
"""Modes of a PNG in 16-bit grey; older releases of Pillow call it `I`."""

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", *GREY_16)


class Unfit(ValueError):
    """A picture is not what its dataset says; the text says what it is."""


def header(content: bytes) -> tuple[int, int]:
    """Height and width of a picture; its pixels are not looked at.

    Raises:
      Unfit: it is no picture, or one that has no plain pixels: animated, or in CMYK.
    """
    with _plain(content) as picture:
        return picture.height, picture.width


def pixels(content: bytes, *, channels: int) -> UInt8[np.ndarray, "height width channel"]:
    """The pixels of a picture as 1 (grey), 2 (and alpha), 3 (red, green, blue) or 4 channels of uint8.

    What is converted loses nothing that the channels can hold: few bits are spread over 0 to 255,
    colours are looked up in the palette, grey is repeated where there is colour, colour of three equal
    channels becomes grey, alpha is 255 where there is none, and left out where nothing is transparent.
    Of 16 bits the upper 8 are kept, as TensorFlow's `decode_image` does. Gamma, colour profiles and the
    orientation that a camera notes are not applied, as neither TensorFlow nor OpenCV does there.

    Raises:
      Unfit: it is damaged, or what it has does not fit: transparency or colour without a channel.
    """
    with _plain(content) as picture:
        colour, alpha = _colour_and_alpha(picture)
    if alpha is not None and (alpha == 255).all():
        alpha = None
    if channels in (1, 3) and alpha is not None:
        raise Unfit("it has transparent pixels, and there is no channel for alpha; flatten it")
    if channels in (1, 2) and colour.shape[-1] == 3:
        if (colour != colour[..., :1]).any():
            raise Unfit("it is in colour, and there is one channel; convert it to grey")
        colour = colour[..., :1]
    if channels in (3, 4) and colour.shape[-1] == 1:
        colour = np.repeat(colour, 3, axis=-1)
    if channels in (1, 3):
        return np.ascontiguousarray(colour)
    opaque = np.full(colour.shape[:2], 255, np.uint8)
    return np.dstack([colour, opaque if alpha is None else alpha])


def opened(content: bytes) -> Image.Image:
    """A picture of one frame, in whichever mode; its pixels are not looked at.

    Raises:
      Unfit: it is no picture, an animated one, or larger than Pillow takes (`Image.MAX_IMAGE_PIXELS`).
    """
    if not content:
        raise Unfit("it is empty")
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
        frames = getattr(picture, "n_frames", 1)
    except Exception as error:  # a decoder of damaged bytes may raise anything
        raise Unfit(f"it is no picture that can be opened ({reason(error)})") from None
    if frames > 1 and picture.format != "MPO":  # a photograph with its preview
        raise Unfit(f"it is animated, with {frames} frames")
    if (
        Image.MAX_IMAGE_PIXELS is not None
        and picture.width * picture.height > Image.MAX_IMAGE_PIXELS
    ):
        raise Unfit(
            f"it is {picture.height} x {picture.width} pixels, and {Image.MAX_IMAGE_PIXELS} are the most"
        )
    return picture


def _plain(content: bytes) -> Image.Image:
    """One whose pixels can be kept as they are."""
    picture = opened(content)
    if picture.mode not in _MODES or (picture.mode == "I" and picture.format != "PNG"):
        raise Unfit(f"its pixels are {picture.mode}; convert it to RGB")
    return picture


def _colour_and_alpha(
    picture: Image.Image,
) -> tuple[UInt8[np.ndarray, "height width channel"], UInt8[np.ndarray, "height width"] | None]:
    """Grey or colour, all of it, and what is transparent (0) if anything may be."""
    palette = picture.palette
    colours = 256 if palette is None else len(palette.palette) // len(palette.mode)
    try:
        picture.load()
    except Exception as error:  # a decoder of damaged bytes may raise anything
        raise Unfit(f"its pixels are damaged ({reason(error)})") from None
    keyed = picture.info.get("transparency")
    if picture.mode in GREY_16:
        deep = np.asarray(picture)
        return (deep >> 8).astype(np.uint8)[..., None], _clear(deep == keyed, keyed)
    if picture.mode == "1":
        grey = np.asarray(picture.convert("L"))
        return grey[..., None], _clear(grey == keyed, keyed)
    if picture.mode == "P" and np.asarray(picture).max() >= colours:
        raise Unfit(f"its pixels are damaged (a colour beyond the {colours} of its palette)")
    grey = picture.mode in ("L", "LA")
    if picture.mode in ("LA", "PA", "RGBA") or keyed is not None:
        whole = np.asarray(picture.convert("RGBA"))
        return whole[..., : 1 if grey else 3], whole[..., 3]
    whole = np.asarray(picture if grey else picture.convert("RGB"))
    return whole[..., None] if grey else whole, None


def _clear(
    transparent: Bool[np.ndarray, "height width"] | bool, keyed: object
) -> UInt8[np.ndarray, "height width"] | None:
    return None if keyed is None else np.where(transparent, 0, 255).astype(np.uint8)


def reason(error: Exception) -> str:
    """What a decoder says, in a few words."""
    lines = str(error).splitlines()
    text = lines[0] if lines else type(error).__name__
    return "not one of " + ", ".join(FORMATS) if text.startswith("cannot identify") else text
