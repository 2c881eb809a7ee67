"""The target of examples that have no labels at all."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Shaped

from kdjax.data.targets import UNLABELLED, Labels, Target
from kdjax.types import BadInput


@dataclasses.dataclass(frozen=True)
class Unlabelled(Target):
    """Nothing: no example of any split has a label. int32 [n], all `UNLABELLED`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """A number."""
        return ()

    @property
    def dtype(self) -> np.dtype:
        """int32."""
        return np.dtype(np.int32)

    def hidden(self, examples: int) -> Shaped[np.ndarray, "n ..."]:
        """See `Target`."""
        return np.full(examples, UNLABELLED, self.dtype)

    def shown(self, labels: Labels) -> Bool[Array | np.ndarray, " n"]:
        """None."""
        return labels != UNLABELLED

    def read(self, given: np.ndarray, *, n: int, name: str) -> Shaped[np.ndarray, "n ..."]:
        """`UNLABELLED` of each; see `Target`."""
        if given.shape != (n,):
            raise BadInput(
                "data",
                f"{name} has {list(given.shape)} labels for {n} examples",
                f"give {UNLABELLED} for each",
            )
        self.check(given, name=name)
        return self.hidden(n)

    def check(self, labels: Shaped[np.ndarray, "n ..."], *, name: str) -> None:
        """Refuses any label; see `Target`."""
        wrong = np.flatnonzero(labels != UNLABELLED)
        if wrong.size:
            raise BadInput(
                "data",
                f"label {labels[wrong[0]]} of {name}, which has no labels (example {wrong[0]})",
                "say how many classes there are",
            )

    def facts(self) -> dict[str, Any]:
        """That there are none."""
        return {"labels": "none"}

    def __str__(self) -> str:
        return "not there"
