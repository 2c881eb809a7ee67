"""Optimizers and learning-rate schedules of the published protocols, all of them optax's."""

import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from kdjax import tree
from kdjax.train.freezing import NEVER, Freezing
from kdjax.types import BadInput


def warmup_cosine(peak: float, *, steps: int, warmup_steps: int = 0) -> optax.Schedule:
    """Linear from zero to `peak` over `warmup_steps`, then a half cosine to zero at `steps`.

    Reference: Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983, eq. 5, one cycle.
    """
    if warmup_steps == 0:
        return optax.cosine_decay_schedule(peak, steps)
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, steps)


def stairs(peak: float, *, at_steps: Sequence[int], factor: float) -> optax.Schedule:
    """`peak`, multiplied by `factor` from each step of `at_steps` on."""
    return optax.piecewise_constant_schedule(peak, dict.fromkeys(at_steps, factor))


def ramp(
    begin: float, end: float, *, begin_step: int, end_step: int, cosine: bool = False
) -> optax.Schedule:
    """From `begin` at `begin_step` to `end` at `end_step`, along a line or half a cosine."""
    between = {"transition_steps": end_step - begin_step, "transition_begin": begin_step}
    if not cosine:
        return optax.linear_schedule(begin, end, **between)
    share = optax.linear_schedule(0.0, 1.0, **between)
    return lambda step: begin + (end - begin) * 0.5 * (1.0 - jnp.cos(jnp.pi * share(step)))


def sgd(
    schedule: optax.Schedule,
    *,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    decayed: str,
) -> optax.GradientTransformation:
    """SGD whose weight decay is added to the gradient, before the momentum, as PyTorch does.

    Args:
      schedule: learning rate over the step.
      momentum: decay of the sum of past gradients.
      nesterov: look ahead along the momentum.
      weight_decay: factor of the parameter that is added to its gradient.
      decayed: pattern of the names of the parameters that decay.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=lambda params: tree.match(params, decayed)),
        optax.sgd(schedule, momentum=momentum, nesterov=nesterov),
    )


def adamw(
    schedule: optax.Schedule, *, b1: float, b2: float, weight_decay: float, decayed: str
) -> optax.GradientTransformation:
    """AdamW: decay beside the adaptive update.

    Reference: Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101.
    """
    return optax.adamw(
        schedule,
        b1=b1,
        b2=b2,
        weight_decay=weight_decay,
        mask=lambda params: tree.match(params, decayed),
    )


def lars(
    schedule: optax.Schedule,
    *,
    momentum: float,
    trust: float,
    weight_decay: float,
    decayed: str,
) -> optax.GradientTransformation:
    """LARS: each tensor's step is scaled by the ratio of its norm to its gradient's.

    Parameters that `decayed` leaves out (biases and normalisation, as a rule) neither decay nor are
    scaled, as in SimCLR.

    Reference: You et al. 2017, https://arxiv.org/abs/1708.03888.
    """

    def chosen(params):
        return tree.match(params, decayed)

    return optax.lars(
        schedule,
        weight_decay=weight_decay,
        weight_decay_mask=chosen,
        trust_coefficient=trust,
        trust_ratio_mask=chosen,
        momentum=momentum,
    )


def decaying(inner: optax.GradientTransformation, decayed: str) -> optax.GradientTransformation:
    """`inner`, whose `init` refuses a pattern of what decays that matches no parameter.

    Args:
      inner: an optimizer, with its own state.
      decayed: pattern of the names of the parameters that it lets decay.

    Raises:
      BadInput: at `init`, when the pattern matches none of its parameters.
    """

    def init(params):
        names = tree.named_leaves(params)
        # optax looks for what follows the parameters with trees that have no leaf.
        if names and not any(re.fullmatch(decayed, name) for name in names):
            raise BadInput(
                "optimizer.decayed",
                f"{decayed!r} matches no parameter of this model, and weight_decay is not 0",
                f"a pattern is of whole names; the first of them is {next(iter(names))!r}",
            )
        return inner.init(params)

    return optax.GradientTransformation(init, inner.update)


def l1(
    weight: float, *, penalized: str, freezing: Freezing | None = None
) -> optax.GradientTransformation:
    """Adds the subgradient of `weight * |param|`, `weight * sign(param)`, to the gradient.

    Args:
      weight: of the penalty.
      penalized: pattern of the names of the parameters; the scales of norms in network slimming.
      freezing: what is frozen and has no penalty.

    Raises:
      BadInput: at `update`, when `penalized` matches no parameter, or only frozen ones.

    Reference: Liu et al. 2017, https://arxiv.org/abs/1708.06519, eq. 1.
    """

    def update(updates, state, params=None):
        chosen = tree.match(params, penalized)
        if not any(jax.tree.leaves(chosen)):
            raise BadInput("scale_l1", f"{penalized!r} matches no parameter of this model")
        if freezing is not None:
            since = freezing.since(params)
            chosen = jax.tree.map(lambda yes, first: yes and first != NEVER, chosen, since)
            if not any(jax.tree.leaves(chosen)):
                raise BadInput(
                    "scale_l1",
                    f"optimizer.frozen has all that {penalized!r} matches, and a penalty changes nothing",
                    "leave one of them out",
                )
        return jax.tree.map(
            lambda yes, u, p: u + weight * jnp.sign(p) if yes else u, chosen, updates, params
        ), state

    return optax.GradientTransformation(optax.init_empty_state, update)
