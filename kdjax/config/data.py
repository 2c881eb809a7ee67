"""What is learned from."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from kdjax.config.asked import Asked
from kdjax.config.fields import Count, Positive, Text, untracked
from kdjax.config.sources import Source
from kdjax.ranges import AtLeast, In
from kdjax.types import Fault, Interpolation

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

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if self.labels_per_class is not None and self.labels_share is not None:
            yield (
                "labels_share, labels_per_class",
                "labels_per_class is given, too",
                "give one of the two",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(Labels):
    """What is learned from, and what is tested on.

    Attributes:
      name: `digits` (embedded), or a prepared TFDS dataset: `cifar100`, `cifar100:3.0.2`; with a
        `source`, what the report calls it.
      source: one's own pictures or arrays, told by their `kind`, or a function that reads them, in the
        place of these.
      target: what models are asked of a source none of whose examples has a label: what their teacher
        answers. It has labels, so to speak, and all of them are hidden.
      train_split: as TFDS writes it; `train[:90%]` to keep a part for choosing hyper-parameters.
      test_split: what the rows of the report are measured on.
      mean: of each channel, of pixels from 0 to 1; part of the model's preprocessing.
      std: likewise, the standard deviation.
      crop: of evaluation, where a model sees images at another size: the short side of what it sees as a
        part of that of the image, which is resized in its own shape before the centre is cut out. 0.875
        is 224 of 256 pixels. None: all of an image, squeezed. Views that augment cut out by themselves.
      interpolation: of that resizing: Pillow's, to the bit, as published networks are evaluated; None
        for one that is bilinear, antialiased, and has 16 levels for each of 8 bits.
      data_dir: where TFDS datasets are prepared; the environment's KDJAX_DATA_DIR by default. A
        local path, `~` expanded, or `gs://`.
      image_key, label_key, id_key: the features of a TFDS dataset.
      mode: `resident` keeps all examples on the device, `stream` reads them batch by batch; `auto`
        is resident up to `resident_bytes` of examples.
      buckets: of inputs whose examples differ in length, to which lengths batches are padded, such as
        `{"tokens": (32, 64, 96)}`: examples of like length come together, each batch is padded to the
        shortest of these that holds it, or else to the longest that there may be, and a step is
        compiled for each. Test examples and those of a cache are asked so, too. Without, all are padded
        to the longest. Such examples are read batch by batch, and one step is dispatched at a time where
        `dispatch_steps` does not say otherwise.
    """

    name: Text
    source: Source | None = None
    target: Asked | None = None
    train_split: Text = "train"
    test_split: Text = "test"
    mean: Channels = (0.0,)
    std: Annotated[tuple[Positive, ...], AtLeast(1)] = (1.0,)
    crop: Annotated[float, In("(0, 1]")] | None = None
    interpolation: Interpolation | None = None
    data_dir: Text | None = untracked(None)
    image_key: Text = "image"
    label_key: Text = "label"
    id_key: Text = "id"
    mode: Literal["auto", "resident", "stream"] = untracked("auto")
    resident_bytes: Annotated[int, In("[0, 2^60]")] = untracked(2 * 2**30)
    buckets: Mapping[str, Annotated[tuple[Count, ...], AtLeast(1)]] = dataclasses.field(
        default_factory=dict
    )

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from super().faults()
        if self.target is not None and self.source is None:
            yield "target", "it goes with a source", "leave it out"
        for field, ends in self.buckets.items():
            if list(ends) != sorted(set(ends)):
                yield (
                    f"buckets.{field}",
                    f"{list(ends)} do not rise; give each once, the least first",
                )
        if self.buckets and self.mode == "resident":
            yield (
                "mode, buckets",
                "examples put together by length are streamed; leave one of them out",
            )
