"""How the features of a student and a teacher are compared: one function for each kind of term."""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array

from kdjax import losses, models
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


class Taps(NamedTuple):
    """What a comparison is made for.

    Attributes:
      student: shapes of the student's features, as a rule as many as the teacher's.
      teacher: of the teacher's.
      compute: of the connectors; its `axis_name` is the mapped axis of the batch.
      margins: of the norms that the teacher's features come from, [channel] each; see `ofd`.
    """

    student: Shapes
    teacher: Shapes
    compute: Compute
    margins: Sequence[Array] = ()


class Comparison(NamedTuple):
    """How features of certain shapes are compared.

    Attributes:
      losses: `(connected, student, teacher) -> losses [batch] of each pair`, which are added up.
      at_positions: in place of `losses`, `(connected, student, teacher, where) -> losses [batch] of each
        pair` of features [batch, position, ...]: `where` is True at the positions that are no padding,
        None where there is none.
      remembering: in place of `losses`, `(*connected, memory, index, negatives) -> (losses [batch],
        memory)`, where the loss has a memory, see `kdjax.losses.crd`.
      connectors: modules that are learned for it.
      given: `(student, teacher) -> the input of each connector`.
      ready: `(student, teacher) -> both` as the functions above take them.
    """

    losses: Callable[[Sequence[Any], Features, Features], Iterable[Array]] = _no_losses
    at_positions: Callable[..., Iterable[Array]] | None = None
    remembering: Callable[..., tuple[Array, PyTree]] | None = None
    connectors: Sequence[nn.Module] = ()
    given: Callable[[Features, Features], Sequence[Any]] = _nothing
    ready: Callable[[Features, Features], Both] = _as_they_are


def behind_relu(comparison: Comparison, relu: bool) -> Comparison:
    """With a ReLU on the features of both sides first, if asked to."""
    if not relu:
        return comparison
    both = _each(nn.relu)
    return comparison._replace(ready=lambda *sides: comparison.ready(*both(*sides)))


def _of_pairs(loss: Callable[..., Array], **numbers: Any) -> Comparison:
    """`loss` of each pair, with nothing learned."""

    def of_each(connected, student, teacher):
        return [loss(x, y, **numbers) for x, y in zip(student, teacher, strict=True)]

    return Comparison(of_each)


def rkd(*, distance: float, angle: float, axis_name: str | None) -> Comparison:
    """Distances and angles between the rows, weighted: see `kdjax.losses.rkd_distance`."""

    def both(x, y):
        distances = losses.rkd_distance(x, y, axis_name=axis_name)
        return distance * distances + angle * losses.rkd_angle(x, y, axis_name=axis_name)

    return _of_pairs(both)


def similarity(*, axis_name: str | None) -> Comparison:
    """See `kdjax.losses.similarity_preserving`."""
    return _of_pairs(losses.similarity_preserving, axis_name=axis_name)


def pkt(*, axis_name: str | None) -> Comparison:
    """See `kdjax.losses.pkt`."""
    return _of_pairs(losses.pkt, axis_name=axis_name)


def correlation(*, gamma: float, order: int, axis_name: str | None) -> Comparison:
    """See `kdjax.losses.correlation_congruence`."""
    return _of_pairs(losses.correlation_congruence, gamma=gamma, order=order, axis_name=axis_name)


def attention(student: Shapes, teacher: Shapes) -> Comparison:
    """See `kdjax.losses.attention_transfer`."""
    _check_maps("attention", student, teacher)
    return _of_pairs(losses.attention_transfer)


def nst(student: Shapes, teacher: Shapes) -> Comparison:
    """See `kdjax.losses.nst`."""
    _check_maps("nst", student, teacher)
    return _of_pairs(losses.nst)


def hint(student: Shapes, teacher: Shapes, *, compute: Compute) -> Comparison:
    """See `kdjax.losses.hint_mse`, behind a learned `kdjax.models.regressor`.

    Of positions, `kdjax.losses.hidden_mse` behind a learned linear map.
    """
    pairs = _pairs(student, teacher)
    _check_one_kind("hint", pairs)

    def of_each(connected, student, teacher, where=None):
        for x, y in zip(connected, teacher, strict=True):
            masked = where is not None and x.ndim == 3
            yield losses.hidden_mse(x, y, where) if masked else losses.hint_mse(x, y)

    return Comparison(
        of_each,
        at_positions=of_each if any(len(mine) == 3 for mine, _ in pairs) else None,
        connectors=[
            models.regressor(mine, theirs, compute=compute)
            if len(mine) == 4
            else models.pointwise_to(theirs, compute=compute)
            for mine, theirs in pairs
        ],
        given=_the_students,
    )


