"""Weights of a linen module from a file, and into one: what a notebook calls."""

import json
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import safetensors.numpy
from flax import traverse_util
from jaxtyping import Array

from kdjax import files, models, tree
from kdjax.types import Variables
from kdjax.weights.account import Account
from kdjax.weights.mapping import mapped
from kdjax.weights.rules import Named
from kdjax.weights.sources import KEY, published
from kdjax.weights.writing import written

ENCODER, HEAD = "encoder", "classifier"


def named(
    module: nn.Module,
    variables: Variables,
    *,
    title: str | None = None,
    size: tuple[int, int] | None = None,
) -> Named:
    """A network for its names.

    Args:
      module: of the encoder.
      variables: those of a `kdjax.models.Classifier` of it, or of itself, or their shapes.
      title: of the network, for messages.
      size: of the images that it sees.
    """
    whole = ENCODER in variables["params"] and HEAD in variables["params"]
    inside = {
        collection: of[ENCODER] if whole else of
        for collection, of in variables.items()
        if not whole or ENCODER in of
    }
    encoder = {
        f"{collection}/{name}": leaf
        for collection, of in inside.items()
        for name, leaf in tree.named_leaves(of).items()
    }
    head = tree.named_leaves(variables["params"][HEAD]) if whole else None
    return Named(module, encoder, head, title or type(module).__name__, size)


def read(
    source: str,
    module: nn.Module,
    example: Array,
    *,
    classes: int | None = None,
    layout: str | None = None,
    skip: str | None = None,
) -> tuple[dict[str, Any], Account]:
    """The variables of a network from published weights, and what has become of every tensor.

    Args:
      source: a safetensors file, a folder with one or several, `hf:owner/name[@revision]`, `timm:name`.
      module: the encoder.
      example: a batch that it takes, for shapes alone.
      classes: of the classifier that is read, too: the variables are those of `kdjax.models.Classifier`.
        None: those of the encoder.
      layout: whose names the tensors have; found by them by default.
      skip: pattern of whole names, of tensors or of variables, that may be left over. Variables that are
        left over are random.

    Raises:
      BadInput: the weights are not there, not whole, or not those of such a network.
    """
    model = module if classes is None else models.Classifier(module, classes)

    def init() -> Any:
        return model.init(jax.random.key(0), example, train=True)

    height_width = (example.shape[1], example.shape[2]) if example.ndim == 4 else None
    network = named(module, jax.eval_shape(init), size=height_width)
    found = mapped(published(source), network, layout=layout, skip=skip)
    encoder, head = found.read()
    given = [*encoder] if classes is None else [*encoder, *(head or ())]
    complete = len(given) == len(network.encoder) + len(network.head or ())
    flat: dict[str, Any] = {}
    if not complete:
        flat |= traverse_util.flatten_dict(jax.jit(init)(), sep="/")
    for name, array in encoder.items():
        collection, _, path = name.partition("/")
        flat[name if classes is None else f"{collection}/{ENCODER}/{path}"] = array
    for name, array in (head or {}).items():
        flat[f"params/{HEAD}/{name}"] = array
    return traverse_util.unflatten_dict(flat, sep="/"), found.account


def write(
    path: str | os.PathLike[str],
    module: nn.Module,
    variables: Variables,
    *,
    layout: str = "kdjax",
    prefix: str | None = None,
    counters: Mapping[str, int] | None = None,
    said: Mapping[str, Any] | None = None,
) -> list[str]:
    """Writes the variables of a network as safetensors, in one move.

    Args:
      path: of the file.
      module: the encoder.
      variables: those of a `kdjax.models.Classifier` of it, or of itself.
      layout: whose names the tensors get.
      prefix: before the names, as `Account.prefix` has it; the layout's own by default.
      counters: as `Account.counters`; zeros by default.
      said: more about the network, for the header, as JSON: `preprocessing`, `classes`.

    Returns:
      The names of the tensors.

    Raises:
      BadInput: there is no such layout of the network.
      StorageFailed: the file cannot be written.
    """
    tensors = written(named(module, variables), layout, prefix=prefix, counters=counters)
    save(path, tensors, layout=layout, said=said or {})
    return sorted(tensors)


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    *,
    layout: str,
    said: Mapping[str, Any],
) -> None:
    """Writes tensors with what is said of them into the header, under `kdjax`."""
    metadata = {
        "format": "np" if layout == "kdjax" else "pt",  # without which transformers refuses a file
        KEY: json.dumps({"layout": layout, **said}, sort_keys=True, allow_nan=False),
    }
    files.write(path, safetensors.numpy.save({**tensors}, metadata=metadata))
