"""How the features of a student and a teacher are compared: one function for each kind of term."""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array

from kdjax import config, losses, models
from kdjax.losses.pooling import to_smaller
from kdjax.models import Compute
from kdjax.types import BadInput, PyTree

Shapes = Sequence[tuple[int, ...]]
"""Of what is tapped, with the axis of the batch."""

Pairs = Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
"""Shapes of the student's features, each with that of the teacher's."""

Features = Sequence[Array]
"""What is tapped, in the order of the config."""

Both = tuple[Features, Features]
"""The student's and the teacher's."""


def _as_they_are(student: Features, teacher: Features) -> Both:
    return student, teacher


def _nothing(student: Features, teacher: Features) -> Sequence[Any]:
    return ()


def _no_losses(connected: Sequence[Any], student: Features, teacher: Features) -> Iterable[Array]:
    return ()


def _the_students(student: Features, teacher: Features) -> Sequence[Any]:
    return student


def _each(change: Callable[[Array], Array]) -> Callable[[Features, Features], Both]:
    return lambda student, teacher: ([change(x) for x in student], [change(y) for y in teacher])


class Comparison(NamedTuple):
    """How features of certain shapes are compared.

    Attributes:
      losses: `(connected, student, teacher) -> losses [batch] of each pair`, which are added up.
      remembering: in place of `losses`, `(*connected, memory, index, negatives) -> (losses [batch],
        memory)`, where the loss has a memory, see `kdjax.losses.crd`.
      connectors: modules that are learned for it.
      given: `(student, teacher) -> the input of each connector`.
      ready: `(student, teacher) -> both` as the functions above take them.
    """

    losses: Callable[[Sequence[Any], Features, Features], Iterable[Array]] = _no_losses
    remembering: Callable[..., tuple[Array, PyTree]] | None = None
    connectors: Sequence[nn.Module] = ()
    given: Callable[[Features, Features], Sequence[Any]] = _nothing
    ready: Callable[[Features, Features], Both] = _as_they_are


def comparison(
    c: config.FeatureTerm,
    student: Shapes,
    teacher: Shapes,
    *,
    margins: Sequence[Array] = (),
    compute: Compute,
) -> Comparison:
    """How a term compares features of these shapes.

    Args:
      c: its config.
      student: of the student's features, as many as the teacher's.
      teacher: of the teacher's.
      margins: of `ofd`, [channel] for each tap.
      compute: of the connectors; its `axis_name` is the mapped axis of the batch.

    Raises:
      BadInput: it cannot compare such features, or its numbers cannot be.
    """
    axis_name = compute.axis_name
    pairs = list(zip(student, teacher, strict=True))
    match c:
        case config.Hint():
            found = _hint(c, pairs, compute)
        case config.VID():
            found = _vid(c, pairs, compute)
        case config.OFD():
            found = _ofd(c, pairs, margins, compute)
        case config.FSP():
            found = _fsp(c, pairs)
        case config.Attention():
            found = _of_maps(c, pairs, losses.attention_transfer)
        case config.NST():
            found = _of_maps(c, pairs, losses.nst)
        case config.Review():
            found = _review(pairs, compute)
        case config.CRD():
            found = _crd(c, pairs, compute)
        case config.RKD():
            found = _of_pairs(_rkd, distance=c.distance, angle=c.angle, axis_name=axis_name)
        case config.Similarity():
            found = _of_pairs(losses.similarity_preserving, axis_name=axis_name)
        case config.PKT():
            found = _of_pairs(losses.pkt, axis_name=axis_name)
        case config.Correlation(gamma=gamma, order=order):
            found = _of_pairs(
                losses.correlation_congruence, gamma=gamma, order=order, axis_name=axis_name
            )
    if isinstance(c, config.Maps) and c.relu:
        relu = _each(nn.relu)
        return found._replace(ready=lambda *sides: found.ready(*relu(*sides)))
    return found


def _of_pairs(loss: Callable[..., Array], **numbers: Any) -> Comparison:
    """`loss` of each pair, with nothing learned."""

    def of_each(connected, student, teacher):
        return [loss(x, y, **numbers) for x, y in zip(student, teacher, strict=True)]

    return Comparison(of_each)


def _of_maps(
    c: config.Attention | config.NST, pairs: Pairs, loss: Callable[..., Array]
) -> Comparison:
    _check_maps(c, pairs)
    return _of_pairs(loss)


def _rkd(x: Array, y: Array, *, distance: float, angle: float, axis_name: str | None) -> Array:
    return distance * losses.rkd_distance(x, y, axis_name=axis_name) + angle * losses.rkd_angle(
        x, y, axis_name=axis_name
    )


