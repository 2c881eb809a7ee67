"""A self-supervised method of the user's."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from kdjax import ssl, train
from kdjax.config import held, own
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
          BadInput: it gives no method, or one of other things than `kdjax.ssl.Method` has; as it is
            traced, where a term gives no losses, or is not pure.
        """
        field = "method.function"
        found = self.made(field)(trained)
        if not isinstance(found, ssl.Method):
            raise BadInput(
                field, f"{self.function} gave {own.shown(found)}, and no kdjax.ssl.Method"
            )
        fault = own.misfit(found.forward, "params", "state", "batch", "key")
        if fault is not None:
            raise BadInput(field, f"forward of {self.function}: {fault}")
        terms: dict[str, tuple[train.Number, train.Term]] = {}
        for name, pair in found.terms.items():
            said = f"the term {name} of {self.function}"
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise BadInput(field, f"{said} is {own.shown(pair)}", "give (weight, term)")
            terms[name] = (pair[0], self._held(pair[1], said))
        if not terms:
            raise BadInput(field, f"{self.function} gave a method without terms", "give one")
        watched = {
            name: self._held(one, f"the metric {name} of {self.function}", is_loss=False)
            for name, one in found.watched.items()
        }
        forward = self._paired(found.forward)
        return dataclasses.replace(found, forward=forward, terms=terms, watched=watched)

    def _paired(self, forward: train.Forward) -> train.Forward:
        """A forward pass that gives outputs and state."""

        def run(params, state, batch, key):
            both = forward(params, state, batch, key)
            if not isinstance(both, tuple) or len(both) != 2 or not isinstance(both[0], Mapping):
                raise BadInput(
                    "method.function",
                    f"forward of {self.function} gave {own.shown(both)}",
                    "it gives (outputs by name, model_state)",
                )
            return both

        return run

    def _held(self, term: Any, said: str, *, is_loss: bool = True) -> Any:
        """A term that can be called as one; what is a loss gives losses."""
        fault = own.misfit(term, "outputs", "batch") if callable(term) else "it is no function"
        if fault is not None:
            raise BadInput("method.function", f"{said}: {fault}")
        return held.term(term, field="method.function", said=said) if is_loss else term
