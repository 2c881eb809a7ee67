"""What a stage asks of the data by its sizes, held against them before anything is trained."""

from kdjax import config
from kdjax.stages.context import Splits
from kdjax.types import BadInput


def check_data(c: config.Data, splits: Splits) -> None:
    """Holds the numbers of each channel against the images.

    Raises:
      BadInput: there are neither one nor as many as channels; the line names the field.
    """
    channels = splits.train.image_shape[-1]
    for name in ("mean", "std"):
        if (n := len(getattr(c, name))) not in (1, channels):
            raise BadInput(
                f"config.data.{name}: {n} numbers for images of {channels} channels; give "
                f"{'1' if channels == 1 else f'1 or {channels}'}"
            )


def check(run: config.Run, name: str, splits: Splits) -> None:
    """Holds the batch and the views of a stage against the training images.

    A batch of more examples than there are would have some of them twice in every step, where each is
    the other's negative, or neighbour. A classifier of few labels may have more in a batch than there are
    labels, since its loss is a mean over single views, each of its own; not more than all images.

    Args:
      run: the whole config.
      name: of the stage.
      splits: the data.

    Raises:
      BadInput: the batch, or what a view cuts out or is shifted by, is larger than what there is; the
        line names the field.
    """
    c, path, n = run.stages[name], f"config.stages.{name}", len(splits.train)
    if isinstance(c, config.Training) and c.batch > n:
        raise BadInput(
            f"{path}.batch: {c.batch} of {n} training examples would have some of them twice in a "
            f"step; give {n} at most"
        )
    match c:
        case config.Pretrain():
            side = _check_views(c.views, splits.size, f"{path}.views")
            if (smaller := c.method.smaller_views) is not None:
                _check_views(smaller, side, f"{path}.method.local_views")
        case config.Finetune(self_training=config.SelfTraining() as own):
            _check_views(c.views, splits.size, f"{path}.views")
            _check_views(own.weak, splits.size, f"{path}.self_training.weak")
            _check_views(own.strong, splits.size, f"{path}.self_training.strong")
        case config.Finetune():
            _check_views(c.views, splits.size, f"{path}.views")
        case config.Cache():
            _check_views(c.recipe, side_of(run, c.teachers[0], splits), f"{path}.recipe")
        case config.Evaluate(pairs=config.Pairs(views=views)):
            own = splits.size if c.model is None else side_of(run, c.model, splits)
            _check_views(views, own, f"{path}.pairs.views")


def side_of(run: config.Run, name: str, splits: Splits) -> int:
    """Side in pixels of the views that the model of a stage sees; of a cache, that its teachers see."""
    match run.stages[name]:
        case config.Pretrain(views=views) | config.Finetune(views=views):
            return views.side(splits.size)
        case config.Cache() as c:
            return c.recipe.side(side_of(run, c.teachers[0], splits))
        case config.FromCache() as c:
            return side_of(run, c.cache, splits) if c.size is None else c.size
        case config.Shrink(model=model) | config.Quantize(model=model) | config.Export(model=model):
            return side_of(run, model, splits)
    return splits.size


def _check_views(c: config.Views, own: int, path: str) -> int:
    """The side of these views, out of which no more is cut than there is."""
    side = c.side(own)
    for name, most in c.pixels().items():
        if most > side:
            raise BadInput(
                f"{path}.{name}: {getattr(c, name)} pixels leave nothing of a view of {side} x {side}; "
                "give fewer"
            )
    return side
