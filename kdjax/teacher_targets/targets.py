"""What a student is taught with: the views of a cache, and what its teachers say of them."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from kdjax import config, teacher
from kdjax.artifacts.artifact import CACHE
from kdjax.contexts.context import Context
from kdjax.data.feed import Join
from kdjax.inputs import Inputs
from kdjax.teacher_targets.source import See, Source
from kdjax.types import BadInput, Batch, PyTree, under
from kdjax.views import draws


class TeacherTargets(NamedTuple):
    """How a stage learns from a cache; most of it is what `fit` wants.

    Attributes:
      source: what the cache is made of.
      inputs: that the student is given.
      views: see `fit`: `inputs`, `label`, the parts of the signal, and where views are mixed,
        `weight` and `partner_label`.
      resident: trees on the device.
      join: arrays that come with each batch, None for none.
    """

    source: Source
    inputs: Inputs
    views: Callable[[Batch, PyTree, Key[Array, ""]], Batch]
    resident: Mapping[str, PyTree]
    join: Join | None


def source_of(context: Context, c: config.FromCache) -> Source:
    """What the cache is made of that a stage learns from.

    Raises:
      BadInput: there is no such cache, or its teachers cannot be asked.
    """
    if not isinstance(context.run.stages[c.cache], config.Cache):
        raise BadInput(f"{context.path}.cache", f"{c.cache} is not a stage of kind cache")
    return Source.of(
        context.run,
        c.cache,
        seed=context.run.stages[c.cache].seed_of(context.seed),
        inputs=context.inputs,
        dataset=context.splits.train,
    )


def targets_of(context: Context, c: config.FromCache) -> TeacherTargets:
    """Opens the cache, or takes its teachers where they are to be asked live.

    Raises:
      BadInput: there is no such cache, or it is not of these teachers, views and examples.
    """
    dataset, source = context.splits.train, source_of(context, c)
    with under(context.path):
        inputs = source.inputs.sized(c.size)
    if c.live:
        resident, join = {"teachers": source.variables}, None
    elif context.ahead:
        resident, join = {}, _zeros(source.signal)
    else:
        # The binding is derived from the teachers and the data at hand, never from the cache.
        folder = context.inputs[c.cache].folder
        opened = teacher.TeacherCache.open(
            folder / CACHE, expected=source.binding(), accept=c.accept, owner=folder
        )
        budget = context.run.data.resident_bytes
        if context.splits.is_resident(dataset) and opened.bytes <= budget:
            resident, join = {"signal": opened.resident(dataset.ids)}, None
        else:
            resident, join = {}, _join(opened, dataset.ids)
    views = taught_views(
        source.view(inputs),
        source.signal.parts(),
        count=source.c.views,
        ask=source.ask if c.live else None,
        seed=source.c.seed,
    )
    return TeacherTargets(source, inputs, views, resident, join)


def taught_views(
    see: See,
    parts: Iterable[str],
    *,
    count: int,
    ask: Callable[..., Mapping[str, Array]] | None = None,
    seed: int | None = None,
):
    """View `epoch % count` of each example, with what its teachers say of it.

    That is what the feed brings, or what lives on the device under `resident["signal"]`,
    [count, examples, ...] each, or what the teachers are asked.

    Args:
      see: draws the view, see `kdjax.teacher_targets.source.see`.
      parts: names of the arrays of the signal.
      count: views of each example.
      ask: `(resident["teachers"], batch, key) -> parts`, to ask in the step.
      seed: that the views are drawn by, if that is not the run's.
    """
    names = tuple(parts)

    def draw(batch: Batch, resident: PyTree, key: Key[Array, ""]) -> Batch:
        batch = {**batch, "view": batch["epoch"] % np.uint32(count)}
        if seed is not None:
            key = jax.random.key(seed)
        view, weight = see(batch, key)
        inputs, beside = draws.apart(view)
        if ask is not None:
            signal = ask(resident["teachers"], batch, key)
        elif "signal" in resident:
            signal = {name: resident["signal"][name][batch["view"], batch["row"]] for name in names}
        else:
            signal = {name: batch[name] for name in names}
        taught = {"inputs": inputs, **beside, "label": batch["label"], **signal}
        if weight is not None:
            taught |= {"weight": weight, "partner_label": batch["partner_label"]}
        return taught

    return draw


def _zeros(signal: teacher.Signal) -> Join:
    """Of a cache that is not there yet."""
    return lambda rows, epochs: {
        name: np.zeros((len(rows), *part.shape), part.dtype)
        for name, part in signal.parts().items()
    }


def _join(opened: teacher.TeacherCache, ids: np.ndarray) -> Join:
    at = opened.reader(ids)
    return lambda rows, epochs: at(rows, epochs % np.uint32(opened.views))
