"""The variables of a model by the names that published weights are mapped to, and put back."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from kdjax import tasks, tree, weights
from kdjax.artifacts.model import EncoderSpec, Spec
from kdjax.models import Compute
from kdjax.types import Variables

_ENCODER, _CLASSIFIER = "encoder", "classifier"


def named(spec: Spec | EncoderSpec, variables: Variables) -> weights.Named:
    """A model for its names.

    Args:
      spec: of it.
      variables: of it, or their shapes.
    """
    encoder = {
        f"{collection}/{name}": leaf
        for collection, inside in variables.items()
        if _ENCODER in inside
        for name, leaf in tree.named_leaves(inside[_ENCODER]).items()
    }
    has_head = isinstance(spec, Spec) and isinstance(spec.task, tasks.Classification)
    head = tree.named_leaves(variables["params"][_CLASSIFIER]) if has_head else None
    images = spec.inputs.images
    size = images[0].size if len(images) == 1 else None
    module = spec.encoder.module(Compute())
    return weights.Named(module, encoder, head, spec.encoder.title, size)


def put(
    variables: Variables,
    encoder: Mapping[str, np.ndarray],
    head: Mapping[str, np.ndarray] | None,
) -> dict[str, Any]:
    """`variables` with these in the place of theirs; those that are not named stay.

    Args:
      variables: of a model.
      encoder: by name, see `kdjax.weights.Named`.
      head: likewise; None leaves the classifier as it is.
    """
    flat = traverse_util.flatten_dict(variables, sep="/")
    for name, array in encoder.items():
        collection, _, path = name.partition("/")
        flat[f"{collection}/{_ENCODER}/{path}"] = jnp.asarray(array)
    for name, array in (head or {}).items():
        flat[f"params/{_CLASSIFIER}/{name}"] = jnp.asarray(array)
    return traverse_util.unflatten_dict(flat, sep="/")
