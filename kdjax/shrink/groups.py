"""The channels of a function that can only be taken away together, found in its jaxpr."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int

from kdjax import tree
from kdjax.shrink.labels import Labels
from kdjax.shrink.plan import Plan, plan
from kdjax.shrink.trace import Trace
from kdjax.shrink.tracing_types import Contraction, Operand, Shift, fixed
from kdjax.types import BadInput, PyTree


@dataclasses.dataclass(frozen=True)
class Member:
    """What a group has on one axis of one variable.

    Attributes:
      name: of the variable, such as `params/encoder/stem/conv/kernel`.
      axis: of it.
      positions: indices on that axis that fall with each unit, [size, each].
      roles: `out` where the axis is the channels that a product makes, `in` where a product sums
        over it, both for a recurrent kernel; none for what goes along, such as a bias or a norm.
    """

    name: str
    axis: int
    positions: Int[np.ndarray, "size each"]
    roles: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Group:
    """Units, such as channels or heads, each of which is taken away everywhere or nowhere.

    Attributes:
      name: of the layer that makes the units first.
      size: how many there are.
      members: where they are; first those that make them, in the order of the forward pass.
    """

    name: str
    size: int
    members: tuple[Member, ...]


@dataclasses.dataclass(frozen=True)
class Groups:
    """All groups of one function.

    Attributes:
      groups: in the order of the forward pass.
      frozen: why an axis of a variable cannot lose anything, by `(name, axis)`.
      contractions: products of activations with parameters, in the order of the forward pass.
      shifts: what is added to the result of a contraction, by its number.
      order: names of the variables, as the forward pass uses them first.
      plan: what the function does, to be compared with what it does at other widths.
      inputs: shapes of the arrays that the function was given, which the plan is of.
    """

    groups: tuple[Group, ...]
    frozen: Mapping[tuple[str, int], str]
    contractions: tuple[Contraction, ...]
    shifts: Mapping[int, Shift]
    order: tuple[str, ...]
    plan: Plan
    inputs: tuple[tuple[int, ...], ...]

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        raise BadInput("groups", f"there is no group {name!r}", f"they are {list(self.sizes)}")

    @property
    def sizes(self) -> dict[str, int]:
        """Units of each group."""
        return {group.name: group.size for group in self.groups}

    def without(self, names: Mapping[str, str]) -> "Groups":
        """The same without some groups, whose axes are frozen for the reason that stands with them."""
        left = tuple(group for group in self.groups if group.name not in names)
        free = {(member.name, member.axis) for group in left for member in group.members}
        frozen = dict(self.frozen)
        for group in self.groups:
            for place in ((member.name, member.axis) for member in group.members):
                if group.name in names and place not in free:
                    frozen[place] = names[group.name]
        return dataclasses.replace(self, groups=left, frozen=frozen)


Kept = Mapping[str, Bool[np.ndarray, " size"]]
"""Which units of each group stay; a group that is not named stays whole."""


def find_groups(function: Callable[..., Any], variables: PyTree, *inputs: Any) -> Groups:
    """The groups of `function(variables, *inputs)`.

    Every axis of every operation is followed: an addition, a BatchNorm, a depthwise convolution or an
    elementwise product ties the channels of its operands; a product with a parameter ends a group and
    begins the next; a concatenation keeps its parts apart; a flattening ties each channel to a run of
    the following layer's inputs; a reshape into heads makes each head one unit. The axes of inputs and
    outputs are frozen, and so is what a norm, a softmax or a product of two activations reduces, and
    what an operation without a rule touches.

    Args:
      function: as it is deployed: with frozen statistics, and giving nothing but what is needed
        (features beside the logits would be frozen as an output).
      variables: its parameters and statistics, arrays or shapes.
      *inputs: arrays or shapes.

    Reference: the groups are those of Fang et al. 2023, https://arxiv.org/abs/2301.12900, found in the
      jaxpr instead of in the graph of autograd.
    """
    leaves = tree.named_leaves(variables)
    jaxpr = jax.make_jaxpr(function)(*shapes_of((variables, *inputs)))
    trace = Trace()
    parameters = {name: trace.products.parameter(name, leaf.shape) for name, leaf in leaves.items()}
    given = [
        fixed(trace.labels, np.shape(leaf), "an input of the model")
        for leaf in jax.tree.leaves(inputs)
    ]
    trace.finish(trace.run(jaxpr, [*parameters.values(), *given]))

    units, frozen = _units(trace.labels, parameters)
    order = {place: number for number, place in enumerate(trace.products.roles)}
    found: list[tuple[Group, list[int]]] = []
    for several in _alike(units):
        members = _members(several, units, trace.products.roles, order)
        complete = all(any(role in m.roles for m in members) for role in ("in", "out"))
        if not complete or len(several) == 1:
            why = (
                "it can only go as a whole" if complete else "nothing makes it, or nothing reads it"
            )
            for member in members:
                frozen.setdefault((member.name, member.axis), why)
            continue
        found.append((Group(layer_of(members[0].name), len(several), tuple(members)), several))
    found.sort(key=lambda pair: order[pair[0].members[0].name, pair[0].members[0].axis])
    groups = tuple(_distinct([group for group, _ in found]))
    fallen = {
        unit: (group.name, number)
        for group, (_, several) in zip(groups, found, strict=True)
        for number, unit in enumerate(several)
    }
    free = {(member.name, member.axis) for group in groups for member in group.members}
    return Groups(
        groups=groups,
        frozen={place: why for place, why in frozen.items() if place not in free},
        contractions=tuple(trace.products.contractions),
        shifts=trace.products.shifts,
        order=tuple(name for name in trace.products.uses if isinstance(name, str)),
        plan=plan(jaxpr, trace.results, fallen, trace.labels),
        inputs=input_shapes(inputs),
    )


_Place = tuple[str, int]
"""A variable and one of its axes."""

_Units = dict[int, dict[_Place, list[int]]]
"""By label, the positions that fall with it on each axis."""


def _units(labels: Labels, parameters: Mapping[str, Operand]) -> tuple[_Units, dict[_Place, str]]:
    """What falls with each label, and why an axis cannot lose anything."""
    units: _Units = {}
    frozen = {}
    for name, operand in parameters.items():
        for axis, vectors in enumerate(operand.axes):
            for vector in vectors:
                if (why := labels.why(vector)) is not None:
                    frozen[name, axis] = why
                for position, tied in enumerate(labels.units(vector)):
                    for unit in tied:
                        units.setdefault(unit, {}).setdefault((name, axis), []).append(position)
    return units, frozen


def _alike(units: _Units) -> Iterable[list[int]]:
    """Labels with which as many positions fall on the same axes: the units of one group."""
    alike: dict[tuple, list[int]] = {}
    for unit, places in units.items():
        key = tuple((place, len(positions)) for place, positions in places.items())
        alike.setdefault(key, []).append(unit)
    return alike.values()


def _members(
    several: Sequence[int],
    units: _Units,
    roles: Mapping[_Place, Collection[str]],
    order: Mapping[_Place, int],
) -> list[Member]:
    """Where these units are, first the axes that make them, in the order of the forward pass."""
    members = [
        Member(
            name=place[0],
            axis=place[1],
            positions=np.array([units[unit][place] for unit in several]),
            roles=tuple(sorted(roles.get(place, ()))),
        )
        for place in units[several[0]]
    ]
    members.sort(
        key=lambda m: ("out" not in m.roles, order.get((m.name, m.axis), len(order)), m.name)
    )
    return members


def input_shapes(inputs: PyTree) -> tuple[tuple[int, ...], ...]:
    """Shapes of the arrays, or of what stands for them, in order."""
    return tuple(tuple(np.shape(leaf)) for leaf in jax.tree.leaves(inputs))


def shapes_of(leaves: PyTree) -> PyTree:
    """Without values, and without weak types, in which what is traced would differ later."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), leaves)