def vid(student: Shapes, teacher: Shapes, *, compute: Compute) -> Comparison:
    """See `kdjax.losses.vid`, behind a learned `kdjax.models.VariationalRegressor`."""
    pairs = _pairs(student, teacher)
    _check_one_kind("vid", pairs)

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


def ofd(
    student: Shapes, teacher: Shapes, *, margins: Sequence[Array], compute: Compute
) -> Comparison:
    """See `kdjax.losses.ofd`, behind a learned connector; each pair weighs twice the one before it."""
    _check_maps("ofd", student, teacher)
    pairs = _pairs(student, teacher)
    for mine, theirs in pairs:
        if mine[1:3] != theirs[1:3]:
            raise BadInput(
                "student",
                f"ofd compares maps of one size, and these are {mine[1:3]} and {theirs[1:3]}",
            )

    def of_each(connected, student, teacher):
        halvings = reversed(range(len(pairs)))
        return [
            losses.ofd(x, y, margin) / 2**i
            for x, y, margin, i in zip(connected, teacher, margins, halvings, strict=True)
        ]

    connectors = [models.ofd_connector(theirs, compute=compute) for _, theirs in pairs]
    return Comparison(of_each, connectors=connectors, given=_the_students)


def fsp(student: Shapes, teacher: Shapes) -> Comparison:
    """See `kdjax.losses.fsp`, of each pair and the one after it."""
    _check_maps("fsp", student, teacher)
    for mine, theirs in _pairs(student, teacher):
        if mine[-1] != theirs[-1]:
            raise BadInput(
                "student",
                f"fsp compares maps of as many channels, and these have {mine[-1]} and {theirs[-1]}",
            )

    def of_each(connected, student, teacher):
        flows = itertools.pairwise(student), itertools.pairwise(teacher)
        return [losses.fsp(mine, theirs) for mine, theirs in zip(*flows, strict=True)]

    return Comparison(of_each)


def review(student: Shapes, teacher: Shapes, *, compute: Compute) -> Comparison:
    """See `kdjax.losses.review_hcl`: all levels at once; a vector is a map of one pixel."""
    pairs = _pairs(student, teacher)
    if any(len(shape) not in (2, 4) for shape in itertools.chain(*pairs)):
        raise BadInput("student", "review fuses maps and vectors", "tap modules that give them")

    def level_shape(shape):
        return shape if len(shape) == 4 else (shape[0], 1, 1, shape[-1])

    shapes = ([level_shape(shape) for shape in side] for side in zip(*pairs, strict=True))
    return Comparison(
        lambda connected, student, teacher: [losses.review_hcl(connected[0], teacher)],
        connectors=[models.review(*shapes, compute=compute)],
        given=lambda student, teacher: [student],
        ready=_each(lambda x: x.reshape(level_shape(x.shape))),
    )


def crd(*, dim: int, temperature: float, momentum: float, compute: Compute) -> Comparison:
    """See `kdjax.losses.crd`, of two learned linear embeddings."""
    return Comparison(
        remembering=functools.partial(
            losses.crd,
            temperature=temperature,
            momentum=momentum,
            axis_name=compute.axis_name,
        ),
        connectors=[models.Pointwise((dim,), compute=compute) for _ in range(2)],
        given=lambda student, teacher: [*student, *map(jax.lax.stop_gradient, teacher)],
        ready=_each(lambda x: x.reshape(len(x), -1)),
    )


def _pairs(student: Shapes, teacher: Shapes) -> Pairs:
    return list(zip(student, teacher, strict=True))


def _check_maps(name: str, student: Shapes, teacher: Shapes) -> None:
    if any(len(shape) != 4 for shape in [*student, *teacher]):
        raise BadInput("student", f"{name} compares maps", "tap modules that give maps")


def _check_one_kind(name: str, pairs: Pairs) -> None:
    """Maps go with maps, vectors with vectors, and sequences with sequences of their length."""
    for mine, theirs in pairs:
        if len(mine) != len(theirs) or (len(mine) == 3 and mine[1] != theirs[1]):
            raise BadInput(
                "student",
                f"{name} cannot bring {mine[1:]} to {theirs[1:]}",
                "tap features of one kind",
            )
