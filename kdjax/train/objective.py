"""A method is one forward pass and a dict of named, weighted terms."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from kdjax.train import observing
from kdjax.train.state import TrainState
from kdjax.types import Batch, PyTree

Outputs: TypeAlias = Mapping[str, Array]
"""Named outputs of the forward pass: `logits`, `features`, `za`, `zb`, [batch, ...] each."""

Weights: TypeAlias = Bool[Array, "batch ..."] | Float[Array, "batch ..."]
"""Which rows, or which positions of them, a loss concerns, or how much."""

Losses: TypeAlias = Float[Array, "batch ..."] | tuple[Float[Array, "batch ..."], Weights]
"""Losses of each example, or of each of its positions, alone or with as many weights."""

Term: TypeAlias = Callable[[Outputs, Batch], Losses | Float[Array, ""]]
"""Gives losses of the examples, or the scalar of a loss that has no per-example value."""

Forward: TypeAlias = Callable[[PyTree, TrainState, Batch, Key[Array, ""]], tuple[Outputs, PyTree]]
"""`(params, state, batch, key) -> (outputs, model_state)`."""

Number: TypeAlias = float | Float[Array, ""] | optax.Schedule
"""A number, or a schedule of it over the step."""

Terms: TypeAlias = Mapping[str, tuple[Number, Term]]
"""`{"kd": (weight, term)}`; see `weigh`."""

Objective: TypeAlias = Callable[
    [PyTree, TrainState, Batch, Key[Array, ""]],
    tuple[Float[Array, ""], tuple[PyTree, Mapping[str, Array]]],
]
"""`(params, state, batch, key) -> (loss, (model_state, metrics))`."""

CHOSEN = "chosen rows"
"""How a step that sees a batch in parts asks an objective of `weigh`, and tells it, of how many rows
each mean is. In a batch, `{}` asks: the answer is the metric of this name, `{metric: rows}`. Anything
else is such an answer, the mean of those of all parts, and what the objective divides by.
"""


def apply_model(
    model: nn.Module,
    params: PyTree,
    model_state: Mapping[str, PyTree],
    inputs: PyTree,
    key: Key[Array, ""] | None = None,
) -> tuple[Any, dict[str, PyTree]]:
    """`(outputs, model_state)` of a model that is trained, with the statistics of this batch.

    Args:
      model: any, with its `train=True`.
      params: its parameters.
      model_state: its other collections.
      inputs: what it is given.
      key: of its dropout; without one a model that has any fails.
    """
    outputs, changed = model.apply(
        {"params": params, **model_state},
        inputs,
        train=True,
        mutable=["batch_stats"],
        rngs=None if key is None else {"dropout": key},
    )
    return outputs, {**model_state, **changed}


def forward_of(model: nn.Module) -> Forward:
    """The forward pass of a model that is trained on the `inputs` of a batch."""

    def forward(params, state, batch, key):
        return apply_model(model, params, state.model_state, batch["inputs"], key)

    return forward


def weigh(
    forward: Forward,
    terms: Terms,
    *,
    watched: Mapping[str, Term] | None = None,
    axis_name: str | None = None,
) -> Objective:
    """The weighted sum of the means of named terms, over one forward pass.

    Extending a method is adding an entry to `terms`; each is logged as `loss/<name>`.

    Args:
      forward: the forward pass.
      terms: `{"kd": (0.9, term)}`; a weight may be a schedule over the step. A term that concerns
        some rows only (those with a label, say), or some more than others, returns `(losses, rows)`,
        one of positions `(losses, mask)`. Its mean is that of what is chosen, or weighted, in the whole
        batch: on all devices, in all accumulated parts. It is zero where nothing is chosen.
      watched: more terms, logged by their own names and no part of the loss.
      axis_name: mapped axis of the batch, None where the batch is already global.
    """

    def chosen(rows: Array) -> Float[Array, ""]:
        found = rows.astype(jnp.float32).sum()
        # The step averages over devices: each must divide by its share of the global count.
        return found if axis_name is None else lax.pmean(found, axis_name)

    def objective(params, state, batch, key):
        whole = batch.get(CHOSEN)
        batch = {name: x for name, x in batch.items() if name != CHOSEN}
        counts = {}

        def mean(metric: str, losses: Losses | Float[Array, ""]) -> Float[Array, ""]:
            if not isinstance(losses, tuple):
                return losses.mean()
            losses, rows = losses
            rows = rows.astype(jnp.float32)
            counts[metric] = whole[metric] if whole else chosen(rows)
            total = jnp.where(rows > 0, rows * losses, 0.0).sum()
            return total / jnp.maximum(counts[metric], 1e-6)

        with observing.of_batch(batch):
            outputs, model_state = forward(params, state, batch, key)
            means = {}
            for name, (_, term) in terms.items():
                losses = term(outputs, batch)
                observing.see(f"loss/{name}", losses)
                means[name] = mean(f"loss/{name}", losses)
        weights = {name: at(weight, state.step) for name, (weight, _) in terms.items()}
        loss: Any = sum((weights[name] * mean for name, mean in means.items()), jnp.float32(0))
        metrics = {f"loss/{name}": value for name, value in means.items()}
        for name, term in (watched or {}).items():
            metrics[name] = lax.stop_gradient(mean(name, term(outputs, batch)))
        if whole is not None and not whole:
            metrics[CHOSEN] = counts
        return loss, (model_state, metrics)

    return objective


def at(number: Number, step: Int[Array, ""]) -> float | Float[Array, ""]:
    """The number at a step."""
    return jnp.asarray(number(step)) if callable(number) else number


def scheduled(
    make: Callable[[Mapping[str, float | Float[Array, ""]]], Objective],
    numbers: Mapping[str, Number],
) -> Objective:
    """The objective that `make` gives of `numbers`, of which some may be schedules over the step.

    A weight may be a schedule in `weigh`; this is for numbers inside a term, such as a temperature.
    """

    def objective(params, state, batch, key):
        now = {name: at(number, state.step) for name, number in numbers.items()}
        return make(now)(params, state, batch, key)

    return objective
