"""Views of sound."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Array, Int16, Key

from kdjax import views
from kdjax.config.fields import Natural
from kdjax.config.views import Frame, Lengths, Views
from kdjax.data import Dataset
from kdjax.inputs import Inputs
from kdjax.ranges import In
from kdjax.types import BadInput, Fault, length_of, under
from kdjax.views import draws

Ratio = Annotated[float, In("[-30, 120]")]
"""Of signal to noise, in decibels."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pauses:
    """Noise from the pauses of the training recordings; see `kdjax.views.pauses` for what a pause is.

    They are looked for in the order of ids, in 4,096 recordings at most, until there are 20 seconds.

    Attributes:
      noise: the least ratio of signal to noise; it is drawn up to 30 decibels above.
      below: decibels between the loudest 20 ms of a recording and what is a pause.
      shortest: seconds of a pause.
    """

    noise: Ratio
    below: Annotated[float, In("[3, 90]")] = 30.0
    shortest: Annotated[float, In("[0.02, 10]")] = 0.1

    def of(self, examples: Dataset | None, field: str) -> views.Pauses:
        """The noise of these examples.

        Args:
          examples: all training examples.
          field: that has the samples.

        Raises:
          BadInput: there are none, or they do not say their rate, or have no pause.
        """
        if examples is None:
            raise BadInput("", "they are of training recordings, and there are none here", _LEAVE)
        rate = examples.fields[field].rate
        if rate is None:
            fault = f"{field} of {examples.name} does not say its rate"
            raise BadInput("", fault, "give from_fields(..., rates={...}), or leave it out")
        noise = views.pauses(
            _heard(examples, field), rate=rate, below=self.below, shortest=self.shortest
        )
        if not len(noise):
            raise BadInput(
                "below",
                f"{examples.name} has no pause of {self.shortest:g} s that is {self.below:g} dB below "
                "its recording and no digital silence",
                "give less, or a shorter one",
            )
        return views.Pauses(noise, self.noise)


_LEAVE = "leave it out"
_MOST, _AT_ONCE = 4096, 64


def _heard(examples: Dataset, field: str) -> Iterator[Int16[np.ndarray, " _"]]:
    """Samples of recordings without their padding, in the order of ids."""
    order = np.argsort(examples.ids)[:_MOST]
    for begin in range(0, len(order), _AT_ONCE):
        rows = order[begin : begin + _AT_ONCE]
        audio = examples.read(rows)[field]
        lengths = examples.lengths.get(field)
        for i, row in enumerate(rows):
            yield audio[i] if lengths is None else audio[i, : lengths[row]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WaveformViews(Views):
    """Sound that is moved, played faster or slower, masked, louder or softer: see `kdjax.views.waveform`.

    Attributes:
      shift: samples that it is moved by at most.
      speed: played so many times as fast at most, and as slow; a recording of its own length is shorter
        then, or longer.
      gain: decibels that it is louder or softer by at most.
      noise: the least ratio of signal to noise, in decibels; None for no noise.
      time_mask: samples that are silenced at most, in one piece.
      band_mask: share of the octaves that is taken out at most, in one band.
      pauses: noise from the pauses of the training recordings; None for none.
    """

    recipe: Literal["waveform"]
    shift: Natural = 0
    speed: Annotated[float, In("[1, 4]")] = 1.0
    gain: Annotated[float, In("[0, 120]")] = 0.0
    noise: Ratio | None = None
    time_mask: Natural = 0
    band_mask: Annotated[float, In("[0, 1)")] = 0.0
    pauses: Pauses | None = None

    @property
    def moves(self) -> bool:
        """Whether what is at one position may be at another one in a view."""
        return self.shift > 0 or self.speed > 1.0

    def transform(self, frame: Frame) -> views.Recipe:
        """There is none of an image."""
        raise BadInput("recipe", "waveform is a recipe of sound", "take one of images")

    def recipe_for(
        self, inputs: Inputs, *, meant_for: Inputs | None = None, examples: Dataset | None = None
    ) -> draws.Recipe:
        """How a view of an example is drawn: what it has of sound is augmented, all else is as it is.

        Args:
          inputs: of the model that sees the view.
          meant_for: makes no difference: samples are the same for all.
          examples: all training examples, whose pauses are mixed in where that is asked for.

        Raises:
          BadInput: there is no sound, or no pause that could be mixed in.
        """
        if not inputs.sounds:
            raise BadInput(
                "recipe", f"waveform is one of sound, and an example is {inputs}", "take another"
            )
        numbers = {name: value for name, value in self.numbers().items() if name != "pauses"}
        of_field = {part.field: numbers for part in inputs.sounds}
        if self.pauses is not None:
            with under("pauses"):
                of_field = {
                    name: {**own, "pauses": self.pauses.of(examples, name)}
                    for name, own in of_field.items()
                }

        def draw(key: Key[Array, ""], example: Mapping[str, Array]) -> dict[str, Array]:
            seen = inputs.see(example)
            for part in inputs.sounds:
                audio, numbers = seen[part.field], of_field[part.field]
                if not part.ragged:
                    seen[part.field] = views.waveform(key, audio, **numbers)
                    continue
                at, longest = length_of(part.field), part.shape[0]
                seen[part.field], seen[at] = views.ragged_waveform(
                    key, audio, seen[at], longest=longest, **numbers
                )
            return seen

        return draw

    def shortest(self, lengths: Lengths, inputs: Inputs) -> Lengths:
        """See `Views`: recordings are played faster."""
        sounds = {part.field for part in inputs.sounds}
        return {
            field: views.shortest(own, speed=self.speed) if field in sounds else own
            for field, own in lengths.items()
        }

    def too_large(self, inputs: Inputs) -> Iterator[Fault]:
        """`(field, fault)` of what would leave nothing of a view."""
        for part in inputs.sounds:
            for name in ("shift", "time_mask"):
                if (most := getattr(self, name)) >= part.shape[0]:
                    yield (
                        name,
                        f"{most} samples leave nothing of a recording of {part.shape[0]}",
                        "give fewer",
                    )

    def unread(self) -> Iterator[tuple[str, str]]:
        """`(field, why)` of fields that nothing reads beside the others."""
        if self.size is not None:
            yield "size", "sound has none"
