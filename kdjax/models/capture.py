"""What modules inside a model give, by their paths, without touching the model."""

import difflib
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn

from kdjax.types import BadInput, PyTree, Variables


class Captured(NamedTuple):
    """A forward pass and what was seen in it.

    Attributes:
      outputs: of the model.
      features: of each module that was asked for, by its path.
      state: the collections that the pass changed, `{"batch_stats": ...}`; empty as a rule in
        evaluation.
    """

    outputs: Any
    features: dict[str, Any]
    state: dict[str, PyTree]


def capture(
    module: nn.Module,
    variables: Variables,
    *inputs: Any,
    paths: Sequence[str],
    mutable: Sequence[str] = (),
    **kwargs: Any,
) -> Captured:
    """Runs `module` and keeps the outputs of the modules at `paths`.

    A path has the names by which parameters are known: `"encoder/stage1_block0"` in a `Classifier`
    of a ResNet. An output is what that module's `__call__` returns; an activation that its parent
    applies afterwards is not in it. Nothing else is kept, so under `jit` the rest is free.

    Args:
      module: any linen module, as it is.
      variables: of `module`.
      *inputs: of `module`.
      paths: modules inside it, in any order.
      mutable: collections that the pass may change, as `"batch_stats"` in training.
      **kwargs: of the call, as `train`.

    Raises:
      BadInput: nothing at one of the paths is called, or it is called more than once.
    """
    seen: dict[str, None] = {}

    def wanted(inner: nn.Module, method: str) -> bool:
        # A `Narrowed` model has its variables in the scope of the model that it wraps.
        path = "/".join(inner.path).removeprefix("wrapped/")
        if method == "__call__" and path:
            seen[path] = None
        return method == "__call__" and path in paths

    outputs, changed = module.apply(
        variables,
        *inputs,
        mutable=["intermediates", *mutable],
        capture_intermediates=wanted,
        **kwargs,
    )
    state = dict(changed)
    kept = state.pop("intermediates", {})
    features = {}
    for path in paths:
        if path not in seen:
            near = ", ".join(difflib.get_close_matches(path, seen, n=3, cutoff=0.0))
            raise BadInput("paths", f"no module is called at {path!r}", f"the nearest are {near}")
        found = kept
        for name in path.split("/"):
            found = found[name]
        calls = found["__call__"]
        if len(calls) > 1:
            raise BadInput(
                "paths",
                f"{path} is called {len(calls)} times",
                "give the path of what is called once",
            )
        (features[path],) = calls
    return Captured(outputs, features, state)
