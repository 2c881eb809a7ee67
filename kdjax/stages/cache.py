"""What a teacher says of every view of every training example, on disk."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kdjax import config, data, parse, teacher
from kdjax.artifacts.artifact import CACHE
from kdjax.checks.expected import check_views
from kdjax.contexts.context import Context
from kdjax.teacher_targets.source import Source
from kdjax.types import BadInput, under

"""Of the cache in the stage's folder."""


def run(context: Context, c: config.Cache) -> Mapping[str, Any]:
    """Runs the teachers once over `c.views` views; statistics frozen, labels unused."""
    source, dataset = _source(context, c), context.splits.train

    def say(held, batch):
        variables, key = held
        return source.ask(variables, batch, key)

    ask = context.parallel.spread(say, (source.variables, context.key))
    with _finite(context, c, source):
        asked = _write(context, c, source, ask)
    said = {"views": c.views, "examples": len(dataset), "run": parse.plain(context.run)}
    return said | ({"asked": asked} if asked["examples"] else {})


def _write(
    context: Context, c: config.Cache, source: Source, ask: Callable[..., Any]
) -> dict[str, int | float]:
    """Gives how many examples this run has asked for, and the seconds from the first answer on."""
    dataset, asked, begun = source.dataset, 0, 0.0
    # Partners are mixed with examples of other lengths.
    widths = None if c.mix is not None else context.splits.widths(dataset)

    def timed(rows, view):
        nonlocal asked, begun
        batch = source.read(rows, np.full(len(rows), view, np.uint32))
        if widths is not None:
            batch["inputs"] = data.cut(batch["inputs"], widths.of(rows))
        found = ask(batch)
        begun = begun or time.monotonic()  # it is compiled
        asked += len(rows) * jax.process_count()
        return found

    teacher.write(
        context.folder / CACHE,
        ids=dataset.ids,
        views=c.views,
        signal=source.signal,
        ask=timed,
        batch=c.batch,
        binding=source.binding(),
        alike=None if widths is None else widths.alike,
        process=jax.process_index(),
        processes=jax.process_count(),
        barrier=_barrier,
    )
    return {"examples": asked, "seconds": round(time.monotonic() - begun, 3)}


@contextlib.contextmanager
def _finite(context: Context, c: config.Cache, source: Source) -> Iterator[None]:
    """Says of what cannot be kept whether a wider dtype would hold it: its teachers are asked again."""
    try:
        yield
    except teacher.NotFinite as error:
        row = np.flatnonzero(source.dataset.ids == error.id)
        batch = source.read(row, np.full(1, error.view, np.uint32))
        said = np.abs(np.asarray(jax.jit(source.say)(source.variables, batch, context.key).answer))
        where = f"what is said of id {error.id}, view {error.view}"
        if not np.isfinite(said).all():
            raise BadInput(
                f"{context.path}.teacher",
                f"{where} is not finite",
                f"look at the training of {', '.join(c.teachers)}",
            ) from None
        largest = float(np.finfo(error.dtype).max)
        raise BadInput(
            f"{context.path}.dtype",
            f"{where} is as large as {said.max():.4g}, and {error.dtype} ends at {largest:g}",
            f"set {context.path}.dtype=float32",
        ) from None


def check(context: Context, c: config.Cache) -> Mapping[str, Any]:
    """Refuses what cannot be asked: a view is drawn and the teachers are asked, in shapes alone."""
    source = _source(context, c)
    rows = jax.ShapeDtypeStruct((c.batch,), np.uint32)
    inputs = {name: field.batch(c.batch) for name, field in source.dataset.fields.items()}
    batch = {"id": rows, "view": rows, "inputs": inputs}
    if c.mix is not None:
        batch |= {"partner_id": rows, "partner_inputs": inputs}
    key = jax.random.key(context.seed)
    check_views(c.recipe, context, source.inputs, path=f"{context.path}.recipe")
    with under(context.path):
        jax.eval_shape(lambda batch, key: source.ask(source.variables, batch, key), batch, key)
    return {}


def _source(context: Context, c: config.Cache) -> Source:
    here = context.parallel.devices // jax.process_count()
    if c.batch < 1 or c.batch % here:
        raise BadInput(
            f"{context.path}.batch", f"{c.batch} is not a multiple of {here}, the devices here"
        )
    return Source.of(
        context.run,
        context.name,
        seed=context.seed,
        inputs=context.inputs,
        dataset=context.splits.train,
    )


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
