"""Methods that contrast examples with one another: SimCLR, DCL, MoCo."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses, train, tree
from kdjax.models import Projector
from kdjax.ssl.method import Decay, Method, blank, live
from kdjax.ssl.predict import predictions


def both_views(model: nn.Module) -> train.Forward:
    """Projections `za` and `zb` of two views.

    Both go through the model as one batch, so that batch statistics are those of both.
    """

    def forward(params, state, batch, key):
        both = tree.together(batch["view_a"], batch["view_b"])
        outputs, model_state = train.apply_model(model, params, state.model_state, both, key)
        za, zb = jnp.split(outputs["projections"], 2)
        features, _ = jnp.split(outputs["features"], 2)
        return {"za": za, "zb": zb, "features": features}, model_state

    return forward


def simclr(model: nn.Module, *, temperature: float, axis_name: str | None = None) -> Method:
    """NT-Xent between the projections of `view_a` and `view_b`."""

    def contrast(outputs, batch):
        return losses.nt_xent(
            outputs["za"], outputs["zb"], temperature=temperature, axis_name=axis_name
        )

    return Method(forward=both_views(model), terms={"nt_xent": (1.0, contrast)})


def dcl(
    model: nn.Module, *, temperature: float, sigma: float | None, axis_name: str | None = None
) -> Method:
    """The decoupled loss between the projections of `view_a` and `view_b`."""

    def contrast(outputs, batch):
        return losses.dcl(
            outputs["za"],
            outputs["zb"],
            temperature=temperature,
            sigma=math.inf if sigma is None else sigma,
            axis_name=axis_name,
        )

    return Method(forward=both_views(model), terms={"dcl": (1.0, contrast)})


def moco_v2(
    model: nn.Module,
    *,
    width: int,
    queue: int,
    temperature: float,
    momentum: Decay,
    axis_name: str | None = None,
) -> Method:
    """InfoNCE of `view_a` with the target's projection of `view_b` and a queue of earlier ones.

    Batch statistics are those of all devices, so there is nothing to shuffle between them.

    Args:
      model: that is trained.
      width: of its projections.
      queue: rows; random ones to begin with.
      temperature: see `kdjax.losses.info_nce`.
      momentum: of the target network.
      axis_name: mapped axis of the batch.
    """

    def forward(params, state, batch, key):
        query, model_state = train.apply_model(
            model, params, state.model_state, batch["view_a"], key
        )
        target, _ = train.apply_model(
            model, state.ema_params, state.model_state, batch["view_b"], jax.random.fold_in(key, 1)
        )
        memory = state.model_state[train.MEMORY]
        after, pointer = losses.enqueue(
            memory["queue"], target["projections"], memory["pointer"], axis_name=axis_name
        )
        outputs = {
            "features": query["features"],
            "query": query["projections"],
            "key": target["projections"],
            "queue": memory["queue"],
        }
        return outputs, {**model_state, train.MEMORY: {"queue": after, "pointer": pointer}}

    def contrast(outputs, batch):
        return losses.info_nce(
            outputs["query"], outputs["key"], outputs["queue"], temperature=temperature
        )

    def memory(key, variables):
        return {"queue": losses.random_queue(key, size=queue, dim=width), "pointer": jnp.int32(0)}

    return Method(
        forward=forward,
        terms={"info_nce": (1.0, contrast)},
        memory=memory,
        momentum=momentum,
        left=live,
    )


def moco_v3(
    model: nn.Module,
    predictor: Projector,
    *,
    width: int,
    temperature: float,
    momentum: Decay,
    axis_name: str | None = None,
) -> Method:
    """Contrast of each view's prediction with the target's projections of the other, added.

    Args:
      model: that is trained.
      predictor: on its projections.
      width: of the projections.
      temperature: see `kdjax.losses.moco_v3`.
      momentum: of the target network.
      axis_name: mapped axis of the batch.
    """

    def contrast(outputs, batch):
        def one(query, key):
            return losses.moco_v3(query, key, temperature=temperature, axis_name=axis_name)

        a = one(outputs["prediction_a"], outputs["target_b"])
        return a + one(outputs["prediction_b"], outputs["target_a"])

    return Method(
        forward=predictions(model, predictor, target=True),
        terms={"moco_v3": (1.0, contrast)},
        auxiliary={"predictor": lambda key: predictor.init(key, blank(width), train=True)},
        momentum=momentum,
        left=live,
    )
