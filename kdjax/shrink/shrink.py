"""From masks to smaller shapes: what no longer matters is taken away, constants go to what follows."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from kdjax import tree
from kdjax.shrink.cut import cut, cut_following
from kdjax.shrink.groups import (
    Group,
    Groups,
    Kept,
    Member,
    check_kept,
    find_groups,
    input_shapes,
    kept_positions,
    shapes_of,
)
from kdjax.shrink.narrow import Left, Narrowed, Widths, layers_of, widths_of
from kdjax.shrink.plan import Plan
from kdjax.shrink.taps import Seen, activations
from kdjax.shrink.tracing_types import Contraction
from kdjax.types import BadInput, PyTree, Variables

_CONSTANT = 1e-6  # of the largest activation: what is as constant as float32 can tell


@dataclasses.dataclass(frozen=True)
class Model:
    """A linen model as it is deployed, for the analysis of its channels.

    Attributes:
      module: the model.
      output: what is needed of what it gives; all else may change its shape.
      kwargs: with which it is applied, such as `{"train": False}`.
    """

    module: nn.Module
    output: Callable[[Any], Any] = lambda outputs: outputs
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, variables: PyTree, *inputs: Any) -> Any:
        """What is needed of what the model gives."""
        return self.output(self.module.apply(variables, *inputs, **self.kwargs))

    def with_widths(self, widths: Widths) -> "Model":
        """The same model with other widths, on top of those that it has already."""
        module = self.module
        if isinstance(module, Narrowed):
            before = {path: dict(values) for path, values in module.widths.items()}
            widths = {
                path: {**before.get(path, {}), **widths.get(path, {})}
                for path in {**before, **widths}
            }
            module = module.wrapped
        return dataclasses.replace(self, module=Narrowed(module, widths))


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """A model that has become smaller.

    Attributes:
      module: it, to init and to apply as any other.
      variables: its variables.
      opt_state: what was given with them, cut as they were.
      widths: what its layers' attributes are instead of the written ones: plain data, from which
        `Narrowed(module, widths)` makes it again.
      kept: units of each group that stayed.
    """

    module: nn.Module
    variables: PyTree
    opt_state: PyTree
    widths: Widths
    kept: Kept


def groups_of(model: Model, variables: PyTree, *inputs: Any) -> Groups:
    """The groups of a model that it can be run without.

    A group whose layers cannot be told their width, such as the width of an attention head or the
    state of a recurrent cell, is frozen with that reason.

    Args:
      model: see `Model`.
      variables: arrays or shapes.
      *inputs: arrays or shapes.
    """
    found = find_groups(model, variables, *inputs)
    shapes = shapes_of(variables)
    layers = layers_of(model.module, shapes, *inputs, **model.kwargs)

    def fault(groups: list[Group]) -> str | None:
        kept = {g.name: np.arange(g.size) > 0 for g in groups if g.size > 1}
        left = _left(found, kept, shapes)
        smaller = model.with_widths(widths_of(layers, shapes, left))
        return _fault(smaller, cut(shapes, left), inputs, found.plan, kept)

    if fault(list(found)) is None:
        return found
    return found.without(
        {
            group.name: f"its layers cannot be told another width: {why}"
            for group in found
            if (why := fault([group])) is not None
        }
    )


def _fault(
    model: Model, variables: PyTree, inputs: tuple[Any, ...], plan: Plan, kept: Kept
) -> str | None:
    """Why a model is not the first one without some units, None where it is."""
    try:
        made = jax.eval_shape(
            lambda: model.module.init(jax.random.key(0), *_zeros(inputs), **model.kwargs)
        )
        jaxpr = jax.make_jaxpr(model)(*shapes_of((variables, *inputs)))
    except Exception as error:  # whatever the code of a model says of widths it was not written for
        return str(error).splitlines()[0]
    different = next(iter(tree.differences(made, shapes_of(variables))), None)
    return different or plan.fault(jaxpr, kept)


def _zeros(inputs: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), inputs)


def _left(groups: Groups, kept: Kept, variables: PyTree) -> Left:
    shapes = {name: np.shape(leaf) for name, leaf in tree.named_leaves(variables).items()}
    return kept_positions(groups, kept, shapes)


def take_away(
    model: Model,
    groups: Groups,
    kept: Mapping[str, Any],
    variables: Variables,
    *inputs: Any,
    opt_state: PyTree = None,
) -> Shrunk:
    """The model without the units that are not kept, whatever they are worth.

    Args:
      model: see `Model`.
      groups: of it, see `groups_of`.
      kept: bool [size] of the groups that lose units.
      variables: of the model.
      *inputs: arrays or shapes.
      opt_state: of the optimizer that trained them, or any tree that follows the parameters.

    Raises:
      BadInput: `kept` does not fit the groups, the groups were found on inputs of other shapes, or a
        leaf of `opt_state` does not fit its parameter.
    """
    _check_inputs(groups, inputs)
    kept = {name: np.asarray(keep) for name, keep in kept.items()}
    check_kept(groups, kept)
    layers = layers_of(model.module, variables, *inputs, **model.kwargs)
    left = _left(groups, kept, variables)
    widths = widths_of(layers, variables, left)
    smaller = model.with_widths(widths)
    cut_variables = cut(variables, left)
    if (why := _fault(smaller, cut_variables, inputs, groups.plan, kept)) is not None:
        raise BadInput("", f"the model cannot be run at these widths: {why}")
    return Shrunk(
        module=smaller.module,
        variables=cut_variables,
        opt_state=cut_following(opt_state, variables["params"], left),
        widths={path: dict(values) for path, values in smaller.module.widths.items()},
        kept=kept,
    )


def shrink(
    model: Model,
    masks: PyTree,
    variables: Variables,
    *inputs: Any,
    opt_state: PyTree = None,
    groups: Groups | None = None,
) -> Shrunk:
    """The masked model with smaller shapes: it gives what the masked one gives, in evaluation.

    A unit goes if all weights that read it are masked, or if all weights that make it are masked and
    what is left of it, a constant of biases and norms, is zero or can be added to what follows: to
    the bias of a dense layer or of a convolution without padding, or to the mean of the BatchNorm
    after it. Behind padding a constant that is not zero is no constant any more, and the unit stays.

    Args:
      model: see `Model`.
      masks: bool, True = kept, in the structure of the parameters, None where nothing is masked.
      variables: of the model; the masks are applied here.
      *inputs: an example batch of arrays: what is constant is seen on it.
      opt_state: of the optimizer that trained them, or any tree that follows the parameters.
      groups: where they are known already.

    Raises:
      BadInput: see `take_away`.
    """
    if groups is None:
        groups = groups_of(model, variables, *inputs)
    _check_inputs(groups, inputs)
    variables = {**variables, "params": _masked(masks, variables["params"])}
    leaves = {name: np.asarray(leaf) for name, leaf in tree.named_leaves(variables).items()}
    readers: dict[str, list[Contraction]] = {}
    for contraction in groups.contractions:
        readers.setdefault(contraction.name, []).append(contraction)
    of_groups = {m.name for group in groups for m in group.members if "in" in m.roles}
    seen = jax.jit(
        lambda variables, *inputs: activations(
            model, [c for c in groups.contractions if c.name in of_groups], variables, *inputs
        )
    )(variables, *inputs)
    seen = jax.device_get(seen)

    kept: dict[str, Bool[np.ndarray, " size"]] = {}
    for group in groups:
        read = np.zeros(group.size, bool)
        made = np.zeros(group.size, bool)
        settled = np.ones(group.size, bool)
        for member in group.members:
            alive = _any(leaves[member.name], member)
            if "in" in member.roles:
                read |= alive
                settles = [_settles(member, c, seen, groups) for c in readers.get(member.name, ())]
                settled &= ~alive | (np.logical_and.reduce(settles) if settles else False)
            if "out" in member.roles:
                made |= alive
        keep = read & (made | ~settled)
        if not keep.any():
            keep[0] = True
        kept[group.name] = keep
    shifts = _shifts(groups, kept, leaves, readers, seen)
    moved = [
        jax.device_put(leaves[name] + shifts[name]) if name in shifts else leaf
        for name, leaf in zip(leaves, jax.tree.leaves(variables), strict=True)
    ]
    variables = jax.tree.unflatten(jax.tree.structure(variables), moved)
    return take_away(model, groups, kept, variables, *inputs, opt_state=opt_state)


def _check_inputs(groups: Groups, inputs: PyTree) -> None:
    """Raises `BadInput` where the groups are of inputs of other shapes: of another batch, mostly."""
    if (given := input_shapes(inputs)) != groups.inputs:
        found, given = (
            ", ".join(str(list(shape)) for shape in shapes) for shapes in (groups.inputs, given)
        )
        raise BadInput(
            "groups",
            f"they were found on inputs of {found}, and the inputs here are of {given}",
            "give inputs of those shapes, or find the groups on these with groups_of",
        )


def _masked(masks: PyTree, params: PyTree) -> PyTree:
    """The parameters with zeros; on the host, since each shape would be compiled for by itself."""

    def one(mask, leaf):
        if mask is None:
            return leaf
        leaf = np.asarray(leaf)
        return jax.device_put(np.where(mask, leaf, np.zeros([], leaf.dtype)))

    return jax.tree.map(one, masks, params, is_leaf=lambda node: node is None)


def _any(leaf: np.ndarray, member: Member) -> Bool[np.ndarray, " size"]:
    """Whether anything is left of each unit."""
    others = tuple(axis for axis in range(leaf.ndim) if axis != member.axis)
    return (leaf != 0).any(others)[member.positions].any(-1)


def _settles(
    member: Member, contraction: Contraction, seen: Mapping[int, Seen], groups: Groups
) -> Bool[np.ndarray, " size"]:
    """Units that this reader could do without: constants that are zero, or that can be moved on."""
    if member.axis not in contraction.weight_axes:
        return np.zeros(len(member.positions), bool)
    low, high = seen[contraction.number].low, seen[contraction.number].high
    others = tuple(i for i, axis in enumerate(contraction.weight_axes) if axis != member.axis)
    largest = max(np.abs(low).max(), np.abs(high).max())
    constant = (high - low <= _CONSTANT * largest).all(others)[member.positions].all(-1)
    zero = (np.maximum(np.abs(low), np.abs(high)) == 0).all(others)[member.positions].all(-1)
    movable = contraction.uniform and contraction.number in groups.shifts
    return constant if movable else zero


def _shifts(groups: Groups, kept: Kept, leaves, readers, seen: Mapping[int, Seen]):
    """What is added to biases and means for the constants of the units that go."""
    gone: dict[str, dict[int, np.ndarray]] = {}
    for group in groups:
        for member in group.members:
            if "in" in member.roles and member.name in readers:
                axes = gone.setdefault(member.name, {})
                mask = axes.setdefault(
                    member.axis, np.zeros(leaves[member.name].shape[member.axis], bool)
                )
                mask[member.positions[~kept[group.name]]] = True
    found: dict[str, np.ndarray] = {}
    for name, axes in gone.items():
        # A parameter with a shift is read once; of one that is read more often all is zero.
        contraction, kernel = readers[name][0], leaves[name].astype(np.float64)
        if contraction.number not in groups.shifts or not any(m.any() for m in axes.values()):
            continue
        shift = groups.shifts[contraction.number]
        falls = np.zeros([kernel.shape[axis] for axis in contraction.weight_axes], bool)
        for i, axis in enumerate(contraction.weight_axes):
            if axis in axes:
                shape = [-1 if j == i else 1 for j in range(falls.ndim)]
                falls |= axes[axis].reshape(shape)
        constant = np.where(falls, seen[contraction.number].low, 0.0)
        added = np.tensordot(constant, kernel, (range(constant.ndim), contraction.weight_axes))
        shape = leaves[shift.name].shape
        added = added.reshape(-1, *shape).sum(0) if added.shape != shape else added
        found[shift.name] = found.get(shift.name, 0.0) + shift.sign * added
    return {name: value.astype(leaves[name].dtype) for name, value in found.items()}
