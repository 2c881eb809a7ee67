"""The sizes that a picture goes through before its centre is cut out; nothing here looks at pixels."""

import math

from kdjax.types import BadInput
from kdjax.views import geometry


def uncropped(size: geometry.Size, crop: float) -> tuple[int, int]:
    """Height and width of what `size` is the centre of, as `crop` of each side: 256 for 224 and 0.875.

    Raises:
      BadInput: `size` is not positive, or `crop` is not in (0, 1].
    """
    if not 0.0 < crop <= 1.0:
        raise BadInput("crop", f"{crop} is not in (0, 1]")
    tall, wide = geometry.sides(size)
    # A share such as 224 / 232 may be a hair too large: its quotient is 232 all the same.
    return math.floor(tall / crop * (1 + 1e-12)), math.floor(wide / crop * (1 + 1e-12))


def before_crop(
    height: int, width: int, *, size: geometry.Size, crop: float | None
) -> tuple[int, int]:
    """Height and width to which an image is resized before its centre is cut out.

    It keeps its shape and fills `uncropped(size, crop)`, with nothing to spare on one side, as
    torchvision and timm have it: of a square view that is the short side of the image.

    Args:
      height: of the image, in pixels.
      width: likewise.
      size: of the centre.
      crop: see `uncropped`; None gives `size`.

    Raises:
      BadInput: see `uncropped`.
    """
    if crop is None:
        return geometry.sides(size)
    tall, wide = uncropped(size, crop)
    if tall == wide:
        short = min(height, width)
        return tall * height // short, tall * width // short
    ratio = min(height / tall, width / wide)
    return round(height / ratio), round(width / ratio)
