"""How what transformers have at each position is compared: hidden states and attention."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import jax
from jaxtyping import Array

from kdjax import losses, models
from kdjax.distill.feature_terms import Comparison, Features, Shapes
from kdjax.losses.sequences import Where
from kdjax.models import Compute
from kdjax.types import BadInput

Relation = Literal["query", "key", "value", "attention"]
"""Of each of these with itself, or of queries with keys."""

QKV = ("query", "key", "value")
"""What is tapped of an attention, in this order."""

_HIDDEN = ("batch", "position", "dim")
_HEADS = ("batch", "position", "head", "dim")

_SIDES: Mapping[Relation, tuple[int, int]] = {
    "query": (0, 0),
    "key": (1, 1),
    "value": (2, 2),
    "attention": (0, 1),
}


def hidden_cosine(student: Shapes, teacher: Shapes, *, compute: Compute) -> Comparison:
    """See `kdjax.losses.hidden_cosine`; behind a learned linear map where the widths differ."""
    return _of_hidden("hidden_cosine", losses.hidden_cosine, student, teacher, compute)


def pkd(student: Shapes, teacher: Shapes, *, compute: Compute) -> Comparison:
    """See `kdjax.losses.pkd`; behind a learned linear map where the widths differ."""
    return _of_hidden("pkd", lambda x, y, where: losses.pkd(x, y), student, teacher, compute)


def distilhubert(
    student: Shapes, teacher: Shapes, *, cosine_weight: float, compute: Compute
) -> Comparison:
    """See `kdjax.losses.distilhubert`: each of the teacher's from one of the student's, by its own head.

    Args:
      student: shape of one hidden state, [batch, position, dim].
      teacher: of those that are predicted, as long.
      cosine_weight: see the loss.
      compute: of the heads, linear maps.

    Raises:
      BadInput: they are no such arrays.
    """
    (mine,) = student
    pairs = [(mine, theirs) for theirs in teacher]
    _check_alike("distilhubert", _HIDDEN, pairs, "tap blocks of as many positions")

    def of_each(connected, student, teacher, where):
        return [
            losses.distilhubert(x, y, where, cosine_weight=cosine_weight)
            for x, y in zip(connected, teacher, strict=True)
        ]

    return Comparison(
        at_positions=of_each,
        connectors=[models.pointwise_to(theirs, compute=compute) for theirs in teacher],
        given=lambda student, teacher: [student[0]] * len(teacher),
    )


def _of_hidden(
    name: str,
    loss: Callable[[Array, Array, Where], Array],
    student: Shapes,
    teacher: Shapes,
    compute: Compute,
) -> Comparison:
    """`loss` of each pair of hidden states."""
    pairs = [*zip(student, teacher, strict=True)]
    _check_alike(name, _HIDDEN, pairs, "tap blocks")
    widths = [(mine[-1], theirs[-1]) for mine, theirs in pairs]
    apart = [i for i, (mine, theirs) in enumerate(widths) if mine != theirs]

    def of_each(connected, student, teacher, where):
        brought = [*student]
        for i, x in zip(apart, connected, strict=True):
            brought[i] = x
        return [loss(x, y, where) for x, y in zip(brought, teacher, strict=True)]

    return Comparison(
        at_positions=of_each,
        connectors=[models.pointwise_to(teacher[i], compute=compute) for i in apart],
        given=lambda student, teacher: [student[i] for i in apart],
    )


def attention_scores(student: Shapes, teacher: Shapes) -> Comparison:
    """See `kdjax.losses.attention_mse`, of queries and keys of each pair of attentions."""
    _check_attention("attention_scores", student, teacher)
    for mine, theirs in zip(student, teacher, strict=True):
        _check_heads("attention_scores", mine, theirs, "take attention_relations")

    def of_each(connected, student, teacher, where):
        for (a, b), (c, d) in zip(_several(student, 2), _several(teacher, 2), strict=True):
            yield losses.attention_mse(a, b, c, d, where)

    return Comparison(at_positions=of_each)


def attention_relations(
    student: Shapes, teacher: Shapes, *, relations: Sequence[Relation], heads: int | None
) -> Comparison:
    """See `kdjax.losses.relation_kl`, of queries, keys and values of each pair of attentions.

    Args:
      student: shapes of the three of each attention, [batch, position, head, dim] each.
      teacher: likewise.
      relations: which are compared; their losses are added up.
      heads: of the relations, into which queries, keys and values are parted anew; None for those of the
        attentions, which are as many on both sides.

    Raises:
      BadInput: they are no such arrays, or heads do not go together.
    """
    _check_attention("attention_relations", student, teacher)
    for mine, theirs in zip(student, teacher, strict=True):
        if heads is None:
            _check_heads("attention_relations", mine, theirs, "give heads")
            continue
        for shape in (mine, theirs):
            for fault in models.heads_faults(shape[2] * shape[3], heads, fields="heads"):
                raise BadInput(*fault)

    def parted(x: Array) -> Array:
        return x if heads is None else x.reshape(*x.shape[:2], heads, -1)

    def of_each(connected, student, teacher, where):
        student, teacher = jax.tree.map(parted, ([*student], [*teacher]))
        for mine, theirs in zip(_several(student, 3), _several(teacher, 3), strict=True):
            for a, b in (_SIDES[relation] for relation in relations):
                yield losses.relation_kl(mine[a], mine[b], theirs[a], theirs[b], where)

    return Comparison(at_positions=of_each)


def _several(features: Features, n: int) -> list[Features]:
    """The features of each attention."""
    return [features[i : i + n] for i in range(0, len(features), n)]


def _check_attention(name: str, student: Shapes, teacher: Shapes) -> None:
    pairs = zip(student, teacher, strict=True)
    _check_alike(name, _HEADS, pairs, "tap attentions, such as encoder/block0/attention")


def _check_alike(
    name: str,
    axes: Sequence[str],
    pairs: Iterable[tuple[Sequence[int], Sequence[int]]],
    mend: str,
) -> None:
    """Raises `BadInput` where arrays of a student and a teacher have other axes, or other positions."""
    n = len(axes)
    for mine, theirs in pairs:
        if (len(mine), len(theirs), mine[1:2]) != (n, n, theirs[1:2]):
            raise BadInput(
                "student",
                f"{name} compares [{', '.join(axes)}], and these are {list(mine)} and {list(theirs)}",
                mend,
            )


def _check_heads(name: str, mine: Sequence[int], theirs: Sequence[int], mend: str) -> None:
    if mine[2] != theirs[2]:
        raise BadInput(
            "student",
            f"{name} compares head with head, and there are {mine[2]} and {theirs[2]}",
            mend,
        )
