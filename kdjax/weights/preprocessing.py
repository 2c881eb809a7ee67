"""How the pictures were made ready that weights were trained on, as the files beside them say it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from kdjax import views
from kdjax.types import Interpolation

_PILLOW: Sequence[Interpolation] = get_args(Interpolation)
"""By the number that Pillow, and so a preprocessor_config.json, has for each."""

_LONGEST_SIDE = 2**14
"""Pixels of a side: no network sees as many."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The evaluation of a published network: resize, cut out the centre, normalise.

    Attributes:
      size: height and width that the network sees, in pixels.
      crop: the side of what is cut out, as a part of the resized picture's: 0.875 is 224 of 256.
      interpolation: of the resizing, as Pillow does it.
      mean: subtracted from pixels in [0, 1], of each channel.
      std: divided by, likewise.
      squash: the picture is resized to `size / crop` whatever its shape, and the centre cut out of that.
    """

    size: tuple[int, int] = (224, 224)
    crop: float = 0.875
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    squash: bool = False

    @property
    def short_side(self) -> int:
        """To which the short side of a picture is resized, in pixels, before its centre is cut out."""
        return min(views.uncropped(self.size, self.crop))

    def frame(self) -> dict[str, Any]:
        """Fields of a source of pictures, see `kdjax.data.sources.Frame`, that make them so."""
        return {
            "size": self.size,
            "resize": "squash" if self.squash else "short_side",
            "crop": self.crop,
            "interpolation": self.interpolation,
        }

    def plain(self) -> dict[str, Any]:
        """For a manifest, or the header of a file."""
        return {
            **dataclasses.asdict(self),
            **{name: list(getattr(self, name)) for name in ("size", "mean", "std")},
        }


def of_plain(said: Mapping[str, Any]) -> Preprocessing:
    """What `Preprocessing.plain` gave.

    Raises:
      ValueError, TypeError, KeyError: it is something else.
    """
    found = Preprocessing(
        size=_pair(said["size"]),
        crop=float(said["crop"]),
        interpolation=_interpolation(said["interpolation"]),
        mean=_numbers(said["mean"]),
        std=_numbers(said["std"]),
        squash=bool(said["squash"]),
    )
    return _sound(found)


def of_timm(said: Mapping[str, Any]) -> Preprocessing | None:
    """What a timm config.json says in `pretrained_cfg`; None where it has none.

    Raises:
      ValueError, TypeError, KeyError: it cannot be understood.
    """
    cfg = said.get("pretrained_cfg")
    if not isinstance(cfg, Mapping) or "mean" not in cfg:
        return None
    _, height, width = (int(side) for side in cfg["input_size"])
    if (mode := cfg.get("crop_mode", "center")) not in ("center", "squash"):
        raise ValueError(f"crop_mode {mode!r}")
    found = Preprocessing(
        size=(height, width),
        crop=float(cfg.get("crop_pct", 0.875)),
        interpolation=_interpolation(cfg.get("interpolation", "bicubic")),
        mean=_numbers(cfg["mean"]),
        std=_numbers(cfg["std"]),
        squash=mode == "squash",
    )
    return _sound(found)


def of_transformers(said: Mapping[str, Any]) -> Preprocessing | None:
    """What a preprocessor_config.json says; None where it has nothing of pictures.

    ConvNeXt's image processor, which ResNet has too, resizes to `size / crop_pct` below 384 pixels and
    squashes from there on; others cut `crop_size` out of `size`, or squash.

    Raises:
      ValueError, TypeError, KeyError: it cannot be understood.
    """
    if "size" not in said:
        return None
    sizes = _sides(said["size"])
    crop, squash = 1.0, not said.get("do_center_crop", "crop_pct" in said)
    if "crop_pct" in said:  # of ConvNeXt's image processor alone
        given = said["crop_pct"]
        crop, squash = 0.875 if given is None else float(given), min(sizes) >= 384
    elif said.get("do_center_crop"):
        short, sizes = min(sizes), _sides(said["crop_size"])
        crop = min(sizes) / short
    mean, std = (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)
    if said.get("do_normalize", True):
        mean = _numbers(said.get("image_mean", IMAGENET_MEAN))
        std = _numbers(said.get("image_std", IMAGENET_STD))
    else:
        mean = (0.0,) * len(mean)
    # Numbers for pixels that have been multiplied by this are numbers for pixels in [0, 1] so:
    factor = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    if abs(factor * 255 - 1) > 1e-6:
        mean, std = (tuple(v / (factor * 255) for v in values) for values in (mean, std))
    found = Preprocessing(
        size=sizes,
        crop=1.0 if squash else crop,
        interpolation=_interpolation(said.get("resample", 2)),
        mean=mean,
        std=std,
        squash=squash,
    )
    return _sound(found)


def _sides(said: Any) -> tuple[int, int]:
    if isinstance(said, Mapping):
        if "shortest_edge" in said:
            return int(said["shortest_edge"]), int(said["shortest_edge"])
        return int(said["height"]), int(said["width"])
    return (int(said), int(said)) if isinstance(said, int) else _pair(said)


def _pair(said: Sequence[Any]) -> tuple[int, int]:
    height, width = said
    return int(height), int(width)


def _numbers(said: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in said)


def _interpolation(said: Any) -> Interpolation:
    if isinstance(said, int) and 0 <= said < len(_PILLOW):
        return _PILLOW[said]
    for known in _PILLOW:
        if said == known:
            return known
    raise ValueError(f"interpolation {said!r}")


def _sound(found: Preprocessing) -> Preprocessing:
    """As it is given, where pictures can be made ready so.

    Raises:
      ValueError: they cannot.
    """
    if not 0 < min(found.size) <= max(found.size) <= _LONGEST_SIDE:
        raise ValueError(f"a size of {found.size[0]:g} x {found.size[1]:g}")
    if not (0 < found.crop <= 1 and max(views.uncropped(found.size, found.crop)) <= _LONGEST_SIDE):
        raise ValueError(f"a crop of {found.crop:g}")
    if not (found.std and all(0 < one < math.inf for one in found.std)):
        raise ValueError(f"a std of {found.std}")
    if len(found.mean) != len(found.std) or not all(map(math.isfinite, found.mean)):
        raise ValueError(f"a mean of {found.mean} and a std of {found.std}")
    return found
