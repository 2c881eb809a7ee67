"""The folding of BatchNorms into the layers before them, found by what a model does and not by names."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core

from kdjax.bound import attributes
from kdjax.types import BadInput, PyTree, Variables

_LAYERS = (nn.Conv, nn.ConvLocal, nn.ConvTranspose, nn.Dense, nn.DenseGeneral)
_MARK = "kdjax fold "


@dataclasses.dataclass(frozen=True)
class _Fold:
    """A BatchNorm and a layer that it can be part of.

    Attributes:
      norm: path of the BatchNorm.
      epsilon: of it.
      axis: of the layer's kernel that the channels are on.
      layer: the layer, as it is called.
    """

    norm: str
    epsilon: float
    axis: int
    layer: nn.Module

    def bias_of(self, kernel: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a bias of the layer, from that of its kernel."""
        match self.layer:
            case nn.ConvLocal():
                return (*kernel[:-2], kernel[-1])
            case nn.DenseGeneral(features=tuple() | list() as features, batch_dims=batch):
                return (*kernel[: len(batch)], *kernel[-len(features) :])
            case nn.DenseGeneral(batch_dims=batch):
                return (*kernel[: len(batch)], kernel[-1])
        return (kernel[self.axis],)


class Folded(nn.Module):
    """A model without the BatchNorms that `fold` has taken into its layers, which have a bias then.

    Those that are left have the statistics that they had, also in training. For a model that has no such
    form of its own, as those of `kdjax.models` have with `Compute(folded=True)`.

    Attributes:
      unfolded: the model as it is written.
    """

    unfolded: nn.Module

    def setup(self):
        """The model's variables are in this module's own scope."""
        nn.share_scope(self, self.unfolded)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives."""

        def fold(method, args, kwargs, context):
            layer = context.module
            if context.method_name != "__call__":
                return method(*args, **kwargs)
            if isinstance(layer, nn.BatchNorm):
                if not layer.has_variable("batch_stats", "mean"):
                    return args[0] if args else kwargs["x"]
                return _frozen(layer, method, args, kwargs)
            before = getattr(layer, "use_bias", None)
            if not _is_layer(layer) or before or not layer.has_variable("params", "bias"):
                return method(*args, **kwargs)
            with attributes(layer, use_bias=True):
                return method(*args, **kwargs)

        with nn.intercept_methods(fold):
            return self.unfolded(*args, **kwargs)


def _frozen(norm: nn.BatchNorm, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a BatchNorm gives with its running statistics, whatever it is told in the call."""
    rest = {name: value for name, value in kwargs.items() if name != "use_running_average"}
    with attributes(norm, use_running_average=True):
        return method(*args[:1], **rest)


def fold(
    module: nn.Module | Mapping[str, Any],
    variables: Variables | None = None,
    *inputs: Any,
    **kwargs: Any,
) -> dict[str, PyTree]:
    """Folds each BatchNorm of a model into the convolution or the dense layer that it follows.

    `layer(x) * s + (bias - mean * s)` with `s = scale / sqrt(var + epsilon)` is one layer whose kernel
    is scaled per output channel, so zeros of a pruned kernel stay zeros. Which BatchNorm follows which
    layer, and its epsilon, is found on the model's own trace. The result is what the same model takes
    with `Compute(folded=True)`, or as `Folded(module)`.

    A BatchNorm stays as it is, with its statistics, where it follows no such layer, as those do that come
    before a convolution; where something else reads that layer's result, too; or where the channels are
    elsewhere.

    Args:
      module: the model.
      variables: of it, arrays, also traced ones.
      *inputs: arrays or shapes that it is applied to.
      **kwargs: with which it is applied in evaluation, such as `train=False`.

    Raises:
      BadInput: a BatchNorm takes the statistics of its batch; the line has the paths. Or the first
        argument is no model.
    """
    if not isinstance(module, nn.Module) or variables is None:
        raise BadInput(
            "fold",
            "give the model first, as in fold(model, variables, images, train=False): the epsilon of "
            "a BatchNorm is in no variable",
        )
    folds = _folds(module, variables, *inputs, **kwargs)
    if not folds:
        return dict(variables)
    of_norms = {name: variables[name] for name in ("params", "batch_stats")}
    # Arrays are folded on the host: each shape of each operation would be compiled for by itself.
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(of_norms))
    xp = jnp if traced else np
    of_norms = of_norms if traced else jax.device_get(of_norms)
    params, stats = _flat(of_norms["params"]), _flat(of_norms["batch_stats"])
    with np.errstate(all="ignore"):  # what is not finite stays so, as on a device
        for layer, found in folds.items():
            norm = found.norm
            scale = params.get(_join(norm, "scale"), 1.0) / xp.sqrt(
                stats[_join(norm, "var")] + found.epsilon
            )
            kernel, mean = params[_join(layer, "kernel")], stats[_join(norm, "mean")]
            shift, bias = params.get(_join(norm, "bias"), 0.0), params.get(_join(layer, "bias"))
            params[_join(layer, "kernel")] = kernel * _along(scale, found.axis, kernel.ndim)
            if bias is None:
                shape = found.bias_of(kernel.shape)
                bias = xp.broadcast_to(_along(shift - mean * scale, -1, len(shape)), shape)
            else:
                mean, scale, shift = (
                    _along(xp.asarray(x), -1, bias.ndim) if xp.ndim(x) else x
                    for x in (mean, scale, shift)
                )
                bias = shift + (bias - mean) * scale
            params[_join(layer, "bias")] = bias
    gone = {found.norm for found in folds.values()}
    left = {
        name: _nested(
            {path: leaf for path, leaf in flat.items() if path.rpartition("/")[0] not in gone}
        )
        for name, flat in (("params", params), ("batch_stats", stats))
    }
    folded = {name: tree for name, tree in {**variables, **left}.items() if tree}
    return folded if traced else jax.device_put(folded)


