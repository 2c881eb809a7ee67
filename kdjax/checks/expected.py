"""What a stage will leave, and whether data and views fit it: said before anything runs."""

import dataclasses
import functools
import operator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdjax import config, tasks, user_code
from kdjax.artifacts.model import Spec
from kdjax.checks import sizes
from kdjax.config.encoders import own
from kdjax.config.own import shown
from kdjax.contexts.context import Context, Splits
from kdjax.data import Tokens
from kdjax.inputs import Inputs
from kdjax.models import Compute, called
from kdjax.types import BadInput, Field, under


def model(c: config.Training, spec: Spec) -> dict[str, Any]:
    """What the manifest of a stage says that trains a whole model."""
    early = c.rewind_step is not None or isinstance(c.prune, config.Ticket)
    return {"model": spec.plain(), **({"early": None} if early else {})}


def check_views(c: config.Views, context: Context, inputs: Inputs, *, path: str) -> None:
    """Draws one view of a training example in shapes alone.

    Args:
      c: how it is drawn.
      context: of the stage.
      inputs: of the model that it is drawn for.
      path: of its config, for messages.

    Raises:
      BadInput: it cannot be drawn, or shows nothing.
    """
    for field, fault, *mend in c.misfits(inputs):
        raise BadInput(f"{path}.{field}", fault, *mend)
    dataset = context.splits.train
    if c.moves and dataset.target.ends(dataset.labels[:1]) is not None:
        raise BadInput(
            f"{path}.recipe",
            f"{c.recipe} moves what is at a position, and labels are of positions",
            "take one that does not",
        )
    stage = context.run.stages[context.name]
    if c.asks and not (
        isinstance(stage, config.Finetune | config.Cache) and isinstance(dataset.target, Tokens)
    ):
        raise BadInput(
            f"{path}.recipe",
            f"{c.recipe} says which tokens are to be said, and {context.name} does not ask for them",
            "take tokens or eval; or give data.target=dict(kind='tokens') to a stage finetune or cache",
        )
    with under(path):
        recipe = c.recipe_for(inputs, examples=dataset)
        example = {
            name: jax.ShapeDtypeStruct(field.shape, field.dtype)
            for name, field in context.splits.train.fields.items()
        }
        jax.eval_shape(recipe, jax.random.key(0), example)


def check_encoder(context: Context, stage: config.Stage) -> None:
    """Applies an encoder that may have features of several shapes, as the user's, in shapes alone.

    Raises:
      BadInput: it gives no features [batch, dim], or as the task has them; the line has its path.
    """
    encoder = getattr(stage, "encoder", None)
    if not isinstance(encoder, config.Encoder):
        return
    axes = tasks.Task.features
    if stage.is_measured():  # it has the head of the task, and no other
        axes = tasks.of(context.splits.train).features
    if encoder.shaped_by is None and len(axes) == len(tasks.Task.features):
        return
    field, said = "encoder", encoder.title
    if encoder.shaped_by is not None:
        field = f"encoder.{encoder.shaped_by}"
        said = f"{operator.attrgetter(encoder.shaped_by)(encoder)}"
    given = sizes.inputs_of(context.run, context.name, context.splits)
    inputs = given.blank(2)
    with under(context.path):
        module = encoder.given(given).module(Compute())
        for train in (True, False):
            init = nn.init_with_output(functools.partial(called, train=train), module)
            try:
                features, _ = jax.eval_shape(init, jax.random.key(0), inputs)
            except BadInput:
                raise
            except Exception as error:
                if not isinstance(encoder, own.OwnEncoder) or encoder.source:
                    raise  # with a line of the user's, see `own.explained`
                why = user_code.described(error)
                raise BadInput(field, f"{said}: {why}") from None
            if isinstance(features, tuple) and len(features) == 2 and len(axes) > 2:
                features, _ = features  # with the mask of their positions
            shape = list(getattr(features, "shape", ()))
            is_float = jnp.issubdtype(getattr(features, "dtype", np.void), jnp.floating)
            if len(shape) != len(axes) or shape[0] != 2 or not is_float:
                raise BadInput(
                    field,
                    f"{said} gave {shown(features)} of two examples",
                    f"features are floats [{', '.join(axes)}]",
                )


def check_data(splits: Splits) -> None:
    """Raises `BadInput` where the splits do not fit each other."""
    if (asked := splits.test.target) != splits.train.target:
        raise BadInput(
            "config.data.test_split",
            f"its labels are {asked}, and of what is trained on {splits.train.target}",
        )
    train, test = splits.train.fields, splits.test.fields
    for name, field in train.items():
        if (other := test.get(name)) != field:
            found, trained = _unlike(other, field)
            raise BadInput(
                "config.data.test_split", f"{name} is {found}, and of what is trained on {trained}"
            )
    if more := [name for name in test if name not in train]:
        raise BadInput(
            "config.data.test_split", f"it has {', '.join(more)}, which what is trained on has not"
        )


def _unlike(found: Field | None, trained: Field) -> tuple[str, str]:
    """Two fields in the words in which they differ."""
    if found is None:
        return "nothing", f"{trained.dtype} {trained.shape}"
    if (found.dtype, found.shape) != (trained.dtype, trained.shape):
        return f"{found.dtype} {found.shape}", f"{trained.dtype} {trained.shape}"
    if (found.below, found.least) != (trained.below, trained.least):
        said = (
            "any integers" if f.below is None else f"integers from {f.least} to {f.below - 1}"
            for f in (found, trained)
        )
        first, second = said
        return first, f"{second}; say how many there may be (below) alike for both splits"
    names = [f.name for f in dataclasses.fields(Field)]
    unlike = [n for n in names if getattr(found, n) != getattr(trained, n)]
    first, second = (", ".join(f"{n}={getattr(f, n)}" for n in unlike) for f in (found, trained))
    return first, second


def check_accuracy(context: Context, spec: Spec, field: str) -> None:
    """Raises `BadInput` where a limit on the accuracy is of a model, or of tests, that have none."""
    spec.task.check_accuracy(field)
    if not (test := context.splits.test).shown.all():
        raise BadInput(field, f"not all examples of {test.name} have a label", "give agreement")


def check_labels(context: Context, stage: config.Stage) -> None:
    """Raises `BadInput` where a stage measures on test examples that have no labels.

    Where there is no label at all, neither to learn from nor to test by, a model has no scores, and
    nothing is refused but what is to be held against labels.
    """
    if not stage.is_measured():
        return
    test, run = context.splits.test, context.run
    without = int((~test.shown).sum())
    if not without:
        return
    if context.splits.is_unlabelled:
        if isinstance(stage, config.Evaluate):
            name = "knn" if stage.knn is not None else "linear"
            raise BadInput(name, f"{test.name} has no labels", f"leave it out: {name}=None")
        return
    if not run.is_compared(context.name):
        raise BadInput(
            "config.data.test_split",
            f"{without} of the {len(test)} examples of {test.name} have no label, and {context.name} "
            "is measured on them",
            "name a split that has labels, or a stage that models are compared with "
            "(config.reference)",
        )
