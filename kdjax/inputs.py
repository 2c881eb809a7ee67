"""What a model is given: which arrays of an example, and how they are made ready for it.

A dataset says which arrays its examples have (`kdjax.types.Fields`). A model has a part for each of
them: it says what a file of the model takes, what the model is initialised on, and what the model sees
of an example where nothing is augmented. Another kind of input is another class here, and in the union.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from kdjax import views
from kdjax.types import BadInput, Field, Fields, Interpolation, length_field, length_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """Raw pixels, which the model sees normalised, and at a size of its own.

    Attributes:
      field: its name in the dataset.
      shape: height, width and channels of a raw image, uint8.
      size: height and width that the model sees, in pixels.
      mean: subtracted from pixels in [0, 1]: one number, or one a channel.
      std: divided by, likewise.
      crop: the short side of what the model sees, as a part of that of the image, which is resized to it
        in its own shape before the centre is cut out; None squeezes all of it into `size`.
      interpolation: of the resizing: Pillow's, or None for `kdjax.views.resize`.
    """

    kind: Literal["image"] = "image"
    field: str
    shape: tuple[int, int, int]
    size: tuple[int, int]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    crop: float | None = None
    interpolation: Interpolation | None = None

    @property
    def raw(self) -> Field:
        """What a dataset has of it, and a file takes."""
        return Field(self.shape, "uint8")

    @property
    def seen(self) -> Field:
        """What the model is given."""
        return Field((*self.size, self.shape[-1]), "float32")

    def see(self, image: Array) -> Array:
        """One raw image as the model sees it in evaluation, see `kdjax.views.eval_view`."""
        return views.eval_view(
            image,
            size=self.size,
            crop=self.crop,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbers:
    """Numbers that the model is given as they are: tokens, measurements.

    Attributes:
      field: its name in the dataset.
      shape: of one example.
      dtype: of the numbers.
      below: see `Field`.
      ragged: likewise.
      mask: likewise.
      frame: likewise.
      shortest: likewise.
      rate: likewise.
    """

    kind: Literal["numbers"] = "numbers"
    field: str
    shape: tuple[int, ...]
    dtype: str
    below: int | None = None
    ragged: bool = False
    mask: int | None = None
    frame: tuple[int, ...] = ()
    shortest: int = 1
    rate: int | None = dataclasses.field(default=None, compare=False)

    @property
    def raw(self) -> Field:
        """What a dataset has of it, and a file takes."""
        return Field(
            self.shape,
            self.dtype,
            self.below,
            ragged=self.ragged,
            mask=self.mask,
            frame=self.frame,
            shortest=self.shortest,
            rate=self.rate,
        )

    @property
    def seen(self) -> Field:
        """What the model is given."""
        return self.raw

    def see(self, array: Array) -> Array:
        """As it is."""
        return array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Length:
    """How long the example is in a ragged field, for the model to tell it from its padding.

    Attributes:
      field: its name in the dataset.
      most: the length of the longest.
      least: that of the shortest.
    """

    kind: Literal["length"] = "length"
    field: str
    most: int
    least: int = 1

    @property
    def raw(self) -> Field:
        """What a dataset has of it, and a file takes."""
        return length_field(self.most, self.least)

    @property
    def seen(self) -> Field:
        """What the model is given."""
        return self.raw

    def see(self, array: Array) -> Array:
        """As it is."""
        return array


Part: TypeAlias = Image | Numbers | Length


@dataclasses.dataclass(frozen=True)
class Inputs:
    """All that a model is given of an example, as data in its manifest.

    Attributes:
      parts: one for each array, in the order in which a file takes them.
    """

    parts: tuple[Part, ...]

    @classmethod
    def of(
        cls,
        fields: Fields,
        *,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        crop: float | None = None,
        interpolation: Interpolation | None = None,
    ) -> "Inputs":
        """Those of a dataset: pixels of three axes in uint8 are an image, all else is given as it is.

        An image is seen in its own height and width.

        Args:
          fields: of the dataset.
          mean: of images, see `Image`.
          std: likewise.
          crop: likewise.
          interpolation: likewise.
        """

        def part(name: str, field: Field) -> Part:
            if field.dtype == "uint8" and len(field.shape) == 3 and not field.ragged:
                height, width, channels = field.shape
                return Image(
                    field=name,
                    shape=(height, width, channels),
                    size=(height, width),
                    mean=mean,
                    std=std,
                    crop=crop,
                    interpolation=interpolation,
                )
            if name in lengths:
                return Length(field=name, most=lengths[name].shape[0], least=lengths[name].shortest)
            return Numbers(
                field=name,
                shape=field.shape,
                dtype=field.dtype,
                below=field.below,
                ragged=field.ragged,
                mask=field.mask,
                frame=field.frame,
                shortest=field.shortest,
                rate=field.rate,
            )

        lengths = {length_of(name): f for name, f in fields.items() if f.ragged}
        return cls(tuple(part(name, field) for name, field in fields.items()))

    def of_fields(self, fields: Fields) -> "Inputs":
        """The same with the integers, and the rates, that these fields of a dataset have."""
        parts = (
            dataclasses.replace(
                part,
                below=fields[part.field].below,
                mask=fields[part.field].mask,
                frame=fields[part.field].frame,
                rate=fields[part.field].rate,
            )
            if isinstance(part, Numbers)
            else part
            for part in self.parts
        )
        return Inputs(tuple(parts))

    def from_length(self, shortest: int) -> "Inputs":
        """The same where no example is shorter in its ragged parts, or than they may be at most."""

        def longer(part: Part) -> Part:
            match part:
                case Numbers(ragged=True):
                    return dataclasses.replace(part, shortest=min(shortest, part.shape[0]))
                case Length():
                    return dataclasses.replace(part, least=min(shortest, part.most))
            return part

        return Inputs(tuple(map(longer, self.parts)))

    @property
    def images(self) -> tuple[Image, ...]:
        """The parts that are images."""
        return tuple(part for part in self.parts if isinstance(part, Image))

    @property
    def symbols(self) -> tuple[str, ...]:
        """The fields whose integers stand for something each, one behind the other: tokens."""
        return tuple(
            part.field
            for part in self.parts
            if isinstance(part, Numbers) and part.below is not None and len(part.shape) == 1
        )

    @property
    def sounds(self) -> tuple[Numbers, ...]:
        """The parts that are sound: 16-bit samples, one behind the other."""
        return tuple(
            part
            for part in self.parts
            if isinstance(part, Numbers) and part.dtype == "int16" and len(part.shape) == 1
        )

    @property
    def ragged(self) -> tuple[Numbers, ...]:
        """The parts in which examples differ in length."""
        return tuple(part for part in self.parts if isinstance(part, Numbers) and part.ragged)

    def seconds(self, batch: Mapping[str, Any]) -> float | None:
        """How long the examples of a raw batch last together, without their padding.

        None where no part has a rate; of several that have one, the first counts.
        """
        for part in self.parts:
            if isinstance(part, Numbers) and part.rate is not None:
                rows, width = np.shape(batch[part.field])[:2]
                long = batch[length_of(part.field)] if part.ragged else [width] * rows
                return float(np.sum(long, dtype=np.int64)) / part.rate
        return None

    def where(self, seen: Mapping[str, Array]) -> Bool[Array, "batch position"] | None:
        """Which positions of a batch, as the model is given it, are no padding; None where there is none.

        Of examples that differ in length in several parts there is no such answer: None.
        """
        if len(self.ragged) != 1:
            return None
        (part,) = self.ragged
        places = jnp.arange(seen[part.field].shape[1])
        return jnp.expand_dims(places, 0) < seen[length_of(part.field)][:, None]

    def only_image(self, what: str) -> Image:
        """The image, where an example is nothing else.

        Raises:
          BadInput: it is another thing; the line begins with `what`, which asks for an image.
        """
        if len(self.parts) != 1 or not self.images:
            raise BadInput("", f"{what} is one of images, and an example is {self}", "take another")
        return self.images[0]

    @property
    def fields(self) -> dict[str, Field]:
        """What a dataset has, and a file takes, of one example."""
        return {part.field: part.raw for part in self.parts}

    def faults(self) -> Iterator[tuple[str, str]]:
        """`(field, fault)` of numbers of channels that are neither one nor as many as there are."""
        for image in self.images:
            channels = image.shape[-1]
            for name, values in (("mean", image.mean), ("std", image.std)):
                if len(values) not in (1, channels):
                    yield (
                        name,
                        f"{len(values)} numbers for images of {channels} channels; give "
                        f"{'1' if channels == 1 else f'1 or {channels}'}",
                    )

    def sized(self, size: views.Size | None) -> "Inputs":
        """The same where images are seen at another size.

        Args:
          size: height and width in pixels, or the side of a square; None leaves theirs.

        Raises:
          BadInput: there is no image.
        """
        if size is None:
            return self
        if not self.images:
            raise BadInput("size", f"{size}, and there is no image among {', '.join(self.fields)}")
        seen = views.sides(size)
        parts = (
            dataclasses.replace(part, size=seen) if isinstance(part, Image) else part
            for part in self.parts
        )
        return Inputs(tuple(parts))

    def blank(self, rows: int = 1) -> dict[str, Array]:
        """A batch of so many examples as the model is given it, all zeros, and as long as may be."""
        return {
            part.field: jnp.full(
                (rows, *part.seen.shape),
                part.most if isinstance(part, Length) else 0,
                part.seen.dtype,
            )
            for part in self.parts
        }

    def see(self, example: Mapping[str, Any]) -> dict[str, Array]:
        """One raw example as the model is given it in evaluation."""
        return {part.field: part.see(example[part.field]) for part in self.parts}

    def see_all(self, batch: Mapping[str, Any]) -> dict[str, Array]:
        """A batch of raw examples likewise."""
        return jax.vmap(self.see)({part.field: batch[part.field] for part in self.parts})

    def __str__(self) -> str:
        """In words, for messages: `image of 8 x 8 pixels`."""

        def said(part: Part) -> str:
            match part:
                case Image():
                    height, width = part.size
                    return f"{part.field} of {height} x {width} pixels"
                case Numbers():
                    most = " at most" if part.ragged else ""
                    return f"{part.field} of {part.dtype}{list(part.shape)}{most}"
                case Length():
                    return f"{part.field} up to {part.most}"

        return ", ".join(map(said, self.parts))