def _folds(
    module: nn.Module, variables: Variables, *inputs: Any, **kwargs: Any
) -> dict[str, _Fold]:
    """By the path of each layer that a BatchNorm goes into, what is to be done; nothing is computed."""
    layers: dict[str, nn.Module] = {}
    norms: dict[str, nn.BatchNorm] = {}
    axes: dict[str, set[int]] = {}
    live: set[str] = set()

    def note(method, args, kwargs, context):
        layer = context.module
        if context.method_name != "__call__" or layer.scope is None:
            return method(*args, **kwargs)
        path = _path(layer)
        if isinstance(layer, nn.BatchNorm):
            norms[path] = layer.clone(parent=None)
            x = args[0] if args else kwargs.pop("x")
            axes.setdefault(path, set()).add(x.ndim)
            running = kwargs.get("use_running_average", args[1] if len(args) > 1 else None)
            x = checkpoint_name(x, f"{_MARK}norm {path}")
            if not (layer.use_running_average if running is None else running):
                live.add(path)
                return x
            return method(x, *args[1:], **kwargs)
        found = method(*args, **kwargs)
        if not _is_layer(layer):
            return found
        layers[path] = layer.clone(parent=None)
        return checkpoint_name(found, f"{_MARK}layer {path}")

    def forward(variables, *inputs):
        with nn.intercept_methods(note):
            return module.apply(variables, *inputs, **kwargs)

    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
    jaxpr = jax.make_jaxpr(forward)(shapes, *inputs)
    if live:
        named = "; ".join(norm or type(norms[norm]).__name__ for norm in sorted(live))
        raise BadInput(
            "",
            f"normalisations that take the statistics of their batch: {named}",
            "fold in evaluation",
        )
    if not norms:
        return {}
    follows, several = _follows(jaxpr)
    normed: dict[str, set[str]] = {}
    for norm, before in follows.items():
        for layer in filter(None, before):
            normed.setdefault(layer, set()).add(norm)
    several |= {layer for layer, after in normed.items() if len(after) > 1}
    found: dict[str, _Fold] = {}
    for norm, of in norms.items():
        before = follows.get(norm, {None})
        if not _foldable(of, before, several, axes[norm]):
            continue
        for layer in filter(None, before):
            axis = -2 if getattr(layers[layer], "transpose_kernel", False) else -1
            found[layer] = _Fold(norm, of.epsilon, axis, layers[layer])
    return found


def _foldable(
    norm: nn.BatchNorm, before: set[str | None], several: set[str], ndims: set[int]
) -> bool:
    """Whether a BatchNorm can be part of the layers before it, if it is no more than linen's own."""
    return (
        type(norm) is nn.BatchNorm
        and None not in before
        and not several & {str(layer) for layer in before}
        and all(norm.axis in (-1, ndim - 1) for ndim in ndims)
    )


def _follows(jaxpr: Any) -> tuple[dict[str, set[str | None]], set[str]]:
    """The layers right before each BatchNorm, and the layers that are read otherwise as well.

    None stands for what is no layer.
    """
    follows: dict[str, set[str | None]] = {}
    several: set[str] = set()

    def walk(inside: Any) -> None:
        made: dict[Any, str] = {}
        for equation in inside.eqns:
            marked = equation.params.get("name") if equation.primitive.name == "name" else None
            kind, _, path = str(marked or "").removeprefix(_MARK).partition(" ")
            ours = str(marked or "").startswith(_MARK)
            for variable in equation.invars:
                before = None if isinstance(variable, core.Literal) else made.get(variable)
                if ours and kind == "norm":
                    follows.setdefault(path, set()).add(before)
                elif before is not None:
                    several.add(before)
            if ours and kind == "layer":
                made[equation.outvars[0]] = path
            for below in core.jaxprs_in_params(equation.params):
                walk(getattr(below, "jaxpr", below))
        several.update(
            made[v] for v in inside.outvars if not isinstance(v, core.Literal) and v in made
        )

    walk(jaxpr.jaxpr)
    return follows, several


def _path(layer: nn.Module) -> str:
    """Of the variables of a bound layer. What its scope calls its path is not that of a shared scope."""
    scope: Any = layer.scope
    names = []
    while scope.parent is not None:
        names.append(scope.name)
        scope = scope.parent
    return "/".join(reversed(names))


def _is_layer(layer: Any) -> bool:
    """Whether it computes what linen's layers of that kind do, whatever it is called."""
    return any(
        isinstance(layer, kind) and type(layer).__call__ is kind.__call__ for kind in _LAYERS
    )


def _along(values: Any, axis: int, ndim: int) -> Any:
    """One value for each channel, to go with an array whose channels are on that axis."""
    shape = [1] * ndim
    shape[axis] = -1
    return values.reshape(shape)


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _flat(nested: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, child in nested.items():
        here = _join(path, name)
        found |= _flat(child, here) if isinstance(child, Mapping) else {here: child}
    return found


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, leaf in flat.items():
        *above, name = path.split("/")
        at = found
        for part in above:
            at = at.setdefault(part, {})
        at[name] = leaf
    return found
