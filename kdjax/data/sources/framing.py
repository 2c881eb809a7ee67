"""A picture of any kind and size as pixels of one size, by a rule that is stated.

Resizing and cropping are those of the evaluation of published networks, to the bit: torchvision's
`Resize` and `CenterCrop`, and timm's, of pictures as Pillow opens them. What these leave to chance is
decided here: the orientation that a camera notes is applied, transparent pixels lie on a background, and
of 16 bits the upper 8 are kept (Pillow's own `convert` turns 16-bit grey white).
"""

import dataclasses
from typing import Literal, get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from kdjax import views
from kdjax.data import pictures
from kdjax.data.pictures import Unfit
from kdjax.types import BadInput, Interpolation

Resize = Literal["short_side", "squash", "pad"]

_RESAMPLING = {name: Image.Resampling[name.upper()] for name in get_args(Interpolation)}
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
_OPAQUE = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV")
_JPEG = ("JPEG", "MPO")
_ORIENTATION = 0x0112
_MOST_PIXELS = 2**27
"""Of a picture after it is resized: that of a thin strip may be far larger than the strip."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """What every picture is made into: uint8 [height, width, channels].

    Attributes:
      size: height and width in pixels.
      resize: `short_side` keeps the proportions and fills the frame, what is beyond it is cut off
        evenly; `squash` takes height and width by themselves; `pad` keeps the proportions and the whole
        picture, with the background beside it.
      crop: share of each side of the resized picture that the frame shows: the picture is resized to
        `floor(size / crop)` and its centre is kept. 0.875 is 224 of 256.
      interpolation: Pillow's, with its antialiasing.
      channels: 3 (red, green, blue), or 1 (grey, ITU-R 601).
      background: under transparent pixels and beside padded pictures: one number for each of red,
        green and blue, 0 to 255.
      draft: JPEGs that are more than twice as large as they need be are decoded at a half, a quarter or
        an eighth of their size. Several times faster for photographs, and not bit for bit what
        published networks are evaluated on.
    """

    size: tuple[int, int]
    resize: Resize = "short_side"
    crop: float = 1.0
    interpolation: Interpolation = "bilinear"
    channels: int = 3
    background: tuple[int, int, int] = (0, 0, 0)
    draft: bool = False

    def __post_init__(self):
        if len(self.size) != 2 or min(self.size) < 1:
            raise BadInput("size", f"{self.size} is not a height and a width", "give (64, 64)")
        if self.resize not in ("short_side", "squash", "pad"):
            raise BadInput("resize", f"{self.resize!r} is not one of short_side, squash, pad")
        if not 0.0 < self.crop <= 1.0:
            raise BadInput("crop", f"{self.crop} is not in (0, 1]", "0.875 is 224 of 256")
        if self.interpolation not in _RESAMPLING:
            known = ", ".join(_RESAMPLING)
            raise BadInput("interpolation", f"{self.interpolation!r} is not one of {known}")
        if self.channels not in (1, 3):
            raise BadInput("channels", f"{self.channels} is not 1 or 3")
        if len(self.background) != 3 or not all(0 <= one <= 255 for one in self.background):
            raise BadInput(
                "background", f"{self.background} is not three numbers from 0 to 255", "(0, 0, 0)"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a framed picture."""
        return (*self.size, self.channels)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which a picture is resized before its centre is kept.

        Raises:
          Unfit: they are beyond what is sensible, of a picture that is a thin strip.
        """
        high, wide = views.uncropped(self.size, self.crop)
        if self.resize == "squash":
            return high, wide
        if self.resize == "pad":
            ratio = max(height / high, width / wide)
            return max(1, round(height / ratio)), max(1, round(width / ratio))
        found = views.before_crop(height, width, size=self.size, crop=self.crop)
        if found[0] * found[1] > _MOST_PIXELS:
            raise Unfit(
                f"it is {height} x {width} pixels, a strip whose short side cannot be {high}; take "
                "resize=pad or squash"
            )
        return found


def framed(content: bytes, frame: Frame) -> UInt8[np.ndarray, "height width channel"]:
    """The pixels of an encoded picture in a frame.

    Raises:
      Unfit: it is damaged, animated or no picture, larger than Pillow's limit, or a strip that cannot
        be resized.
    """
    with pictures.opened(content) as picture:
        if frame.draft and picture.format in _JPEG:
            _draft(picture, frame)
        flat = _flat(picture, frame)
    height, width = frame.resized(flat.height, flat.width)
    flat = flat.resize((width, height), _RESAMPLING[frame.interpolation])
    return np.asarray(_centre(flat, frame)).reshape(frame.shape)


def looked_at(content: bytes, *, pixels: bool) -> tuple[int, int]:
    """Height and width of an encoded picture as it is seen, once it has shown that it can be framed.

    Args:
      content: of its file.
      pixels: they are decoded, too; otherwise its header alone is looked at.

    Raises:
      Unfit: see `framed`.
    """
    with pictures.opened(content) as picture:
        _check_mode(picture)
        if pixels:
            _load(picture)
        height, width = picture.height, picture.width
        return (width, height) if _turned(picture) > 4 else (height, width)


def _check_mode(picture: Image.Image) -> None:
    deep = picture.mode in pictures.GREY_16 and picture.format == "PNG"
    if not deep and picture.mode not in _OPAQUE + _TRANSPARENT:
        raise Unfit(f"its pixels are {picture.mode}; convert it to RGB")


def _load(picture: Image.Image) -> None:
    try:
        picture.load()
    except Exception as error:  # a decoder of damaged bytes may raise anything
        raise Unfit(f"its pixels are damaged ({pictures.reason(error)})") from None


def _turned(picture: Image.Image) -> int:
    """The orientation that a camera has noted, 1 to 8; 1 where there is none, or none can be read."""
    try:
        found = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # whatever Pillow makes of bytes that are no Exif
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _draft(picture: Image.Image, frame: Frame) -> None:
    """Has a JPEG decoded at a part of its size, twice as large as it is needed at least."""
    height, width = frame.resized(picture.height, picture.width)
    if _turned(picture) > 4:
        width, height = frame.resized(picture.width, picture.height)
    picture.draft(None, (2 * width, 2 * height))


def _flat(picture: Image.Image, frame: Frame) -> Image.Image:
    """Upright, without transparency, in grey or in red, green and blue."""
    _check_mode(picture)
    _load(picture)
    turned = _turned(picture)  # of a PNG it may stand behind the pixels
    keyed = picture.info.get("transparency")
    deep = picture.mode in pictures.GREY_16
    if deep or picture.mode == "1":
        values = np.asarray(picture if deep else picture.convert("L"))
        grey = (values >> 8).astype(np.uint8) if deep else values
        picture = Image.fromarray(grey)
        if keyed is not None:
            clear = np.where(values == keyed, 0, 255).astype(np.uint8)
            picture = Image.merge("LA", (picture, Image.fromarray(clear)))
    if picture.mode in _TRANSPARENT or picture.info.get("transparency") is not None:
        ground = Image.new("RGBA", picture.size, (*frame.background, 255))
        picture = Image.alpha_composite(ground, picture.convert("RGBA"))
    picture = picture.convert("L" if frame.channels == 1 else "RGB")
    if turned == 1:
        return picture
    exif = picture.getexif()
    exif[_ORIENTATION] = turned
    return ImageOps.exif_transpose(picture)


def _centre(picture: Image.Image, frame: Frame) -> Image.Image:
    """What a frame shows of a resized picture, as torchvision's `center_crop` has it."""
    height, width = frame.size
    wide, high = max(width, picture.width), max(height, picture.height)
    if (wide, high) != picture.size:
        ground = Image.new("RGB", (wide, high), frame.background).convert(picture.mode)
        ground.paste(picture, ((wide - picture.width) // 2, (high - picture.height) // 2))
        picture = ground
    top = round((picture.height - height) / 2.0)
    left = round((picture.width - width) / 2.0)
    return picture.crop((left, top, left + width, top + height))
