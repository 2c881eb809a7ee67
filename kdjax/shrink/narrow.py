"""A linen model run at other widths than it was written for, without a change to its code."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Int

from kdjax import tree
from kdjax.bound import attributes
from kdjax.types import PyTree, Variables

Widths = Mapping[str, Mapping[str, Any]]
"""`{"encoder/stem/conv": {"features": 12}}`: what the layers' attributes are instead, as plain data."""

Left = Mapping[tuple[str, int], Int[np.ndarray, " left"]]
"""The indices that stay on each axis that loses any, by `(name, axis)`."""


class Narrowed(nn.Module):
    """A model some of whose layers have other attributes. Its variables are the model's own.

    Attributes:
      wrapped: the model as it is written.
      widths: by the path of the layer in it.
    """

    wrapped: nn.Module
    widths: Widths

    def setup(self):
        """The model's variables are in this module's own scope."""
        nn.share_scope(self, self.wrapped)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives."""
        above, widths = len(self.path), self.widths

        # Not a method: linen would intercept it, too.
        def narrow(method, args, kwargs, context):
            found = widths.get(_path(context.module, above), {})
            values = {n: tuple(x) if isinstance(x, list) else x for n, x in found.items()}
            with attributes(context.module, **values):
                return method(*args, **kwargs)

        with nn.intercept_methods(narrow):
            return self.wrapped(*args, **kwargs)


def _path(layer: nn.Module, above: int = 0) -> str:
    """Of the variables of a bound layer; below a module that was given to a `Narrowed` model."""
    path = layer.path[above:]
    return "/".join(path[1:] if path[:1] == ("wrapped",) else path)


def layers_of(module: nn.Module, variables: PyTree, *inputs: Any, **kwargs: Any) -> dict[str, Any]:
    """The layers that a forward pass goes through as they are then, by path; nothing is computed."""
    found: dict[str, Any] = {}

    def note(method, args, kwargs, context):
        found.setdefault(_path(context.module), context.module.clone(parent=None))
        return method(*args, **kwargs)

    def forward(variables, *inputs):
        with nn.intercept_methods(note):
            return module.apply(variables, *inputs, **kwargs)

    jax.eval_shape(forward, variables, *inputs)
    return found


def widths_of(layers: Mapping[str, Any], variables: Variables, left: Left) -> Widths:
    """The attributes with which the layers have the widths that are left.

    Convolutions (also depthwise and in groups), dense layers, embeddings, GroupNorm and attention (by
    the head) state their widths, and so does a layer of another kind whose attribute `features` is the
    last length of its `kernel` or `bias`. Everything else takes them from what comes in, or does not,
    and is then found out by the shapes of the variables that it makes.
    """
    shapes = {name: np.shape(leaf) for name, leaf in tree.named_leaves(variables).items()}
    changed: dict[str, dict[tuple[str, int], np.ndarray]] = {}
    for (name, axis), positions in left.items():
        collection, _, path = name.partition("/")
        if collection == "params":
            changed.setdefault(path.rpartition("/")[0], {})[path, axis] = positions

    found: dict[str, Mapping[str, Any]] = {}
    for path, layer in layers.items():
        below = {
            (name.removeprefix(f"{path}/") if path else name, axis): positions
            for of, places in changed.items()
            if of == path or of.startswith(f"{path}/") or not path
            for (name, axis), positions in places.items()
        }
        if not below or any(
            isinstance(layers[above], nn.MultiHeadDotProductAttention)
            for above in _above(path, layers)
        ):
            continue  # attention states the widths of the layers inside it
        prefix = f"params/{path}/" if path else "params/"
        own = {n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)}
        if rule := _rule(layer):
            found[path] = rule(layer, own, below)
    return {path: dict(values) for path, values in found.items() if values}


def _above(path: str, layers: Mapping[str, Any]) -> Iterator[str]:
    parts = path.split("/")
    for n in range(len(parts)):
        above = "/".join(parts[:n])
        if above in layers and above != path:
            yield above


def _length(shapes, left, name: str, axis: int) -> int:
    axis %= len(shapes[name])
    return len(left[name, axis]) if (name, axis) in left else shapes[name][axis]


def _rule(layer: Any) -> Callable[..., Mapping[str, Any]] | None:
    match layer:
        case nn.Conv() | nn.ConvTranspose():
            return _conv
        case nn.Dense() | nn.Embed() | nn.DenseGeneral():
            return _dense
        case nn.GroupNorm():
            return _group_norm
        case nn.MultiHeadDotProductAttention():
            return _attention
    # Whatever else says how wide it is in linen's word for it, such as a recurrent layer.
    return _own if isinstance(getattr(layer, "features", None), int) else None


def _own(layer: Any, shapes, left) -> dict[str, Any]:
    for name in ("kernel", "bias"):
        if shapes.get(name, ())[-1:] == (layer.features,):
            return {"features": _length(shapes, left, name, -1)}
    return {}


def _conv(layer: Any, shapes, left) -> dict[str, Any]:
    features = _length(shapes, left, "kernel", -1)
    found: dict[str, Any] = {"features": features}
    groups = getattr(layer, "feature_group_count", 1)
    if groups > 1:
        *_, out = shapes["kernel"]
        kept = left.get(("kernel", len(shapes["kernel"]) - 1), np.arange(out))
        found["feature_group_count"] = len(np.unique(kept // (out // groups)))
    return found


def _dense(layer: Any, shapes, left) -> dict[str, Any]:
    if isinstance(layer, nn.Embed):
        return {
            "num_embeddings": _length(shapes, left, "embedding", 0),
            "features": _length(shapes, left, "embedding", 1),
        }
    if isinstance(layer.features, int):
        return {"features": _length(shapes, left, "kernel", -1)}
    n = len(layer.features)
    return {"features": [_length(shapes, left, "kernel", i - n) for i in range(n)]}


def _group_norm(layer: Any, shapes, left) -> dict[str, Any]:
    if layer.num_groups is None:
        return {}
    name = "scale" if "scale" in shapes else "bias"
    size = shapes[name][0] // layer.num_groups
    return {"num_groups": _length(shapes, left, name, 0) // size}


def _attention(layer: Any, shapes, left) -> dict[str, Any]:
    heads, width = (_length(shapes, left, "query/kernel", i) for i in (-2, -1))
    found = {"num_heads": heads, "qkv_features": heads * width}
    if layer.out_features is not None:
        found["out_features"] = _length(shapes, left, "out/kernel", -1)
    return found
