"""What is learned from, and how it is looked at."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

from kdjax.config.fields import Count, NonNegative, Positive, Share, Text, aside
from kdjax.ranges import Ascending, AtLeast, In, Multiple

Size = Annotated[int, In("[1, 2^14]")]
"""Side of a view, in pixels."""

Pixels = Annotated[int, In("[0, 2^14]")]

Area = Annotated[float, In("(0, 1]")]

Scale = Annotated[tuple[Area, Area], Ascending(equal=True)]
"""Smallest and largest area of a crop, as parts of the image's."""

Ratio = Annotated[tuple[Positive, Positive], Ascending(equal=True)]
"""Smallest and largest width of a crop, as parts of its height."""

Channels = Annotated[tuple[float, ...], AtLeast(1)]
"""A number for each channel, or one for all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """Which training labels may be used: one of these at most, drawn by the seed and the ids alone.

    Fewer are a subset of more. In `data` none of them is for all labels; in a stage none is for those
    of `data`, and `labels_share=1.0` for all.

    Attributes:
      labels_per_class: how many of each class.
      labels_share: share of each class, and one at least: 0.01 is one percent.
    """

    labels_per_class: Count | None = None
    labels_share: Annotated[float, In("(0, 1]")] | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if self.labels_per_class is not None and self.labels_share is not None:
            yield (
                "labels_share, labels_per_class",
                "labels_per_class is given, too; give one of the two",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(Labels):
    """What is learned from, and what is tested on.

    Attributes:
      name: `digits` (embedded), or a prepared TFDS dataset: `cifar100`, `cifar100:3.0.2`.
      train_split: as TFDS writes it; `train[:90%]` to keep a part for choosing hyper-parameters.
      test_split: what the rows of the report are measured on.
      mean: of each channel, of pixels from 0 to 1; part of the model's preprocessing.
      std: likewise, the standard deviation.
      data_dir: where TFDS datasets are prepared; the environment's KDJAX_DATA_DIR by default. A
        local path, `~` expanded, or `gs://`.
      image_key, label_key, id_key: the features of a TFDS dataset.
      mode: `resident` keeps all examples on the device, `stream` reads them batch by batch; `auto`
        is resident up to `resident_bytes` of images.
    """

    name: Text
    train_split: Text = "train"
    test_split: Text = "test"
    mean: Channels = (0.0,)
    std: Annotated[tuple[Positive, ...], AtLeast(1)] = (1.0,)
    data_dir: Text | None = aside(None)
    image_key: Text = "image"
    label_key: Text = "label"
    id_key: Text = "id"
    mode: Literal["auto", "resident", "stream"] = aside("auto")
    resident_bytes: Annotated[int, In("[0, 2^60]")] = aside(2 * 2**30)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimCLRViews:
    """See `kdjax.views.simclr`; `size` is the side of a view, the image's own by default."""

    recipe: Literal["simclr"]
    size: Size | None = None
    crop_scale: Scale = (0.08, 1.0)
    crop_ratio: Ratio = (3 / 4, 4 / 3)
    flip: Share = 0.5
    shift: Pixels = 0
    brightness: NonNegative = 0.8
    contrast: NonNegative = 0.8
    saturation: NonNegative = 0.8
    hue: Annotated[float, In("[0, 0.5]")] = 0.2
    jitter: Share = 0.8
    grayscale: Share = 0.2
    blur: Share = 0.5
    blur_kernel: Annotated[int, In("[1, 223]"), Multiple(2, plus=1)] | None = None
    cutout: Pixels = 0
    turn: Annotated[float, In("[0, 180]")] = 0.0
    shear: Share = 0.0
    stretch: Annotated[float, In("[1, 4]")] = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropFlipViews:
    """See `kdjax.views.crop_flip`; `size` is the side of a view, the image's own by default."""

    recipe: Literal["crop_flip"]
    size: Size | None = None
    crop_scale: Scale | None = None
    crop_ratio: Ratio = (3 / 4, 4 / 3)
    shift: Pixels | None = None
    flip: Share = 0.5
    cutout: Pixels = 0
    turn: Annotated[float, In("[0, 180]")] = 0.0
    shear: Share = 0.0
    stretch: Annotated[float, In("[1, 4]")] = 1.0

    @property
    def shifted(self) -> int:
        """Largest shift in pixels: none where there is a `crop_scale`, and by default else 4."""
        return (0 if self.crop_scale else 4) if self.shift is None else self.shift


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalViews:
    """No augmentation: see `kdjax.views.eval_view`."""

    recipe: Literal["eval"]
    size: Size | None = None


Views = SimCLRViews | CropFlipViews | EvalViews


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixup:
    """See `kdjax.views.mixup`."""

    name: Literal["mixup"]
    alpha: Positive = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutMix:
    """See `kdjax.views.cutmix`."""

    name: Literal["cutmix"]
    alpha: Positive = 1.0


Mix = Mixup | CutMix
