"""An encoder of the user's."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn

from kdjax import models
from kdjax.config import own
from kdjax.config.encoders import Encoder
from kdjax.models import Compute
from kdjax.types import BadInput


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnEncoder(own.Own, Encoder):
    """A linen module, or a function that makes one: `(image, *, train) -> features` [batch, dim].

    It may take `compute`, see `kdjax.models.Compute`, whose dtype it runs in then, and otherwise in
    float32. Its BatchNorms are synchronised, and folded, whether it does so itself or not.
    """

    offered: ClassVar[tuple[str, ...]] = ("compute",)
    shaped_by: ClassVar[str | None] = "function"

    @property
    def title(self) -> str:
        """The name of the function, and its arguments."""

        def written(value: Any) -> str:
            return "-".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

        return "-".join([self.name, *(f"{n}{written(v)}" for n, v in self.arguments.items())])

    def module(self, compute: Compute) -> nn.Module:
        """What the function makes.

        Raises:
          BadInput: it makes no module.
        """
        made = self.made("encoder.function", compute=compute)()
        if not isinstance(made, nn.Module):
            raise BadInput(
                "encoder.function", f"{self.function} gave {own.shown(made)}, and no linen module"
            )
        # Neither changes a module that has seen to it by itself.
        if compute.folded:
            return models.Folded(made)
        return made if compute.axis_name is None else models.Synced(made, compute.axis_name)
