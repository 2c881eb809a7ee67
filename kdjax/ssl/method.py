"""What a self-supervised method is, beside the model that it trains."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from kdjax import keys, train
from kdjax.inputs import Inputs
from kdjax.losses.rows import centred, row_mean, unit
from kdjax.models import Compute, Projector
from kdjax.types import PyTree, Variables

Decay = float | optax.Schedule
"""Of the target network: a number, or its schedule over the step."""

Made = Callable[[Key[Array, ""]], Variables]
"""Fresh variables of a module, from a key."""


class Trained(NamedTuple):
    """The model that a method trains, and how.

    Attributes:
      model: gives `features` and `projections`, [batch, dim] each.
      encoder: its part below the projector.
      width: of the projections.
      inputs: that it is given.
      compute: how it is run; its `axis_name` is the mapped axis of the batch.
      steps: of the stage.
    """

    model: nn.Module
    encoder: nn.Module
    width: int
    inputs: Inputs
    compute: Compute
    steps: int

    def predictor(self, *hidden: int) -> Projector:
        """An MLP with these hidden widths from projections to projections."""
        return Projector((*hidden, self.width), compute=self.compute)


def _live_or_average(state: train.TrainState) -> Variables:
    return state.variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A forward pass, its terms, and what is kept between steps.

    Attributes:
      forward: its outputs have `features`, those of the first view.
      terms: of the loss, see `train.weigh`.
      watched: metrics that are no part of it.
      auxiliary: modules that are trained with the model and left behind, by name.
      memory: `(key, variables of the model) -> what the method keeps`, None where it keeps nothing.
      momentum: decay of the target network, None where there is none.
      left: what the stage leaves of the last state.
    """

    forward: train.Forward
    terms: train.Terms
    watched: Mapping[str, train.Term] = dataclasses.field(default_factory=dict)
    auxiliary: Mapping[str, Made] = dataclasses.field(default_factory=dict)
    memory: Callable[[Key[Array, ""], Variables], PyTree] | None = None
    momentum: Decay | None = None
    left: Callable[[train.TrainState], Variables] = _live_or_average

    def objective(self, axis_name: str | None = None) -> train.Objective:
        """The loss of a step."""
        return train.weigh(self.forward, self.terms, watched=self.watched, axis_name=axis_name)

    def start(self, variables: Variables, key: Key[Array, ""]) -> Variables:
        """The first variables: the model's, the modules' beside it, and the memory."""
        made = {
            name: jax.jit(make)(keys.stream(key, name)) for name, make in self.auxiliary.items()
        }
        found = train.with_auxiliary(variables, made)
        if self.memory is not None:
            found[train.MEMORY] = self.memory(keys.stream(key, train.MEMORY), variables)
        return found


def live(state: train.TrainState) -> Variables:
    """The online network: what a method with a target network leaves, as a rule."""
    return state.live_variables


def blank(width: int) -> Float[Array, "1 {width}"]:
    """What a head is initialised on."""
    return jnp.zeros((1, width))


def spread(z: Float[Array, "batch dim"], *, axis_name: str | None = None) -> Float[Array, ""]:
    """Mean over the dimensions of the standard deviation of unit rows, those of all devices.

    `1 / sqrt(dim)` where they lie evenly on the sphere, 0 where they have collapsed into one.

    Reference: Chen & He 2020, https://arxiv.org/abs/2011.10566, sec. 4.1.
    """
    z = centred(unit(z), axis=0, axis_name=axis_name)
    return jnp.sqrt(row_mean(z * z, axis_name)).mean()


def watch_spread(axis_name: str | None) -> dict[str, train.Term]:
    """The metric that tells of a collapse, of outputs that have `projections`."""
    return {
        "std/projections": lambda outputs, batch: spread(
            outputs["projections"], axis_name=axis_name
        )
    }
