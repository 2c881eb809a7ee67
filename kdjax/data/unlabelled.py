"""The target of examples that have no labels at all."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Shaped

from kdjax.data.targets import UNLABELLED, OneNumber
from kdjax.types import BadInput


@dataclasses.dataclass(frozen=True)
class Unlabelled(OneNumber):
    """Nothing: no example of any split has a label. int32 [n], all `UNLABELLED`."""

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
