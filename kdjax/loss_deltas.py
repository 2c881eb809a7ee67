"""How much a loss rises as one thing after another is changed, in one compilation."""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Float

from kdjax.types import BadInput, PyTree

_Name = TypeVar("_Name", bound=Hashable)


def loss_deltas(
    loss: Callable[[PyTree, Any], Float[Array, ""]],
    whole: PyTree,
    changes: Mapping[_Name, PyTree],
    batches: Iterable[Any],
) -> dict[_Name, float]:
    """`loss(changed) - loss(whole)` of each change, the mean over batches with equal weights.

    What is changed is an input of one jitted function, so it is compiled once for all changes and
    batches.

    Args:
      loss: `(state, batch) -> mean loss`, pure.
      whole: the state of nothing changed.
      changes: by name, states of the same shapes.
      batches: of one shape; gone through once.

    Raises:
      BadInput: there is no batch, or the loss of the whole is not finite.
    """
    jitted = jax.jit(loss)
    states = [whole, *changes.values()]
    by_batch = []
    for batch in batches:
        # All are on their way before the first is waited for.
        losses = [jitted(state, batch) for state in states]
        by_batch.append(np.array(jax.device_get(losses), np.float64))
    if not by_batch:
        raise BadInput("batches", "there is none", "give at least one")
    base, *losses = np.mean(by_batch, axis=0).tolist()
    if not math.isfinite(base):
        raise BadInput(
            "loss", "that of the whole model is not finite", "look at params and batches"
        )
    return {name: loss - base for name, loss in zip(changes, losses, strict=True)}
