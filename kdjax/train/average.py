"""Statistics that belong to an average of the parameters, and not to the parameters themselves."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from kdjax.train.objective import Objective
from kdjax.train.recalibrate import Readings, read_statistics
from kdjax.train.state import TrainState
from kdjax.train.step import TrainStep
from kdjax.types import Batch

_FOUND, _SLOPE = "found ", "slope "


def make_reading_step(objective: Objective, *, accumulate: int = 1) -> TrainStep:
    """`(state, batch, key) -> (state, metrics)`: trains nothing, and reads BatchNorm's statistics.

    Running statistics follow the parameters, and those of their average are others: with them a
    network can be as good as untrained. So batches go through the average once more, as in training,
    and `kdjax.train.with_statistics` makes one of what they say.

    Args:
      objective: that `state` has been trained with.
      accumulate: parts of a batch in training, of which the first one is read.

    The metrics are for `readings_of`.
    """

    def reading_step(state: TrainState, batch: Batch, key: Key[Array, ""]):
        def forward(variables, batch):
            model_state = {name: part for name, part in variables.items() if name != "params"}
            now = dataclasses.replace(state, model_state=model_state)
            return objective(variables["params"], now, batch, key)[1][0]

        part = jax.tree.map(lambda x: x[::accumulate], batch)
        averaged = {"params": state.ema_params, **state.model_state}
        metrics = {"loss": jnp.float32(0)}  # a sweep wants one
        for name, (found, slope) in read_statistics(forward, averaged, part).items():
            metrics |= {_FOUND + name: found, _SLOPE + name: slope}
        return state, metrics

    return reading_step


def readings_of(metrics: Mapping[str, Array | np.ndarray], student: int | None = None) -> Readings:
    """What one step of `make_reading_step` has read, of a model or of one student of a sweep."""
    end = "" if student is None else f"[{student}]"
    names = [
        name.removeprefix(_FOUND).removesuffix(end)
        for name in metrics
        if name.startswith(_FOUND) and name.endswith(end)
    ]
    return {
        name: (metrics[f"{_FOUND}{name}{end}"], metrics[f"{_SLOPE}{name}{end}"]) for name in names
    }
