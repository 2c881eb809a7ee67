"""What is chosen for a network and a set of pictures, by rules that can be read.

Everything follows from facts: of the pictures (`Pictures`), of the network (`Network`), and of how fast
this machine is (`Speed`). What comes of it is a config like any other (`stages`), which `kdjax compress`
writes out, and which is the place to know better.

The rules:

* Size. The network sees pictures at the size that it was trained at. Smaller pictures it sees at twice
  their size at most, in multiples of 32: the rest would be enlargement. The student sees small pictures
  (up to `SMALL` pixels) as they are, and larger ones at half the size that the network sees.
* Teacher. Without labels it is the network as it is. With labels it is a linear probe of the network's
  features, then trained as a whole, where `TEACHER` of the time has at least `LEAST_EPOCHS` epochs of the
  labelled pictures for it; otherwise the probe alone. Its BatchNorms keep their statistics, which the
  probe has seen: with those of a batch the first steps would undo it.
* Student. A ResNet-18, its width the smallest of `WIDTHS` whose int8 file is as large as the budget, or
  the largest (`Size`). What is over the budget is taken away after it has learned: units that it can best
  do without, and then it learns on.
* Views. The recipe for few labels (`kdjax.few_labels`), whose facts are found without a label.
* Time. `minutes` are shared: the teacher, its answers in a cache, the student, the shrunk student, and
  with labels the same network on the labels alone, for as many steps as the student.
* Bits. int8, but for the first layer and the last. The file is held against the model.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from kdjax import few_labels
from kdjax.compress.budget import Budget

SMALL = 64
"""Pixels of the shorter side up to which a student sees pictures as they are."""

WIDTHS = (8, 16, 24, 32, 48, 64)
"""Of a student's first stage."""

TEACHER, CACHE, STUDENT, SHRUNK, SCRATCH = 0.3, 0.2, 0.2, 0.1, 0.2
"""Shares of the time with labels; without, the others have those of the teacher and the labels alone."""

LEAST_EPOCHS = 3
"""Of the labelled pictures, below which a network is not trained as a whole."""

MOST_EPOCHS = {"teacher": 30, "student": 200}

MOST_VIEWS = 8

LEAST_STEPS = 100

MULTIPLE = 8
"""Channels of a shrunk student come in these: so ONNX Runtime lays them out."""

BATCH = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """What there is to learn from.

    Attributes:
      train: how many training pictures.
      test: how many test pictures.
      labelled: how many of the training pictures have a label.
      classes: how many there are; of the network's own where no picture has a label.
      side: the shorter side of most pictures, in pixels, as they are in their files.
      look: what the views follow from.
    """

    train: int
    test: int
    labelled: int
    classes: int
    side: int
    look: few_labels.Facts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """What one begins with.

    Attributes:
      encoder: its config, with the weights.
      params: of encoder and head.
      size: of the pictures that it was trained on, height and width.
      mean: that it wants subtracted from pixels in [0, 1].
      std: that it wants them divided by.
      crop: share of each side of a resized picture that it sees, where pictures are not small.
      interpolation: of the resizing, Pillow's.
      squash: it was trained on pictures that had given up their proportions.
      head: whether its own classifier is kept: without labels, and where the file has one.
      normalised: a pattern of the names of its BatchNorms' parameters; None where it has none.
    """

    encoder: Mapping[str, Any]
    params: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float
    interpolation: str
    squash: bool
    head: bool
    normalised: str | None = None


class Speed(NamedTuple):
    """Seconds an example of this machine.

    Attributes:
      teacher: the network's forward pass.
      teacher_step: a training step of the network.
      student: a training step of the student.
    """

    teacher: float
    teacher_step: float
    student: float


def seen(network: Network, pictures: Pictures) -> tuple[int, int]:
    """Height and width at which the network sees the pictures."""
    return _seen(network, pictures.side)


def _seen(network: Network, side: int) -> tuple[int, int]:
    most = 32 * max(1, math.ceil(2 * side / 32))
    return (min(network.size[0], most), min(network.size[1], most))


def stored(network: Network, side: int) -> tuple[int, int]:
    """Height and width in which pictures of this shorter side are read: never enlarged."""
    if side <= SMALL:
        return (side, side)
    height, width = _seen(network, side)
    return (min(height, side), min(width, side))


