"""A self-supervised method of the user's."""

import dataclasses
from typing import ClassVar

from kdjax import ssl
from kdjax.config import own
from kdjax.config.methods import Method
from kdjax.types import BadInput


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnMethod(own.Own, Method):
    """A self-supervised method: `(trained, *, ...) -> kdjax.ssl.Method`, of two views of each example.

    `trained` is a `kdjax.ssl.Trained`: the model, its width, how it is run, and the steps of the stage.
    """

    called_with: ClassVar[tuple[str, ...]] = ("trained",)

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """What the function gives.

        Raises:
          BadInput: it gives no method.
        """
        found = self.made("method.function")(trained)
        if not isinstance(found, ssl.Method):
            raise BadInput(
                "method.function",
                f"{self.function} gave {own.shown(found)}, and no kdjax.ssl.Method",
            )
        return found
