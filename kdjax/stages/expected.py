"""What a stage will leave, and whether data and views fit it: said before anything runs."""

from typing import Any

import jax
import jax.numpy as jnp

from kdjax import config
from kdjax.stages import build
from kdjax.stages.context import Context, Splits, under
from kdjax.stages.model import Spec
from kdjax.types import BadInput


def classifier(c: config.Training, spec: Spec) -> dict[str, Any]:
    """What the manifest of a stage says that trains a classifier."""
    early = c.rewind_step is not None or isinstance(c.prune, config.Ticket)
    return {"model": spec.plain(), **({"early": None} if early else {})}


def check_views(c: config.Views, context: Context, *, size: int, path: str) -> None:
    """Draws one view of a training image in shapes alone.

    Args:
      c: how it is drawn.
      context: of the stage.
      size: side of it, for which its pixels are given.
      path: of its config, for messages.

    Raises:
      BadInput: it cannot be drawn, or shows nothing.
    """
    if size < 1:
        raise BadInput(f"{path}.size: {size} is not a positive number of pixels")
    if not isinstance(c, config.EvalViews):
        _check_pixels(c, size=size, path=path)
    with under(path):
        recipe = build.recipe(c, context.run.data, size=size)
        image = jax.ShapeDtypeStruct(context.splits.train.image_shape, jnp.uint8)
        jax.eval_shape(recipe, jax.random.key(0), image)


def _check_pixels(c: config.SimCLRViews | config.CropFlipViews, *, size: int, path: str) -> None:
    if not 0 <= c.shift < size:
        raise BadInput(
            f"{path}.shift: {c.shift} pixels of a view of {size} may leave nothing of the image; give "
            f"0 to {size - 1}"
        )
    if not 0 <= c.cutout <= size:
        raise BadInput(
            f"{path}.cutout: a square of {c.cutout} pixels does not fit into a view of {size}; give 0 "
            f"to {size}"
        )
    if not isinstance(c, config.SimCLRViews):
        return
    if c.blur_kernel is not None and not (c.blur_kernel % 2 and 1 <= c.blur_kernel <= 2 * size - 1):
        raise BadInput(
            f"{path}.blur_kernel: {c.blur_kernel} is not an odd number of pixels from 1 to "
            f"{2 * size - 1}, which reach from one side of a view of {size} to the other"
        )


def check_data(d: config.Data, splits: Splits) -> None:
    """Raises `BadInput` where the preprocessing does not fit the images, or the splits each other."""
    channels = splits.train.image_shape[-1]
    for name, values in (("mean", d.mean), ("std", d.std)):
        if len(values) not in (1, channels):
            raise BadInput(
                f"config.data.{name}: {len(values)} numbers for images of {channels} channels; give "
                f"{'1' if channels == 1 else f'1 or {channels}'}"
            )
    if min(d.std) <= 0:
        raise BadInput(f"config.data.std: {min(d.std)} is not above zero")
    train, test = splits.train.image_shape, splits.test.image_shape
    if train != test:
        raise BadInput(
            f"config.data.test_split: images of {test}, and those to train on are {train}"
        )


def check_labels(context: Context, stage: config.Stage) -> None:
    """Raises `BadInput` where a stage measures on test examples that have no labels."""
    measures = config.Finetune | config.Distill | config.Shrink | config.Quantize | config.Export
    if not isinstance(stage, measures) and not (
        isinstance(stage, config.Evaluate) and (stage.knn is not None or stage.linear is not None)
    ):
        return
    test = context.splits.test
    if without := int((test.labels < 0).sum()):
        raise BadInput(
            f"config.data.test_split: {without} of the {len(test)} examples of {test.name} have no "
            f"label, and {context.name} is measured on them; name a split that has labels"
        )
