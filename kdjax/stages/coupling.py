"""How many rows must meet in a step: a loss that compares examples has nothing to say of one."""

from collections.abc import Iterator, Mapping
from typing import Any

from kdjax import config
from kdjax.types import BadInput

LEAST_ROWS: Mapping[type, int] = {
    config.SimCLR: 2,
    config.DCL: 2,
    config.MoCoV3: 2,
    config.BarlowTwins: 2,
    config.VICReg: 2,
    config.SwAV: 2,
    config.DIST: 2,
    config.RKD: 3,
    config.Similarity: 2,
    config.Correlation: 2,
    config.PKT: 2,
    config.EmbeddingRKD: 3,
    config.EmbeddingSimilarity: 2,
}
"""Of losses that relate the examples of a batch: with fewer, they are constant, or a part of them is.

Two examples have one distance, which is its own mean, and an angle of none; what shares prototypes out
among one example gives it all alike.
"""


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
            path = f"config.stages.{name}"
            if stage.accumulate > 1:
                raise BadInput(
                    f"{path}.accumulate: {stage.accumulate} parts of a batch of {stage.batch} have "
                    f"{rows} examples each, and {what} needs {least} that meet; take fewer parts, or "
                    "a larger batch"
                )
            raise BadInput(
                f"{path}.batch: {stage.batch}, and {what} needs {least} examples that meet; take a "
                "larger batch"
            )


def _needs(stage: config.Training) -> Iterator[tuple[str, int]]:
    """What of a stage relates the examples of a batch, by its field, and how many it needs."""
    match stage:
        case config.Pretrain(method=method):
            yield _needed("method", method)
            if len(stage.projector) > 1:
                yield "the BatchNorm of its projector", 2
            if isinstance(method, config.BYOL | config.SimSiam):
                yield "the BatchNorm of its predictor", 2
        case config.Distill(logits=logits, features=features):
            yield _needed("logits", logits)
            for name, term in features.items():
                yield _needed(f"features.{name}", term)
        case config.DistillEncoder(method=method):
            yield _needed("method", method)
            if stage.projector:
                yield "the BatchNorm of its projector", 2


def _needed(field: str, of: Any) -> tuple[str, int]:
    return f"{field} {of.name}", LEAST_ROWS.get(type(of), 1)
