"""Methods that keep the dimensions of the projections apart: Barlow Twins, VICReg."""

import flax.linen as nn

from kdjax import losses, train
from kdjax.ssl.method import Method, watch_spread


def one_by_one(model: nn.Module) -> train.Forward:
    """Projections `za` and `zb` of two views, each a batch with statistics of its own."""

    def forward(params, state, batch, key):
        a, model_state = train.apply_model(model, params, state.model_state, batch["view_a"])
        b, model_state = train.apply_model(model, params, model_state, batch["view_b"])
        za, zb = a["projections"], b["projections"]
        outputs = {"za": za, "zb": zb, "features": a["features"], "projections": za}
        return outputs, model_state

    return forward


def barlow_twins(
    model: nn.Module, *, off_diagonal_weight: float, axis_name: str | None = None
) -> Method:
    """The cross-correlation of the two views' dimensions, towards the identity."""

    def term(outputs, batch):
        return losses.barlow_twins(
            outputs["za"],
            outputs["zb"],
            off_diagonal_weight=off_diagonal_weight,
            axis_name=axis_name,
        )

    return Method(
        forward=one_by_one(model),
        terms={"barlow_twins": (1.0, term)},
        watched=watch_spread(axis_name),
    )


def vicreg(
    model: nn.Module,
    *,
    invariance: float,
    variance: float,
    covariance: float,
    axis_name: str | None = None,
) -> Method:
    """Views alike, dimensions that vary, and do not vary together."""

    def term(outputs, batch):
        return losses.vicreg(
            outputs["za"],
            outputs["zb"],
            invariance=invariance,
            variance=variance,
            covariance=covariance,
            axis_name=axis_name,
        )

    return Method(
        forward=one_by_one(model),
        terms={"vicreg": (1.0, term)},
        watched=watch_spread(axis_name),
    )
