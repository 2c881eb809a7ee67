"""What is done to a view and that of another example."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Array, Key

from kdjax import views
from kdjax.choice import Choice
from kdjax.config.fields import Positive
from kdjax.inputs import Inputs

Both = Callable[..., tuple[dict[str, Array], Array]]
"""`(key, view, view of the partner) -> (mixed, weight)`, views by field."""


class Mix(Choice, abc.ABC):
    """How two views become one."""

    if TYPE_CHECKING:
        name: Any

    @abc.abstractmethod
    def mixed(self) -> views.Mix:
        """`(key, view, view of the partner) -> (mixed, weight)`, of images."""

    def both(self, inputs: Inputs) -> Both:
        """The same, of all that a model is given of two examples.

        Raises:
          BadInput: an example is not one image.
        """
        of_images, name = self.mixed(), inputs.only_image(f"mix: {self.name}").field

        def mixed(key: Key[Array, ""], own: Mapping[str, Array], other: Mapping[str, Array]):
            image, weight = of_images(key, own[name], other[name])
            return {name: image}, weight

        return mixed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixup(Mix):
    """See `kdjax.views.mixup`."""

    name: Literal["mixup"]
    alpha: Positive = 0.2

    def mixed(self) -> views.Mix:
        """See `kdjax.views.mixup`."""
        return functools.partial(views.mixup, alpha=self.alpha)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutMix(Mix):
    """See `kdjax.views.cutmix`."""

    name: Literal["cutmix"]
    alpha: Positive = 1.0

    def mixed(self) -> views.Mix:
        """See `kdjax.views.cutmix`."""
        return functools.partial(views.cutmix, alpha=self.alpha)
