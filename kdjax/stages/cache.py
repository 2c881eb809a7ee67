"""What a teacher says of every view of every training example, on disk."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kdjax import config, parse, teacher
from kdjax.stages.artifact import CACHE
from kdjax.stages.context import Context
from kdjax.stages.source import Source
from kdjax.types import BadInput

FOLDER = CACHE
"""Of the cache in the stage's folder."""


def run(context: Context, c: config.Cache) -> Mapping[str, Any]:
    """Runs the teachers once over `c.views` views; statistics frozen, labels unused."""
    path, devices = f"config.stages.{context.name}", context.parallel.devices
    here = devices // jax.process_count()
    if c.batch % here:
        raise BadInput(f"{path}.batch: {c.batch} is not a multiple of {here}, the devices here")
    dataset = context.splits.train
    source = Source.of(
        context.run, context.name, seed=context.seed, inputs=context.inputs, dataset=dataset
    )

    def say(held, batch):
        variables, key = held
        return source.ask(variables, batch, key)

    ask = context.parallel.spread(say, (source.variables, context.key))
    teacher.write(
        context.folder / FOLDER,
        ids=dataset.ids,
        views=c.views,
        signal=source.signal,
        ask=lambda rows, view: ask(source.read(rows, np.full(len(rows), view, np.uint32))),
        batch=c.batch,
        binding=source.binding(),
        process=jax.process_index(),
        processes=jax.process_count(),
        barrier=_barrier,
    )
    return {"views": c.views, "examples": len(dataset), "run": parse.plain(context.run)}


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
