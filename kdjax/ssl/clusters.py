"""Methods that agree on prototypes, with crops of several sizes: SwAV, DINO."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from kdjax import losses, train, tree
from kdjax.models import Prototypes
from kdjax.ssl.method import Decay, Method, blank, watch_spread
from kdjax.types import Batch, PyTree

_NAME = "prototypes"


class _Crops(NamedTuple):
    features: Float[Array, "batch features"]
    projections: Float[Array, "batch dim"]
    scores: Float[Array, "crops batch prototypes"]
    model_state: PyTree


def _crops(
    model: nn.Module,
    prototypes: Prototypes,
    params: PyTree,
    model_state: PyTree,
    batch: Batch,
    key: Key[Array, ""],
) -> _Crops:
    """All crops: `view_a`, `view_b`, and those of `local` [batch, crops, ...] where there are any.

    Those of one size go through the model as one batch. The authors do so with the encoder alone and
    put all crops through the projector together.
    """
    both = tree.together(batch["view_a"], batch["view_b"])
    outputs, model_state = train.apply_model(model, params, model_state, both, key)
    projections, rows = outputs["projections"], tree.rows(batch["view_a"])
    every = projections
    if "local" in batch:
        local = jax.tree.map(lambda x: lax.collapse(x.swapaxes(0, 1), 0, 2), batch["local"])
        small, model_state = train.apply_model(
            model, params, model_state, local, jax.random.fold_in(key, 1)
        )
        every = jnp.concatenate([projections, small["projections"]])
    scores, model_state = train.apply_auxiliary(prototypes, _NAME, params, model_state, every)
    return _Crops(
        features=outputs["features"][:rows],
        projections=projections[:rows],
        scores=scores.reshape(-1, rows, scores.shape[-1]),
        model_state=model_state,
    )


def _held(params: PyTree, step: Int[Array, ""], *, freeze_steps: int) -> PyTree:
    """The parameters, with prototypes that no gradient reaches before `freeze_steps`."""
    if not freeze_steps:
        return params
    beside = dict(params[train.BESIDE])
    beside[_NAME] = jax.tree.map(
        lambda leaf: jnp.where(step < freeze_steps, lax.stop_gradient(leaf), leaf), beside[_NAME]
    )
    return {**params, train.BESIDE: beside}


def swav(
    model: nn.Module,
    prototypes: Prototypes,
    *,
    width: int,
    epsilon: float,
    iterations: int,
    temperature: float,
    freeze_steps: int,
    axis_name: str | None = None,
) -> Method:
    """Each crop predicts the assignments of the two large ones, but for its own.

    Args:
      model: that is trained.
      prototypes: on its projections.
      width: of the projections.
      epsilon: see `kdjax.losses.swav`.
      iterations: see there.
      temperature: see there.
      freeze_steps: for which the prototypes stay as they begin.
      axis_name: mapped axis of the batch.
    """

    def forward(params, state, batch, key):
        params = _held(params, state.step, freeze_steps=freeze_steps)
        crops = _crops(model, prototypes, params, state.model_state, batch, key)
        outputs = crops._asdict()
        return outputs, outputs.pop("model_state")

    def swapped(outputs, batch):
        return losses.swav(
            outputs["scores"],
            epsilon=epsilon,
            iterations=iterations,
            temperature=temperature,
            axis_name=axis_name,
        )

    return Method(
        forward=forward,
        terms={"swav": (1.0, swapped)},
        watched=watch_spread(axis_name),
        auxiliary={_NAME: lambda key: prototypes.init(key, blank(width))},
    )


def dino(
    model: nn.Module,
    prototypes: Prototypes,
    *,
    width: int,
    student_temperature: float,
    teacher_temperature: train.Number,
    momentum: Decay,
    center_momentum: float,
    freeze_steps: int,
    axis_name: str | None = None,
) -> Method:
    """Each crop of the student predicts the teacher's scores of the large ones, but for its own.

    The teacher is the average of the student, in training mode. Its running statistics are kept with
    the center, and are those of what the stage leaves: the teacher.

    Args:
      model: that is trained.
      prototypes: on its projections.
      width: of the projections.
      student_temperature: see `kdjax.losses.dino`.
      teacher_temperature: see there.
      momentum: of the teacher.
      center_momentum: see `kdjax.losses.dino_center`.
      freeze_steps: for which the prototypes stay as they begin.
      axis_name: mapped axis of the batch.
    """

    def forward(params, state, batch, key):
        memory = state.model_state[train.MEMORY]
        large = {name: batch[name] for name in ("view_a", "view_b")}
        their_key = jax.random.fold_in(key, 2)
        teacher = _crops(
            model, prototypes, state.ema_params, memory["statistics"], large, their_key
        )
        center = losses.dino_center(
            memory["center"], teacher.scores, momentum=center_momentum, axis_name=axis_name
        )
        params = _held(params, state.step, freeze_steps=freeze_steps)
        outputs = _crops(model, prototypes, params, state.model_state, batch, key)._asdict()
        model_state = outputs.pop("model_state")
        after = {"center": center, "statistics": teacher.model_state}
        outputs |= {
            "teacher_scores": teacher.scores,
            "center": memory["center"],
            "teacher_temperature": jnp.asarray(train.at(teacher_temperature, state.step)),
        }
        return outputs, {**model_state, train.MEMORY: after}

    def agreement(outputs, batch):
        return losses.dino(
            outputs["scores"],
            outputs["teacher_scores"],
            outputs["center"],
            student_temperature=student_temperature,
            teacher_temperature=outputs["teacher_temperature"],
        )

    def memory(key, variables):
        statistics = {name: part for name, part in variables.items() if name != "params"}
        # Copies: a step takes the buffers of the state that it is given.
        return {
            "center": jnp.zeros(prototypes.count),
            "statistics": jax.tree.map(jnp.copy, statistics),
        }

    return Method(
        forward=forward,
        terms={"dino": (1.0, agreement)},
        watched=watch_spread(axis_name),
        auxiliary={_NAME: lambda key: prototypes.init(key, blank(width))},
        memory=memory,
        momentum=momentum,
        left=_teacher_of,
    )


def _teacher_of(state: train.TrainState) -> PyTree:
    """The variables of the average of the student, with the statistics that it had itself."""
    statistics = state.model_state[train.MEMORY]["statistics"]
    return {"params": train.of_model({"params": state.ema_params})["params"], **statistics}
