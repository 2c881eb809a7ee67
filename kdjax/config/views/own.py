"""A recipe of views of the user's."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from jaxtyping import Array, Key

from kdjax import spelling, views
from kdjax.config import held, own
from kdjax.config.views import Frame, Views
from kdjax.data import Dataset
from kdjax.inputs import Inputs
from kdjax.types import BadInput
from kdjax.views import draws

_EXAMPLE = "example"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnViews(own.Own, Views):
    """A recipe of views: `(key, image, *, size, ...) -> view`, pure, of one image; or of a whole example.

    Both are float32 from 0 to 1; `size` is the height and the width of the view, which is [height, width,
    channel], and is normalised as the data say. It may take `pixels_at`, the size that what is in pixels
    is given for, where that is another one, or None.

    If its second argument is called `example`, that is a whole one: raw arrays by field, padded where
    they are ragged. It gives those that it changes, by field, each in the shape and dtype that it had.
    """

    called_with: ClassVar[tuple[str, ...]] = ("key", "image")
    offered: ClassVar[tuple[str, ...]] = ("size", "pixels_at")

    @property
    def recipe(self) -> str:
        """What it is called in messages."""
        return self.function

    @property
    def is_of_examples(self) -> bool:
        """Whether it is given whole examples."""
        return [*inspect.signature(self.loaded).parameters][1:2] == [_EXAMPLE]

    def called_first_with(self, function: Callable[..., Any]) -> tuple[str, ...]:
        """The key, and an image or an example."""
        return ("key", _EXAMPLE) if self.is_of_examples else self.called_with

    def recipe_for(
        self, inputs: Inputs, *, meant_for: Inputs | None = None, examples: Dataset | None = None
    ) -> draws.Recipe:
        """See `Views`; of an example what the function gives of it is seen as in evaluation."""
        if not self.is_of_examples:
            if not inputs.images:
                raise BadInput(
                    "function",
                    f"{self.function} takes an image, and an example is {inputs}",
                    f"write it as (key, {_EXAMPLE}, *, ...)",
                )
            return super().recipe_for(inputs, meant_for=meant_for, examples=examples)
        function = self.made("function")

        def draw(key: Key[Array, ""], example: Mapping[str, Array]) -> dict[str, Array]:
            raw = {name: example[name] for name in inputs.fields}
            found = function(key, {**raw})
            self._check_changed(found, raw)
            held.check_pure(function, key, raw, field="function", said=self.function)
            return inputs.see({**raw, **found})

        return draw

    def _check_changed(self, found: Any, raw: Mapping[str, Array]) -> None:
        """Raises `BadInput` where they are not some of these arrays, changed."""
        if not isinstance(found, Mapping):
            raise BadInput(
                "function",
                f"{self.function} gave {own.shown(found)}",
                "a view of an example is a dict of the arrays that it changes, by field",
            )
        for name, array in found.items():
            if name not in raw:
                mend = spelling.suggestion(name, raw)
                raise BadInput(
                    "function", f"{self.function} gave {name!r}, which is no input", mend
                )
            one, wanted = own.shown(array), own.shown(raw[name])
            if one != wanted:
                mend = "give each array in the shape and dtype that it had"
                raise BadInput(
                    "function", f"{self.function} gave {name} as {one}, and it was {wanted}", mend
                )

    def transform(self, frame: Frame) -> views.Recipe:
        """The function, then normalisation.

        Raises:
          BadInput: as it is traced, where it gives no such view, or is not pure.
        """
        size, at = views.sides(frame.size), frame.pixels_at
        pixels_at = None if at is None else views.sides(at, name="pixels_at")
        function = self.made("function", size=size, pixels_at=pixels_at)

        def draw(key, image):
            given = (key, views.to_float(image))
            found = function(*given)
            wanted = (*size, image.shape[-1])
            if getattr(found, "shape", None) != wanted or found.dtype != "float32":
                raise BadInput(
                    "function",
                    f"{self.function} gave {own.shown(found)}",
                    f"a view is float32 {wanted}",
                )
            held.check_pure(function, *given, field="function", said=self.function)
            return views.normalize(found, mean=frame.mean, std=frame.std)

        return draw
