"""The parameters of a model in the order in which it uses them."""

from typing import Any

import flax.linen as nn
import jax
from flax import traverse_util


def names_in_order(module: nn.Module, *inputs: Any, **kwargs: Any) -> tuple[str, ...]:
    """Names of all parameters as a forward pass first asks for them, as `encoder/stem/conv/kernel`.

    A tree of arrays has its names in alphabetical order, `block10` before `block2`. Nothing is computed.

    Args:
      module: any linen module.
      *inputs: of its call: arrays, or their shapes.
      **kwargs: of its call, such as `train`.
    """
    found: list[str] = []

    def init(key: jax.Array, *inputs: Any) -> None:
        variables = module.init(key, *inputs, **kwargs)
        found.extend(traverse_util.flatten_dict(variables["params"], sep="/"))

    jax.eval_shape(init, jax.random.key(0), *inputs)
    return tuple(found)
