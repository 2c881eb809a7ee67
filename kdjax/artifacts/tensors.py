"""The variables of a model by the names that published weights are mapped to, and put back."""

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from kdjax import quant, tasks, tree, weights
from kdjax.artifacts.model import EncoderSpec, Spec
from kdjax.inputs import Image
from kdjax.types import Variables
from kdjax.weights.reading import ENCODER, HEAD

MASKED_HEAD = "masked_lm"
"""The part of a masked language model that says the tokens."""

Numbers = Literal["integers", "float"]
"""That a quantized layer is written in."""


def named(spec: Spec | EncoderSpec, variables: Variables) -> weights.Named:
    """A model for its names.

    Args:
      spec: of it.
      variables: of it, or their shapes.
    """
    images = spec.inputs.images
    size = images[0].size if len(images) == 1 else None
    module = spec.bare()
    title = spec.encoder.title
    if isinstance(spec, Spec) and isinstance(spec.task, tasks.Classification):
        return weights.named(module, variables, title=title, size=size)
    inside = {name: of[ENCODER] for name, of in variables.items() if ENCODER in of}
    found = weights.named(module, inside, title=title, size=size)
    if isinstance(spec, Spec) and isinstance(spec.task, tasks.MaskedLM):
        own = tree.named_leaves({MASKED_HEAD: variables["params"][MASKED_HEAD]})
        return found._replace(head=own)
    return found


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
    flat: dict[str, Any] = {**traverse_util.flatten_dict(variables, sep="/")}
    for name, array in encoder.items():
        collection, _, path = name.partition("/")
        flat[f"{collection}/{ENCODER}/{path}"] = jnp.asarray(array)
    for name, array in (head or {}).items():
        at = name if name.startswith(f"{MASKED_HEAD}/") else f"{HEAD}/{name}"
        flat[f"params/{at}"] = jnp.asarray(array)
    return traverse_util.unflatten_dict(flat, sep="/")


def written(
    spec: Spec | EncoderSpec,
    variables: Variables,
    layout: str,
    *,
    account: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """The tensors of a float model in a layout, by name.

    Args:
      spec: of the model; a projector, or the head of another task than classes, is left out.
      variables: of it.
      layout: whose names they get.
      account: of the weights that it began with, in this layout, as a manifest has it.

    Raises:
      BadInput: the model has no such layout; the line begins with `layout`.
    """
    known = account or {}
    return weights.written(
        named(spec, variables), layout, prefix=known.get("prefix"), counters=known.get("counters")
    )


def in_integers(
    spec: Spec, variables: Variables, *, numbers: Numbers = "integers"
) -> dict[str, np.ndarray]:
    """The tensors of a quantized model in kdjax's own layout.

    A layer that has a rule is stored as int8, whatever its bits, and its scales are beside it, under its
    name and `.scale`, with axes of length 1 where numbers share one: `integers * scale` is what the model
    computes with; where a rule is `smooth`, `integers * scale / divisors`, which are under its name and
    `.smooth`. The ranges of its activations are under `ranges/`.

    Args:
      spec: of it.
      variables: of it.
      numbers: `float` for the products, in the place of integers and scales.
    """
    flat = traverse_util.flatten_dict(variables, sep="/")
    found = {name: np.asarray(array) for name, array in flat.items()}
    graph = spec.layers()
    own = {name: part for name, part in variables.items() if name != quant.RANGES}
    parameters = graph.parameters(own, spec.blank(), names=list(spec.rules))
    for layer, live in parameters:
        name = f"params/{layer.name.partition('#')[0]}"
        kept, rule = found[name], spec.rules[layer.name]
        by = found.pop(f"{quant.RANGES}/{layer.name}{quant.SMOOTH}", None)
        larger = 1.0
        if by is not None:
            larger = np.asarray(quant.along(by, graph.contracted(layer)[1], live.ndim))
        stored = quant.quantize_weights(jnp.asarray(live * larger), rule, channels=layer.channels)
        # The product may see the parameter in another shape, with the numbers in the same order.
        integers = np.asarray(stored.integers).reshape(kept.shape)
        scale = np.broadcast_to(np.asarray(stored.scale), live.shape).reshape(kept.shape)
        if numbers == "float":
            whole = integers * scale / np.broadcast_to(larger, live.shape).reshape(kept.shape)
            found[name] = np.ascontiguousarray(whole, np.float32)
            continue
        if by is not None:
            found[f"{name}.smooth"] = by
        found[name] = integers.astype(np.int8)
        found[f"{name}.scale"] = _compact(scale)
    return found


def _compact(scale: np.ndarray) -> np.ndarray:
    """With axes of length 1 where all along them is the same."""
    for axis in range(scale.ndim):
        first = scale.take([0], axis)
        if np.array_equal(np.broadcast_to(first, scale.shape), scale):
            scale = first
    return np.ascontiguousarray(scale)


def described(
    spec: Spec | EncoderSpec,
    *,
    numbers: str | None = None,
    frame: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the header of a file says of a model: its architecture, classes and preprocessing.

    Args:
      spec: of the model.
      numbers: that a quantized model is written in.
      frame: how pictures became those that the model was given, see `kdjax.contexts.Splits.frame`.
    """
    said: dict[str, Any] = {"architecture": spec.encoder.title, "model": spec.plain()}
    if isinstance(spec, Spec) and isinstance(spec.task, tasks.Classification):
        said["classes"] = spec.task.classes
    if numbers is not None:
        said["numbers"] = numbers
    if len(spec.inputs.images) == 1:
        said["preprocessing"] = _preprocessing(spec.inputs.images[0], frame).plain()
    return said


def _preprocessing(image: Image, frame: Mapping[str, Any] | None) -> weights.Preprocessing:
    """Of pictures of any shape; the nearest that there is of those that are resized twice, or padded."""
    channels = image.shape[-1]
    resize = "squash" if image.crop is None else "short_side"
    crop, interpolation = image.crop or 1.0, image.interpolation or "bilinear"
    if frame is not None and image.crop is None:
        resize, crop, interpolation = (frame[n] for n in ("resize", "crop", "interpolation"))
    return weights.Preprocessing(
        size=image.size,
        crop=crop,
        interpolation=interpolation,
        mean=image.mean * channels if len(image.mean) == 1 else image.mean,
        std=image.std * channels if len(image.std) == 1 else image.std,
        squash=resize != "short_side",
    )