def frame(network: Network, size: tuple[int, int], side: int) -> dict[str, Any]:
    """How a picture is made into that size: as the network was trained, but for small ones.

    Nothing is cut off small pictures beyond their proportions.
    """
    resize = "squash" if network.squash else "short_side"
    crop = network.crop if side > SMALL and not network.squash else 1.0
    return {
        "size": [*size],
        "resize": resize,
        "crop": crop,
        "interpolation": network.interpolation,
        "channels": len(network.mean),
    }


def seen_by(network: Network, shape: tuple[int, int]) -> dict[str, Any]:
    """How arrays of pixels of this height and width are seen in evaluation: as `frame` has pictures.

    Small square ones are seen whole, as they are.
    """
    side = min(shape)
    if network.squash or (side <= SMALL and shape[0] == shape[1]):
        return {}
    crop = network.crop if side > SMALL else 1.0
    return {"crop": crop, "interpolation": network.interpolation}


def student_size(network: Network, pictures: Pictures) -> tuple[int, int]:
    """Height and width at which the student sees the pictures."""
    if pictures.side <= SMALL:
        return stored(network, pictures.side)
    height, width = seen(network, pictures)
    return (max(32, height // 2), max(32, width // 2))


def student(width: int, pictures: Pictures) -> dict[str, Any]:
    """The student of a width; its stem halves pictures that are not small."""
    large = {"imagenet_stem": True} if pictures.side > SMALL else {}
    return {"name": "resnet18", "width": width, **large}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """Of a student's int8 file: what of it goes with the width, and what with its square.

    Attributes:
      inner: weights of the layers that become int8.
      edges: weights of the first layer and the last, which stay in float32.
      others: parameters that are no weights: scales and biases, one or more a channel.
      layers: how many there are.
      channels: that they give, all together.
    """

    inner: int
    edges: int
    others: int
    layers: int
    channels: int

    @property
    def params(self) -> int:
        """All of them."""
        return self.inner + self.edges + self.others

    def file(self, scale: float = 1.0) -> float:
        """Bytes of the file where all widths are multiplied by `scale`."""
        edges = 4 * self.edges + A_CHANNEL * self.channels
        return self.inner * scale**2 + edges * scale + A_LAYER * self.layers

    def params_within(self, most: float) -> int:
        """How many parameters are left where the file has so many bytes at most; 0 where none fits."""
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if self.file(middle) <= most else (low, middle)
        return int(self.inner * low**2 + (self.edges + self.others) * low)


A_LAYER, A_CHANNEL = 1550, 20
"""Bytes of an int8 ONNX file beside its weights: nodes, scales, biases. Of ten students (five widths, two
sizes of pictures) the files had 0 to 3 % less than `Size.file` says."""


def width_of(most: float, sizes: Mapping[int, Size]) -> int:
    """The smallest width whose file is as large as the most that it may be, or the largest.

    Args:
      most: bytes.
      sizes: of the student, by width.
    """
    return next((w for w in sorted(sizes) if sizes[w].file() >= most), max(sizes))


class Effort(NamedTuple):
    """What the time is enough for.

    Attributes:
      teacher: steps of the whole network on the labels; 0 for the probe alone, or without labels.
      views: of each picture in the cache.
      student: steps, as many as the labels alone get.
      shrunk: steps.
    """

    teacher: int
    views: int
    student: int
    shrunk: int


def effort(pictures: Pictures, speed: Speed, *, minutes: float) -> Effort:
    """How the time is shared, see above."""
    shares = {"teacher": TEACHER, "cache": CACHE, "student": STUDENT, "shrunk": SHRUNK}
    if not pictures.labelled:
        left = 1 - TEACHER - SCRATCH
        shares = {"teacher": 0.0, **{n: shares[n] / left for n in ("cache", "student", "shrunk")}}
    seconds = {name: 60 * minutes * share for name, share in shares.items()}
    size = batch(pictures)
    teacher, epochs = 0, 0.0
    if pictures.labelled:
        epochs = seconds["teacher"] / (speed.teacher_step * pictures.labelled)
    if epochs >= LEAST_EPOCHS:
        epochs = min(epochs, MOST_EPOCHS["teacher"])
        teacher = max(1, round(epochs * pictures.labelled / size))
    most = math.ceil(MOST_EPOCHS["student"] * pictures.train / size)

    def steps(stage: str) -> int:
        found = round(seconds[stage] / (speed.student * size))
        return min(max(LEAST_STEPS, found), max(LEAST_STEPS, most))

    views = round(seconds["cache"] / (speed.teacher * pictures.train))
    return Effort(teacher, min(max(1, views), MOST_VIEWS), steps("student"), steps("shrunk"))


def batch(pictures: Pictures) -> int:
    """Pictures of a step: at most `BATCH`, and a quarter of all, so that an epoch has a few steps."""
    return max(1, min(BATCH, 2 ** int(math.log2(max(1, pictures.train / 4)))))


def _training(steps: int, *, batch: int, rate: float) -> dict[str, Any]:
    return few_labels.training(
        steps,
        batch=batch,
        rate=rate,
        warmup=min(50, steps // 4),
        log_every=max(1, min(50, steps // 10)),
    )


def stages(
    network: Network,
    pictures: Pictures,
    effort: Effort,
    *,
    width: int,
    budget: Budget,
    params: int | None,
) -> dict[str, Any]:
    """The stages by name, for a config.

    Args:
      network: that one begins with.
      pictures: to learn from.
      effort: see there.
      width: of the student.
      budget: of the file.
      params: that a file of its bytes holds; None where the student has no more, and nothing is shrunk,
        and of a budget in milliseconds.
    """
    size = batch(pictures)
    small = list(student_size(network, pictures))
    net, labelled = student(width, pictures), bool(pictures.labelled)
    learns = {
        "kind": "distill",
        "cache": "cache",
        "size": small,
        **({"temperature": 2.0} if labelled or network.head else {}),
        **({} if labelled else {"kd_weight": 1.0, "ce_weight": 0.0}),
    }
    line = {
        **_taught_by(network, pictures, effort),
        "student": {**learns, "encoder": net, **_training(effort.student, batch=size, rate=3e-3)},
    }
    last = "student"
    if budget.kind == "ms" or params is not None:
        limit = {"latency_ms": budget.value} if budget.kind == "ms" else {"params": params}
        line["shrunk"] = {
            "kind": "shrink",
            "model": last,
            "budget": limit,
            "multiple": MULTIPLE,
            "examples": min(1024, pictures.train),
        }
        line["small"] = {
            **learns,
            "start_from": "shrunk",
            **_training(effort.shrunk, batch=size, rate=1e-3),
        }
        last = "small"
    if labelled:
        line["scratch"] = {
            "kind": "finetune",
            "encoder": net,
            "views": {**few_labels.views(pictures.look)["label"], "size": small},
            **_training(effort.student, batch=min(size, pictures.labelled), rate=3e-3),
        }
    alike = {"agreement": required_agreement(pictures.test)}
    line["int8"] = {
        "kind": "quantize",
        "model": last,
        **alike,
    }
    line["float_file"] = {"kind": "export", "model": last, "formats": ["onnx"]}
    line["file"] = {"kind": "export", "model": "int8", "formats": ["onnx"], **alike}
    return line


def required_agreement(test: int) -> float:
    """How often int8 must answer as float does, below which it is refused: less often of few pictures."""
    return round(max(0.5, 0.95 - 1 / math.sqrt(test)), 3)


def _taught_by(network: Network, pictures: Pictures, effort: Effort) -> dict[str, Any]:
    """The network, the teacher that is made of it, and its answers."""
    views, large = few_labels.views(pictures.look), list(seen(network, pictures))
    published = {"kind": "pretrained", "encoder": {**network.encoder}, "size": large}
    size = batch(pictures)
    line: dict[str, Any] = {"network": published} if pictures.labelled else {"teacher": published}
    if pictures.labelled:
        line["teacher"] = {
            "kind": "finetune",
            "start_from": "network",
            "head": "probe",
            "views": {**views["label"], "size": large},
            **_training(max(1, effort.teacher), batch=min(size, pictures.labelled), rate=1e-4),
        }
        if not effort.teacher:
            line["teacher"]["optimizer"] = {"name": "frozen"}
        elif network.normalised is not None:
            line["teacher"]["optimizer"]["frozen"] = network.normalised
    line["cache"] = {
        "kind": "cache",
        "teacher": "teacher",
        "recipe": {**views["student"], "size": large},
        "views": effort.views,
        "batch": min(64, size),
    }
    return line


def shared_evenly(stages: Mapping[str, Mapping[str, Any]], devices: int) -> bool:
    """Whether every batch can be shared by all devices; of few pictures it may not."""
    return all(stage.get("batch", devices) % devices == 0 for stage in stages.values())
