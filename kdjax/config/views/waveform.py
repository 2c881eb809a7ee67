"""Views of sound."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from jaxtyping import Array, Key

from kdjax import views
from kdjax.config.fields import Natural, NonNegative
from kdjax.config.views import Frame, Lengths, Views
from kdjax.inputs import Inputs
from kdjax.ranges import In
from kdjax.types import BadInput, Fault, length_of
from kdjax.views import draws


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
    """

    recipe: Literal["waveform"]
    shift: Natural = 0
    speed: Annotated[float, In("[1, 4]")] = 1.0
    gain: NonNegative = 0.0
    noise: Annotated[float, In("[-30, 120]")] | None = None
    time_mask: Natural = 0
    band_mask: Annotated[float, In("[0, 1)")] = 0.0

    @property
    def moves(self) -> bool:
        """Whether what is at one position may be at another one in a view."""
        return self.shift > 0 or self.speed > 1.0

    def transform(self, frame: Frame) -> views.Recipe:
        """There is none of an image."""
        raise BadInput("recipe", "waveform is a recipe of sound", "take one of images")

    def recipe_for(self, inputs: Inputs, *, meant_for: Inputs | None = None) -> draws.Recipe:
        """How a view of an example is drawn: what it has of sound is augmented, all else is as it is.

        Args:
          inputs: of the model that sees the view.
          meant_for: makes no difference: samples are the same for all.

        Raises:
          BadInput: there is no sound.
        """
        if not inputs.sounds:
            raise BadInput(
                "recipe", f"waveform is one of sound, and an example is {inputs}", "take another"
            )
        numbers = self.numbers()

        def draw(key: Key[Array, ""], example: Mapping[str, Array]) -> dict[str, Array]:
            seen = inputs.see(example)
            for part in inputs.sounds:
                audio = seen[part.field]
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
