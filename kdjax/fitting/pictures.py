"""Whether pictures are seen as they were by the network whose published weights a stage begins with."""

from collections.abc import Mapping
from typing import Any

from kdjax import views, weights
from kdjax.inputs import Image


def seen_otherwise(
    wanted: weights.Preprocessing, image: Image, frame: Mapping[str, Any] | None
) -> str | None:
    """How the sizes that pictures go through differ from those of the weights, and what makes them alike.

    Args:
      wanted: by the weights.
      image: how the model sees what the dataset has.
      frame: how pictures became those of the dataset, see `kdjax.contexts.Splits.frame`.

    Returns:
      A line; None where nothing differs that is known.
    """
    theirs = _framed(wanted.frame())
    if _is_left(image):
        ours = f"as they are, {_by(image.size)}" if frame is None else _framed(frame)
        same = frame is None and image.size == wanted.size
    else:
        ours, same = _resized(image, squash=wanted.squash), False
        if frame is not None:
            ours = f"{_framed(frame)}, and then {ours}"
    if same or ours == theirs:
        return None
    mend = _mend(wanted, image, frame)
    return f"it sees pictures {ours}; the weights were trained for pictures {theirs}; {mend}"


def _is_left(image: Image) -> bool:
    """Whether the model sees all the pixels that the dataset has."""
    height, width, _ = image.shape
    before = views.before_crop(height, width, size=image.size, crop=image.crop)
    return before == image.size == (height, width)


def _framed(frame: Mapping[str, Any]) -> str:
    """What the frame of a source does."""
    how = {name: frame[name] for name in ("resize", "interpolation")}
    return _told(frame["size"], views.uncropped(frame["size"], frame["crop"]), **how)


def _resized(image: Image, *, squash: bool) -> str:
    """What the model does by itself; `squash` is what it is called where both ways are the same."""
    height, width, _ = image.shape
    tall, wide = views.before_crop(height, width, size=image.size, crop=image.crop)
    same = height * wide == width * tall
    resize = "squash" if image.crop is None and (squash or not same) else "short_side"
    by = image.interpolation or "bilinear, not Pillow's"
    return _told(image.size, (tall, wide), resize=resize, interpolation=by)


def _told(
    size: tuple[int, int], resized: tuple[int, int], *, resize: str, interpolation: str
) -> str:
    cut = f", of which the centre of {_by(size)} is left"
    match resize:
        case "squash":
            return f"squeezed to {_by(resized)} ({interpolation})" + cut * (resized != size)
        case "pad":
            return f"padded to {_by(resized)} ({interpolation})" + cut * (resized != size)
    return f"resized to a short side of {min(resized)} ({interpolation}){cut}"


def _mend(wanted: weights.Preprocessing, image: Image, frame: Mapping[str, Any] | None) -> str:
    """What to set for the same."""
    if frame is not None:
        apart = {name: value for name, value in wanted.frame().items() if frame[name] != value}
        own = [f"config.data.source.{name}={_literal(value)}" for name, value in apart.items()]
        if not _is_left(image):
            own.append("the size of the stage likewise")
        return f"for the same set {', '.join(own)}"
    crop = None if wanted.squash else wanted.crop
    return (
        f"for the same set the size of the stage to {_literal(wanted.size)}, config.data.crop={crop} and "
        f"config.data.interpolation={wanted.interpolation}, of pictures that are as large"
    )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _literal(value: Any) -> str:
    return str([*value] if isinstance(value, tuple) else value)
