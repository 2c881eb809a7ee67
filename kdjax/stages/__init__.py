"""One file a stage kind, of the name of the kind: its `check` and `run` take a context and the config.

What `run` gives goes into the manifest of the artifact that it leaves. A file may also define the config
of its kind, a subclass of `kdjax.config.Stage`.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from kdjax import config
from kdjax.artifacts.artifact import Expected
from kdjax.artifacts.model import inputs_of
from kdjax.checks.expected import check_encoder, check_labels
from kdjax.choice import import_all
from kdjax.config.own import explained
from kdjax.contexts.context import Context
from kdjax.fitting.imported import account
from kdjax.measuring import measure
from kdjax.stages.own import Given, Model
from kdjax.types import BadInput, under

__all__ = ["Given", "Model", "check", "run"]


def check(context: Context, stage: config.Stage) -> Expected:
    """Goes through a stage before any has run; gives what it will leave, for those that read it.

    Args:
      context: `ahead`, with what earlier stages will leave.
      stage: its config.

    Raises:
      BadInput: the config cannot be carried out, or a package that it needs is not installed.
    """
    with under(context.path):
        context = _given(context)
        check_labels(context, stage)
        if stage.is_measured():
            measure.check_scores(context)
        try:
            check_encoder(context, stage)
            said = _kind(stage).check(context, stage)
        except BadInput:
            raise
        except Exception as error:
            where = (stage, context.path), (context.run.stages, "config.stages")
            line = explained(error, *where)
            if line is None:
                raise
            raise line from None
    exact = context.exact and not isinstance(stage, config.Shrink)
    return Expected(context.folder, {"stage": context.name, **said}, stage, exact=exact)


def _given(context: Context) -> Context:
    """With the data as the models are given them that the stage reads.

    Raises:
      BadInput: one of them has been trimmed, and another one has not.
    """
    found: dict[str, Context] = {}
    for name, artifact in context.inputs.items():
        if (inputs := inputs_of(artifact)) is not None:
            found[name] = context.given(inputs)
    whole = [name for name, own in found.items() if own.splits.whole is None]
    if len(whole) in (0, len(found)):
        return next(iter(found.values()), context)
    trimmed = next(name for name in found if name not in whole)
    raise BadInput(
        "",
        f"it reads {whole[0]} and {trimmed}, which has been trimmed: they are given other tokens",
        "trim what this stage leaves",
    )


def _kind(stage: config.Stage) -> Any:
    """What a kind of stage does: the module of its name, with `check` and `run`."""
    return importlib.import_module(f"{__name__}.{stage.kind}")


def run(context: Context, stage: config.Stage) -> Mapping[str, Any]:
    """Runs a stage; gives what it has to say in its manifest.

    Raises:
      BadInput: the config cannot be carried out.
      StageFailed: a result is beyond its tolerance.
      Diverged: a loss is not finite.
    """
    with under(context.path):
        context = _given(context)
        said = _kind(stage).run(context, stage)
        return {**said, **account(context, stage, said)}


import_all(__name__, __path__)
