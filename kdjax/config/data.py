"""What is learned from, and how it is looked at."""

import dataclasses
from typing import Literal

from kdjax.config.fields import aside


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """Which training labels may be used: one of these at most, drawn by the seed and the ids alone.

    Fewer are a subset of more. In `data` none of them is for all labels; in a stage none is for those
    of `data`, and `labels_share=1.0` for all.

    Attributes:
      labels_per_class: how many of each class.
      labels_share: share of each class, in (0, 1], and one at least: 0.01 is one percent.
    """

    labels_per_class: int | None = None
    labels_share: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(Labels):
    """What is learned from, and what is tested on.

    Attributes:
      name: `digits` (embedded), or a prepared TFDS dataset: `cifar100`, `cifar100:3.0.2`.
      train_split: as TFDS writes it; `train[:90%]` to keep a part for choosing hyper-parameters.
      test_split: what the rows of the report are measured on.
      mean: of each channel, of pixels in [0, 1]; part of the model's preprocessing.
      std: likewise, the standard deviation.
      data_dir: where TFDS datasets are prepared; the environment's KDJAX_DATA_DIR by default. A
        local path, `~` expanded, or `gs://`.
      image_key, label_key, id_key: the features of a TFDS dataset.
      mode: `resident` keeps all examples on the device, `stream` reads them batch by batch; `auto`
        is resident up to `resident_bytes` of images.
    """

    name: str
    train_split: str = "train"
    test_split: str = "test"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    data_dir: str | None = aside(None)
    image_key: str = "image"
    label_key: str = "label"
    id_key: str = "id"
    mode: Literal["auto", "resident", "stream"] = aside("auto")
    resident_bytes: int = aside(2 * 2**30)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimCLRViews:
    """See `kdjax.views.simclr`; `size` is the side of a view, the image's own by default."""

    recipe: Literal["simclr"]
    size: int | None = None
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    shift: int = 0
    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2
    jitter: float = 0.8
    grayscale: float = 0.2
    blur: float = 0.5
    blur_kernel: int | None = None
    cutout: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropFlipViews:
    """See `kdjax.views.crop_flip`; `size` is the side of a view, the image's own by default."""

    recipe: Literal["crop_flip"]
    size: int | None = None
    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    shift: int = 4
    flip: float = 0.5
    cutout: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalViews:
    """No augmentation: see `kdjax.views.eval_view`."""

    recipe: Literal["eval"]
    size: int | None = None


Views = SimCLRViews | CropFlipViews | EvalViews


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixup:
    """See `kdjax.views.mixup`."""

    name: Literal["mixup"]
    alpha: float = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutMix:
    """See `kdjax.views.cutmix`."""

    name: Literal["cutmix"]
    alpha: float = 1.0


Mix = Mixup | CutMix
