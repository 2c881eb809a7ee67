"""Several students in one step: they share each batch, and differ in a few numbers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from kdjax.train.objective import Objective
from kdjax.train.state import TrainState
from kdjax.train.step import TrainStep
from kdjax.types import Batch, PyTree, Variables

_STACKED = TrainState(step=None, params=0, opt_state=0, model_state=0, ema_params=0)
"""Everything but the step has a leading axis of students."""


def start_sweep(
    variables: Variables, tx: optax.GradientTransformation, *, students: int, ema: bool
) -> TrainState:
    """Step 0 of `students` students that all begin with `variables`."""
    one = TrainState.start(variables, tx, ema=ema)
    many = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x)[None], students, axis=0), one)
    return dataclasses.replace(many, step=one.step)


class Sweep(NamedTuple):
    """What several students are trained with.

    Attributes:
      objective: of a student, from its settings, which are traced.
      settings: the numbers in which the students differ, [students] each, by name.
      unroll: one student after the other within a step, instead of all at once under `vmap`. The
        results are the same; which is faster is a matter of the device.
    """

    objective: Callable[[Mapping[str, Float[Array, ""]]], Objective]
    settings: Mapping[str, Float[np.ndarray, " students"]]
    unroll: bool

    @property
    def students(self) -> int:
        """How many."""
        return len(next(iter(self.settings.values())))


def make_sweep_step(sweep: Sweep, make_step: Callable[[Objective], TrainStep]) -> TrainStep:
    """`(state, batch, key) -> (state, metrics)` of all students on one batch.

    Metrics are those of each student, `loss/kd[2]` of the third, and `loss`, the mean of theirs.

    Args:
      sweep: the students.
      make_step: of one of them; see `make_train_step`.
    """
    settings = {name: jnp.asarray(values) for name, values in sweep.settings.items()}

    def one(settings: Mapping[str, Array], state: TrainState, batch: Batch, key: Key[Array, ""]):
        return make_step(sweep.objective(settings))(state, batch, key)

    def all_at_once(state: TrainState, batch: Batch, key: Key[Array, ""]):
        return jax.vmap(one, in_axes=(0, _STACKED, None, None), out_axes=(_STACKED, 0))(
            settings, state, batch, key
        )

    def in_turn(state: TrainState, batch: Batch, key: Key[Array, ""]):
        found = []
        for i in range(sweep.students):
            mine = {name: values[i] for name, values in settings.items()}
            found.append(one(mine, student(state, i), batch, key))
        states, metrics = (list(part) for part in zip(*found, strict=True))
        state = dataclasses.replace(_stack(states), step=states[0].step)
        return state, _stack(metrics)

    def step(state: TrainState, batch: Batch, key: Key[Array, ""]):
        state, metrics = (in_turn if sweep.unroll else all_at_once)(state, batch, key)
        named = {
            f"{name}[{i}]": values[i]
            for name, values in metrics.items()
            for i in range(sweep.students)
        }
        return state, {"loss": metrics["loss"].mean(), **named}

    return step


def student(state: TrainState, i: int) -> TrainState:
    """The state of one student of a sweep."""
    one = jax.tree.map(lambda x: x[i], dataclasses.replace(state, step=None))
    return dataclasses.replace(one, step=state.step)


def _stack(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
