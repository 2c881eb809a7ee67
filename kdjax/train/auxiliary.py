"""Modules that are trained with a model and left behind: predictors, connectors, probes."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from kdjax.train import freezing
from kdjax.train.state import BESIDE, MEMORY
from kdjax.types import PyTree, Variables


def with_auxiliary(variables: Variables, beside: Mapping[str, Variables]) -> dict[str, PyTree]:
    """`variables` with those of other modules beside them, by name.

    A linen module ignores what it does not know in its collections, so the model runs as before.
    """
    found = dict(variables)
    for name, own in beside.items():
        for collection, part in own.items():
            known = found.get(collection, {})
            found[collection] = {**known, BESIDE: {**known.get(BESIDE, {}), name: part}}
    return found


def apply_auxiliary(
    module: nn.Module,
    name: str,
    params: PyTree,
    model_state: Mapping[str, PyTree],
    *inputs: Any,
    **kwargs: Any,
) -> tuple[Any, dict[str, PyTree]]:
    """`(outputs, model_state)` of a module beside the model, which may change its statistics.

    Args:
      module: any linen module.
      name: that its variables have in `with_auxiliary`.
      params: of the whole state: `state.params`, or those that a gradient is taken of.
      model_state: of the whole state.
      *inputs: of the module.
      **kwargs: of its call, such as `train`.
    """
    collections = {"params": params, **model_state}
    own = {
        collection: found[BESIDE][name]
        for collection, found in collections.items()
        if collection != MEMORY and name in found.get(BESIDE, {})
    }
    with freezing.beside():
        outputs, changed = module.apply(own, *inputs, mutable=["batch_stats"], **kwargs)
    changed_state = dict(model_state)
    for collection, part in changed.items():
        known = changed_state[collection]
        changed_state[collection] = {**known, BESIDE: {**known[BESIDE], name: part}}
    return outputs, changed_state
