"""The target of examples of which each may be of several classes, or of none."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Shaped

from kdjax.data.targets import _Floats
from kdjax.types import BadInput


@dataclasses.dataclass(frozen=True)
class Several(_Floats):
    """Which of several classes an example is of, any number of them: float32 [n, dim], 1 where it is.

    NaN in every entry is for none that is known; zero in every entry is an example of no class.

    Attributes:
      dim: how many classes there are.
      names: what they are called, in their order; empty where the dataset does not say it.
    """

    names: tuple[str, ...] = ()

    def check(self, labels: Shaped[np.ndarray, "n ..."], *, name: str) -> None:
        """Refuses what is neither 0 nor 1, but for NaN in every entry; see `Target`."""
        super().check(labels, name=name)
        if self.names and len(self.names) != self.dim:
            raise BadInput(
                "data",
                f"{name} has {self.dim} classes and {len(self.names)} names of classes",
                "give one each",
            )
        wrong = np.flatnonzero(((labels != 0) & (labels != 1) & ~np.isnan(labels)).any(-1))
        if wrong.size:
            raise BadInput(
                "data",
                f"the label of example {wrong[0]} of {name} has {labels[wrong[0]].tolist()}",
                "give 1 for each class that it is of, and 0 for the others",
            )

    def facts(self) -> dict[str, Any]:
        """How many classes there are, and their names where they have some."""
        return {"target": str(self), **({"class names": [*self.names]} if self.names else {})}

    def __str__(self) -> str:
        return f"any of {self.dim} classes"
