"""One file a stage kind. Each takes a context and its config, and leaves an artifact."""

from collections.abc import Mapping
from typing import Any

from kdjax import config
from kdjax.stages import (
    cache,
    distill,
    distill_encoder,
    evaluate,
    export,
    finetune,
    pretrain,
    quantize,
    sensitivity,
    shrink,
    sizes,
)
from kdjax.stages.artifact import MANIFEST, Artifact, finish, versions
from kdjax.stages.context import Context, Splits

__all__ = [
    "MANIFEST",
    "Artifact",
    "Context",
    "Splits",
    "check",
    "finish",
    "run",
    "sizes",
    "versions",
]


def check(stage: config.Stage) -> None:
    """What can be said of a stage before any has run.

    Raises:
      BadInput: a package that it needs is not installed.
    """
    if isinstance(stage, config.Export):
        export.check(stage)


def run(context: Context, stage: config.Stage) -> Mapping[str, Any]:
    """Runs a stage; gives what it has to say in its manifest.

    Raises:
      BadInput: the config cannot be carried out.
      StageFailed: a result is beyond its tolerance.
      Diverged: a loss is not finite.
    """
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
