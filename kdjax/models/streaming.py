"""What a network that is given an example in pieces keeps from one piece to the next.

A module that can be is called with `state`, which has what all of its parts keep, by name: nothing before
the first piece. Each part puts what it keeps into the collection `STREAM`, see `kept`.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

State: TypeAlias = Mapping[str, Array]
"""What is kept, by name, [batch, ...] each; a name that is missing stands for zeros."""

STREAM = "stream"
"""The collection of variables that a call with `state` leaves it in; it has to be mutable then."""

_LEAST_POWER = 0.1
"""In nepers squared: what is nearly constant is not made loud."""


def keep(module: nn.Module, state: State) -> None:
    """Leaves what a part keeps, for `kept`."""
    module.sow(STREAM, "state", {**state}, reduce_fn=_last, init_fn=lambda: None)


def _last(before: Any, after: Any) -> Any:
    return after


def kept(variables: Mapping[str, Any]) -> dict[str, Array]:
    """What all parts of a network have left, by name, of the variables that a call has changed."""
    found: dict[str, Array] = {}

    def walk(tree: Mapping[str, Any]) -> None:
        for name, value in tree.items():
            if name == "state":
                found.update(value)
            else:
                walk(value)

    walk(variables.get(STREAM, {}))
    return found


def so_far(
    x: Float[Array, "batch step dim"], state: State
) -> tuple[Float[Array, "batch step 1"], Float[Array, "batch step dim"], State]:
    """How many steps there have been at each one, with it, and the sum of all; and what is kept of both.

    Args:
      x: the next steps.
      state: with `steps` [batch] and `total` [batch, dim].
    """
    ones = jnp.ones_like(x[..., 0])
    steps = state.get("steps", jnp.zeros_like(ones[:, 0]))
    total = state.get("total", jnp.zeros_like(x[:, 0]))
    count = jnp.expand_dims(steps, 1) + jnp.cumsum(ones, axis=1)
    sums = jnp.expand_dims(total, 1) + jnp.cumsum(x, axis=1)
    after = {"steps": steps + ones.sum(axis=1), "total": total + x.sum(axis=1)}
    return jnp.expand_dims(count, 2), sums, after


def running_norm(
    x: Float[Array, "batch frame band"], state: State
) -> tuple[Float[Array, "batch frame band"], State]:
    """Each band less its mean over the frames so far, all by their deviation so far; and what is kept.

    What is summed up is the difference from the first frame, which is small where the sum of squares
    would hide it.

    Args:
      x: logarithms of powers.
      state: with `norm_first` [batch, band], `norm_steps` [batch], `norm_total` [batch, band + 1].
    """
    begun = jnp.expand_dims(state.get("norm_steps", jnp.zeros_like(x[:, 0, 0])), 1) > 0
    first = jnp.where(begun, state.get("norm_first", jnp.zeros_like(x[:, 0])), x[:, 0])
    apart = x - jnp.expand_dims(first, 1)
    square = (apart * apart).mean(axis=2, keepdims=True)
    before = {name: state[f"norm_{name}"] for name in ("steps", "total") if f"norm_{name}" in state}
    count, sums, after = so_far(jnp.concatenate([apart, square], axis=2), before)
    means = sums / count
    mean, power = means[..., :-1], means[..., -1:]
    power = power - (mean * mean).mean(axis=2, keepdims=True)
    found = (apart - mean) * lax.rsqrt(jnp.maximum(power, 0.0) + _LEAST_POWER)
    return found, {"norm_first": first, **{f"norm_{name}": array for name, array in after.items()}}