def layer_of(name: str) -> str:
    """`params/encoder/stem/conv/kernel` -> `encoder/stem/conv`."""
    parts = name.split("/")
    return "/".join(parts[1:-1]) or parts[-1]


def _distinct(groups: list[Group]) -> Iterator[Group]:
    """Several groups of one layer, such as heads and the width of a head, get a number each."""
    seen: dict[str, int] = {}
    for group in groups:
        seen[group.name] = seen.get(group.name, 0) + 1
        number = seen[group.name]
        yield group if number == 1 else dataclasses.replace(group, name=f"{group.name}#{number}")


def check_kept(groups: Groups, kept: Kept) -> None:
    """Raises `BadInput` where `kept` names no group, has another size, or keeps nothing of one."""
    sizes = groups.sizes
    for name, keep in kept.items():
        if name not in sizes:
            raise BadInput(
                "kept", f"there is no group {name!r}", f"the first is {next(iter(sizes), None)!r}"
            )
        if keep.shape != (sizes[name],):
            raise BadInput(f"kept.{name}", f"{keep.shape[0]} values for {sizes[name]} units")
        if not keep.any():
            raise BadInput(
                f"kept.{name}", f"nothing is left of {sizes[name]} units", "keep at least one"
            )


def kept_positions(
    groups: Groups, kept: Kept, shapes: Mapping[str, tuple[int, ...]]
) -> dict[tuple[str, int], Int[np.ndarray, " left"]]:
    """The indices that stay on each axis that loses any, by `(name, axis)`."""
    masks: dict[tuple[str, int], np.ndarray] = {}
    for group in groups:
        keep = kept.get(group.name)
        if keep is None or keep.all():
            continue
        for member in group.members:
            place = member.name, member.axis
            mask = masks.setdefault(place, np.ones(shapes[member.name][member.axis], bool))
            mask[member.positions[~keep]] = False
    return {place: np.flatnonzero(mask) for place, mask in masks.items()}
