"""How sparsity grows: `step -> sparsity`."""

import optax

from kdjax.types import BadInput


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
    if not 0 <= sparsity < 1:
        raise BadInput(f"prune.sparsity: {sparsity} is not in [0, 1)")
    if not 0 <= begin_step < end_step:
        raise BadInput(
            f"prune.begin_step, end_step: {begin_step}, {end_step} are not 0 <= begin < end"
        )
    return optax.polynomial_schedule(
        0.0, sparsity, power=3, transition_steps=end_step - begin_step, transition_begin=begin_step
    )
