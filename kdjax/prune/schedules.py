"""How sparsity grows: `step -> sparsity`."""

import math

import jax.numpy as jnp
import optax

from kdjax.prune.masks import check_sparsity
from kdjax.types import BadInput


def _check(sparsity: float, begin_step: int, end_step: int) -> None:
    check_sparsity(sparsity)
    if not 0 <= begin_step < end_step:
        raise BadInput(
            "prune.begin_step, end_step", f"{begin_step}, {end_step} are not 0 <= begin < end"
        )


def one_shot(sparsity: float, *, at_step: int) -> optax.Schedule:
    """Zero before `at_step`, `sparsity` from it on.

    Args:
      sparsity: the target, in [0, 1).
      at_step: first step at which the target is reached.

    Raises:
      BadInput: the target is outside [0, 1), or the step is negative.
    """
    check_sparsity(sparsity)
    if at_step < 0:
        raise BadInput("prune.at_step", f"{at_step} is not at least 0")
    return lambda step: jnp.where(jnp.asarray(step) >= at_step, jnp.float32(sparsity), 0.0)


def linear(sparsity: float, *, begin_step: int, end_step: int) -> optax.Schedule:
    """`sparsity * (step - begin) / (end - begin)`: zero before, `sparsity` after.

    Args:
      sparsity: the target, in [0, 1).
      begin_step: last step at which the sparsity is zero.
      end_step: first step at which the target is reached.

    Raises:
      BadInput: the target is outside [0, 1), or the steps are not `0 <= begin < end`.
    """
    _check(sparsity, begin_step, end_step)

    def schedule(step):
        # Clipped after the division, for a compiler that multiplies by 1 / length instead: the
        # target is reached exactly.
        part = (jnp.asarray(step) - begin_step) / (end_step - begin_step)
        return sparsity * jnp.clip(part, 0.0, 1.0)

    return schedule


def cubic(sparsity: float, *, begin_step: int, end_step: int) -> optax.Schedule:
    """`sparsity * (1 - (1 - (step - begin) / (end - begin))^3)`: zero before, `sparsity` after.

    Args:
      sparsity: the target, in [0, 1).
      begin_step: last step at which the sparsity is zero.
      end_step: first step at which the target is reached.

    Raises:
      BadInput: the target is outside [0, 1), or the steps are not `0 <= begin < end`.

    Reference: Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878, sec. 3.
    """
    _check(sparsity, begin_step, end_step)
    return optax.polynomial_schedule(
        0.0, sparsity, power=3, transition_steps=end_step - begin_step, transition_begin=begin_step
    )


def periodic(sparsity: float, *, begin_step: int, end_step: int, rounds: int) -> optax.Schedule:
    """`1 - (1 - sparsity)^(k / rounds)` after `k` cuts: each leaves the same part of what is left.

    Cut `k` comes at step `begin + k (end - begin) / rounds`, rounded up, so the last is at
    `end_step` and the sparsity is zero before the first. The values are found in float64 and
    rounded once. Iterative magnitude pruning; a mask transform has to look at each of these steps.

    Args:
      sparsity: the target, in [0, 1).
      begin_step: the first round of training begins here; no cut is made at it.
      end_step: step of the last cut, at which the target is reached.
      rounds: number of cuts, one step or more apart.

    Raises:
      BadInput: the target is outside [0, 1), the steps are not `0 <= begin < end`, or the rounds
        are not from 1 to `end - begin`.

    Reference: Frankle and Carbin 2018, https://arxiv.org/abs/1803.03635, sec. 1.
    """
    _check(sparsity, begin_step, end_step)
    length = end_step - begin_step
    if not 1 <= rounds <= length:
        raise BadInput("prune.rounds", f"{rounds} is not from 1 to the {length} steps between")
    cuts = [begin_step - (-k * length // rounds) for k in range(1, rounds + 1)]
    # -expm1 keeps the digits of small sparsities that 1 - (1 - s)^x would lose.
    part = [-math.expm1(math.log1p(-sparsity) * k / rounds) for k in range(rounds)]

    def schedule(step):
        done = jnp.searchsorted(jnp.asarray(cuts), step, side="right")
        return jnp.asarray([*part, sparsity], jnp.float32)[done]

    return schedule


def cosine_fraction(fraction: float, *, end_step: int) -> optax.Schedule:
    """`fraction / 2 * (1 + cos(pi step / end))`, and zero from the end on.

    The part of the kept weights that RigL drops and grows anew at a step.

    Args:
      fraction: at step 0, in [0, 1); the paper uses 0.3.
      end_step: first step at which nothing is dropped.

    Raises:
      BadInput: the fraction is outside [0, 1), or the end is below 1.

    Reference: Evci et al. 2019, https://arxiv.org/abs/1911.11134, sec. 3, `f_decay`.
    """
    check_sparsity(fraction, "prune.fraction")
    if end_step < 1:
        raise BadInput("prune.end_step", f"{end_step} is not at least 1")
    return optax.cosine_decay_schedule(fraction, end_step)