def _hint(c: config.Hint, pairs: Pairs, compute: Compute) -> Comparison:
    _check_one_kind(c, pairs)
    return Comparison(
        lambda connected, student, teacher: map(losses.hint_mse, connected, teacher),
        connectors=[
            models.regressor(mine, theirs, compute=compute)
            if len(mine) == 4
            else models.pointwise_to(theirs, compute=compute)
            for mine, theirs in pairs
        ],
        given=_the_students,
    )


def _vid(c: config.VID, pairs: Pairs, compute: Compute) -> Comparison:
    _check_one_kind(c, pairs)

    def of_one_size(student, teacher):
        sized = [
            to_smaller(x, y) if x.ndim == 4 else (x, y)
            for x, y in zip(student, teacher, strict=True)
        ]
        return [x for x, _ in sized], [y for _, y in sized]

    def of_each(connected, student, teacher):
        return [
            losses.vid(mean, y, log_scale)
            for (mean, log_scale), y in zip(connected, teacher, strict=True)
        ]

    return Comparison(
        of_each,
        connectors=[
            models.VariationalRegressor(theirs[-1], hidden=theirs[-1], compute=compute)
            for _, theirs in pairs
        ],
        given=_the_students,
        ready=of_one_size,
    )


def _ofd(c: config.OFD, pairs: Pairs, margins: Sequence[Array], compute: Compute) -> Comparison:
    """Each pair weighs twice the one before it."""
    _check_maps(c, pairs)
    for mine, theirs in pairs:
        if mine[1:3] != theirs[1:3]:
            raise BadInput(
                f"student: ofd compares maps of one size, and these are {mine[1:3]} and "
                f"{theirs[1:3]}"
            )

    def of_each(connected, student, teacher):
        halvings = reversed(range(len(pairs)))
        return [
            losses.ofd(x, y, margin) / 2**i
            for x, y, margin, i in zip(connected, teacher, margins, halvings, strict=True)
        ]

    connectors = [models.ofd_connector(theirs, compute=compute) for _, theirs in pairs]
    return Comparison(of_each, connectors=connectors, given=_the_students)


def _fsp(c: config.FSP, pairs: Pairs) -> Comparison:
    """Of each tap and the one after it."""
    _check_maps(c, pairs)
    for mine, theirs in pairs:
        if mine[-1] != theirs[-1]:
            raise BadInput(
                f"student: fsp compares maps of as many channels, and these have {mine[-1]} and "
                f"{theirs[-1]}"
            )

    def of_each(connected, student, teacher):
        flows = itertools.pairwise(student), itertools.pairwise(teacher)
        return [losses.fsp(mine, theirs) for mine, theirs in zip(*flows, strict=True)]

    return Comparison(of_each)


def _review(pairs: Pairs, compute: Compute) -> Comparison:
    """All levels at once; a vector is a map of one pixel."""
    if any(len(shape) not in (2, 4) for shape in itertools.chain(*pairs)):
        raise BadInput("student: review fuses maps and vectors; tap modules that give them")

    def level_shape(shape):
        return shape if len(shape) == 4 else (shape[0], 1, 1, shape[-1])

    shapes = ([level_shape(shape) for shape in side] for side in zip(*pairs, strict=True))
    return Comparison(
        lambda connected, student, teacher: [losses.review_hcl(connected[0], teacher)],
        connectors=[models.review(*shapes, compute=compute)],
        given=lambda student, teacher: [student],
        ready=_each(lambda x: x.reshape(level_shape(x.shape))),
    )


def _crd(c: config.CRD, pairs: Pairs, compute: Compute) -> Comparison:
    return Comparison(
        remembering=functools.partial(
            losses.crd,
            temperature=c.temperature,
            momentum=c.momentum,
            axis_name=compute.axis_name,
        ),
        connectors=[models.Pointwise((c.dim,), compute=compute) for _ in range(2)],
        given=lambda student, teacher: [*student, *map(jax.lax.stop_gradient, teacher)],
        ready=_each(lambda x: x.reshape(len(x), -1)),
    )


def _check_maps(c: config.Attention | config.NST | config.FSP | config.OFD, pairs: Pairs) -> None:
    if any(len(shape) != 4 for shape in itertools.chain(*pairs)):
        raise BadInput(f"student: {c.name} compares maps; tap modules that give maps")


def _check_one_kind(c: config.Hint | config.VID, pairs: Pairs) -> None:
    """Maps go with maps, vectors with vectors, and sequences with sequences of their length."""
    for mine, theirs in pairs:
        if len(mine) != len(theirs) or (len(mine) == 3 and mine[1] != theirs[1]):
            raise BadInput(
                f"student: {c.name} cannot bring {mine[1:]} to {theirs[1:]}; tap features of one kind"
            )
