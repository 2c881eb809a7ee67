"""One file a stage kind. Each takes a context and its config, and leaves an artifact."""

from collections.abc import Mapping
from typing import Any

from kdjax import config
from kdjax.config import own
from kdjax.stages import (
    cache,
    distill,
    distill_encoder,
    evaluate,
    export,
    finetune,
    machine,
    measure,
    pretrain,
    quantize,
    sensitivity,
    shrink,
    sizes,
)
from kdjax.stages.artifact import MANIFEST, Artifact, Expected, finish, replace, restate
from kdjax.stages.context import Context, Splits
from kdjax.stages.expected import check_data, check_encoder, check_labels
from kdjax.types import BadInput, under

__all__ = [
    "MANIFEST",
    "Artifact",
    "Context",
    "Expected",
    "Splits",
    "check",
    "check_data",
    "finish",
    "machine",
    "measure",
    "replace",
    "restate",
    "run",
    "sizes",
]


def check(context: Context, stage: config.Stage) -> Expected:
    """Goes through a stage before any has run; gives what it will leave, for those that read it.

    Args:
      context: `ahead`, with what earlier stages will leave.
      stage: its config.

    Raises:
      BadInput: the config cannot be carried out, or a package that it needs is not installed.
    """
    with under(context.path):
        check_labels(context, stage)
        if stage.is_measured():
            measure.check_scores(context)
        try:
            check_encoder(context, stage)
            said = _checked(context, stage)
        except BadInput:
            raise
        except Exception as error:
            where = (stage, context.path), (context.run.stages, "config.stages")
            line = own.explained(error, *where)
            if line is None:
                raise
            raise line from None
    exact = context.exact and not isinstance(stage, config.Shrink)
    return Expected(context.folder, {"stage": context.name, **said}, stage, exact=exact)


def _checked(context: Context, stage: config.Stage) -> Mapping[str, Any]:
    match stage:
        case config.Pretrain():
            return pretrain.check(context, stage)
        case config.Finetune():
            return finetune.check(context, stage)
        case config.Cache():
            return cache.check(context, stage)
        case config.Distill():
            return distill.check(context, stage)
        case config.DistillEncoder():
            return distill_encoder.check(context, stage)
        case config.Evaluate():
            return evaluate.check(context, stage)
        case config.Sensitivity():
            return sensitivity.check(context, stage)
        case config.Shrink():
            return shrink.check(context, stage)
        case config.Quantize():
            return quantize.check(context, stage)
        case config.Export():
            return export.check(context, stage)


def run(context: Context, stage: config.Stage) -> Mapping[str, Any]:
    """Runs a stage; gives what it has to say in its manifest.

    Raises:
      BadInput: the config cannot be carried out.
      StageFailed: a result is beyond its tolerance.
      Diverged: a loss is not finite.
    """
    with under(context.path):
        return _run(context, stage)


def _run(context: Context, stage: config.Stage) -> Mapping[str, Any]:
    match stage:
        case config.Pretrain():
            return pretrain.run(context, stage)
        case config.Finetune():
            return finetune.run(context, stage)
        case config.Cache():
            return cache.run(context, stage)
        case config.Distill():
            return distill.run(context, stage)
        case config.DistillEncoder():
            return distill_encoder.run(context, stage)
        case config.Evaluate():
            return evaluate.run(context, stage)
        case config.Sensitivity():
            return sensitivity.run(context, stage)
        case config.Shrink():
            return shrink.run(context, stage)
        case config.Quantize():
            return quantize.run(context, stage)
        case config.Export():
            return export.run(context, stage)
