"""Methods that predict another view's projection, without negatives: BYOL, SimSiam."""

import flax.linen as nn
import jax

from kdjax import losses, train
from kdjax.models import Projector
from kdjax.ssl.method import Decay, Method, blank, live, watch_spread


def predictions(model: nn.Module, predictor: Projector, *, target: bool) -> train.Forward:
    """`prediction_a`, `prediction_b`, and what they are to be: `target_a` and `target_b`.

    Each view is a batch of its own, with its own statistics. Those of the target network are dropped.

    Args:
      model: that is trained.
      predictor: on its projections.
      target: the targets are the projections of the target network, and not the model's own.
    """

    def forward(params, state, batch, key):
        model_state, found = state.model_state, {}
        for i, view in enumerate(("a", "b")):
            own_key, their_key = (jax.random.fold_in(key, 2 * i + j) for j in range(2))
            outputs, model_state = train.apply_model(
                model, params, model_state, batch[f"view_{view}"], own_key
            )
            z = outputs["projections"]
            found[f"prediction_{view}"], model_state = train.apply_auxiliary(
                predictor, "predictor", params, model_state, z, train=True
            )
            if target:
                theirs, _ = train.apply_model(
                    model, state.ema_params, state.model_state, batch[f"view_{view}"], their_key
                )
                found[f"target_{view}"] = theirs["projections"]
            else:
                found[f"target_{view}"] = z
            if view == "a":
                found |= {"features": outputs["features"], "projections": z}
        return found, model_state

    return forward


def byol(
    model: nn.Module,
    predictor: Projector,
    *,
    width: int,
    momentum: Decay,
    axis_name: str | None = None,
) -> Method:
    """Each view's prediction of the target's projection of the other; both are added.

    Args:
      model: that is trained.
      predictor: on its projections.
      width: of the projections.
      momentum: of the target network.
      axis_name: mapped axis of the batch.
    """

    def distance(outputs, batch):
        a = losses.byol(outputs["prediction_a"], outputs["target_b"])
        return a + losses.byol(outputs["prediction_b"], outputs["target_a"])

    return Method(
        forward=predictions(model, predictor, target=True),
        terms={"byol": (1.0, distance)},
        watched=watch_spread(axis_name),
        auxiliary={"predictor": lambda key: predictor.init(key, blank(width), train=True)},
        momentum=momentum,
        left=live,
    )


def simsiam(
    model: nn.Module, predictor: Projector, *, width: int, axis_name: str | None = None
) -> Method:
    """Each view's prediction of the other's own projection; half of both.

    Args:
      model: that is trained.
      predictor: on its projections.
      width: of the projections.
      axis_name: mapped axis of the batch.
    """

    def distance(outputs, batch):
        a = losses.negative_cosine(outputs["prediction_a"], outputs["target_b"])
        return 0.5 * (a + losses.negative_cosine(outputs["prediction_b"], outputs["target_a"]))

    return Method(
        forward=predictions(model, predictor, target=False),
        terms={"simsiam": (1.0, distance)},
        watched=watch_spread(axis_name),
        auxiliary={"predictor": lambda key: predictor.init(key, blank(width), train=True)},
    )
