"""How many rows must meet in a step: a loss that compares examples has nothing to say of one.

With fewer than its `least_rows` a loss that relates the examples of a batch is constant, or a part of it
is: two examples have one distance, which is its own mean, and an angle of none; what shares prototypes
out among one example gives it all alike.

Nor has a BatchNorm: of a single value, one example on a map of 1x1, it makes zero, and sends no gradient.
"""

import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
from jax import lax

from kdjax import config, train
from kdjax.types import BadInput


def check_rows(run: config.Run) -> None:
    """Whether enough examples meet in each part of a batch, for every stage that trains.

    Rows of all devices meet, and those of one accumulated part.

    Args:
      run: the config.

    Raises:
      BadInput: a loss of a stage needs more; the line names its `batch`, or its `accumulate`.
    """
    for name, stage in run.stages.items():
        if not isinstance(stage, config.Training):
            continue
        rows = stage.batch // max(stage.accumulate, 1)
        for what, least in _needs(stage):
            if rows >= least:
                continue
            raise _too_few(f"config.stages.{name}", stage, f"{what} needs {least}")


def _too_few(path: str, c: config.Training, needs: str) -> BadInput:
    if c.accumulate > 1:
        return BadInput(
            f"{path}.accumulate",
            f"{c.accumulate} parts of a batch of {c.batch} have {c.batch // c.accumulate} examples "
            f"each, and {needs} that meet",
            "take fewer parts, or a larger batch",
        )
    return BadInput(
        f"{path}.batch", f"{c.batch}, and {needs} examples that meet", "take a larger batch"
    )


def watched(objective: train.Objective, c: config.Training, *, path: str) -> train.Objective:
    """An objective that refuses, when it is traced, a BatchNorm that would see a single value.

    It normalises with the statistics of its batch, of all rows and places of a map that meet, those of
    all devices where it has their axis: of a single one there is nothing left but zero, whatever the
    value was, and nothing before it learns. torch refuses the same.

    Args:
      objective: of the stage.
      c: its config.
      path: of that.
    """

    def look(call: Any, args: Any, kwargs: Any, of: nn.module.InterceptorContext) -> Any:
        norm = of.module
        is_run = of.method_name == "__call__" and not norm.is_initializing()
        if isinstance(norm, nn.BatchNorm) and is_run:
            x, *rest = args or (kwargs["x"],)
            given = rest[0] if rest else kwargs.get("use_running_average")
            running = norm.use_running_average if given is None else given
            if not running and _values(norm, x.shape) == 1:
                name = "/".join(norm.path)
                where = f"BatchNorm {name}" if name else "BatchNorm"
                raise _too_few(path, c, f"{where} sees one value of each channel; it needs 2")
        return call(*args, **kwargs)

    def within(*args: Any) -> Any:
        with nn.intercept_methods(look):
            return objective(*args)

    return within


def _values(norm: nn.BatchNorm, shape: tuple[int, ...]) -> int:
    """How many values of a channel a BatchNorm makes one mean of."""
    axes = norm.axis if isinstance(norm.axis, tuple | list) else (norm.axis,)
    kept = {axis % len(shape) for axis in axes}
    values = math.prod(side for axis, side in enumerate(shape) if axis not in kept)
    if norm.axis_name is None:
        return values
    groups = norm.axis_index_groups
    return values * (lax.axis_size(norm.axis_name) if groups is None else len(groups[0]))


def _needs(stage: config.Training) -> Iterator[tuple[str, int]]:
    """What of a stage relates the examples of a batch, by its field, and how many it needs."""
    match stage:
        case config.Pretrain(method=method):
            yield _needed("method", method)
            if len(stage.projector) > 1:
                yield "the BatchNorm of its projector", 2
            if method.has_predictor:
                yield "the BatchNorm of its predictor", 2
        case config.Distill(logits=logits, features=features):
            yield _needed("logits", logits)
            for name, term in features.items():
                yield _needed(f"features.{name}", term)
        case config.DistillEncoder(method=method):
            yield _needed("method", method)
            if stage.projector:
                yield "the BatchNorm of its projector", 2


def _needed(
    field: str,
    of: config.Method | config.LogitLoss | config.FeatureTerm | config.EmbeddingMethod,
) -> tuple[str, int]:
    return f"{field} {of.name}", of.least_rows
