"""Self-training: a classifier learns its own predictions of examples whose labels may not be used."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from kdjax import config, keys, losses, train, tree
from kdjax.contexts.context import Context
from kdjax.data import Partners
from kdjax.fitting.fit import Views
from kdjax.inputs import Inputs
from kdjax.types import BadInput, Batch, PyTree, Variables
from kdjax.views import draws

_TRUST = "trust"


def objective(
    model: nn.Module,
    c: config.SelfTraining,
    supervised: train.Terms,
    *,
    prior: Float[np.ndarray, " classes"],
    steps: int,
    axis_name: str | None = None,
) -> train.Objective:
    """The terms of the labelled rows, and that of the pseudo-labels; see `config.SelfTraining`.

    The target network says what is on the weak views, with the statistics of their own batch.
    """

    def forward(params, state, batch, key):
        n = len(batch["label"])
        found, model_state = train.apply_model(
            model,
            params,
            state.model_state,
            tree.together(batch["inputs"], batch["strong"]),
            key,
        )
        said, _ = train.apply_model(
            model, state.ema_params, state.model_state, batch["weak"], jax.random.fold_in(key, 1)
        )
        known = losses.SoftMatchState(**state.model_state[train.MEMORY])
        pseudo, known, trust = losses.soft_match(
            found["logits"][n:],
            said["logits"],
            known,
            prior=jnp.asarray(prior, jnp.float32),
            momentum=c.memory,
            sharpness=c.sharpness,
            axis_name=axis_name,
        )
        outputs = {"logits": found["logits"][:n], "pseudo": pseudo, _TRUST: trust}
        return outputs, {**model_state, train.MEMORY: known._asdict()}

    terms = {
        **supervised,
        "pseudo": (
            config.over_steps(c.weight, steps=steps),
            lambda outputs, batch: outputs["pseudo"],
        ),
    }
    watched: dict[str, train.Term] = {_TRUST: lambda outputs, batch: outputs[_TRUST]}
    return train.weigh(forward, terms, watched=watched, axis_name=axis_name)


def momentum(c: config.SelfTraining) -> optax.Schedule:
    """Decay of the target network over the steps."""
    return lambda step: jnp.minimum(c.momentum, (1 + step) / (10 + step))


def remembering(variables: Variables, classes: int) -> Variables:
    """`variables` with the first statistics of the predictions."""
    return {**variables, train.MEMORY: losses.soft_match_state(classes)._asdict()}


def check_batch(context: Context, c: config.Training, every: int) -> None:
    """Raises `BadInput` where a device would not have a labelled example for every so many."""
    devices = context.parallel.devices
    rows = c.batch // devices // c.accumulate
    if rows % every:
        raise BadInput(
            f"{context.path}.self_training.every",
            f"{every} does not divide the {rows} examples that a device has at once (batch {c.batch} "
            f"on {devices} devices, accumulate {c.accumulate})",
        )


def partners(context: Context, shown: Int[np.ndarray, " m"]) -> Partners:
    """The labelled example that is learned beside each example."""
    return Partners(
        context.splits.train.ids,
        seed=context.seed,
        stream=keys.stream_id(f"{context.name}/labelled"),
        among=shown,
    )


def seen(context: Context, c: config.SelfTraining, labelled: draws.Recipe, inputs: Inputs) -> Views:
    """`inputs` and `label` of labelled examples, `weak` and `strong` of the batch's own.

    All are drawn by the id of the example of the batch and its epoch, so that a labelled example that
    comes twice in an epoch comes in two views.
    """
    name, examples = context.name, context.splits.train
    weak, strong = (own.recipe_for(inputs, examples=examples) for own in (c.weak, c.strong))
    one = draws.together(draws.one_view(labelled, name, name="inputs"), draws.label)

    def few(batch: Batch, resident: PyTree, key: Array) -> Batch:
        own = {name: batch[name] for name in ("epoch", "id")}
        theirs = {name: batch[f"partner_{name}"] for name in ("inputs", "label")}
        some = jax.tree.map(lambda x: x[:: c.every], {**own, **theirs})
        return one(some, resident, key)

    return draws.together(
        few,
        draws.one_view(weak, f"{name}/weak", name="weak"),
        draws.one_view(strong, f"{name}/strong", name="strong"),
    )
