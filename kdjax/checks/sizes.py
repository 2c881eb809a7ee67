"""What a stage asks of the data by its sizes, held against them before anything is trained."""

from kdjax import config
from kdjax.contexts.context import Splits
from kdjax.inputs import Inputs
from kdjax.types import BadInput, under


def check_data(splits: Splits) -> None:
    """Holds the preprocessing against the data.

    Raises:
      BadInput: it does not fit; the line names the field.
    """
    for field, fault, *mend in splits.inputs.faults():
        raise BadInput(f"config.data.{field}", fault, *mend)


def check(run: config.Run, name: str, splits: Splits) -> None:
    """Holds the batch and the views of a stage against the training examples.

    A batch of more examples than there are would have some of them twice in every step, where each is
    the other's negative, or neighbour. A classifier of few labels may have more in a batch than there are
    labels, since its loss is a mean over single views, each of its own; not more than all examples.

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
            f"{path}.batch",
            f"{c.batch} of {n} training examples would have some of them twice in a step",
            f"give {n} at most",
        )
    match c:
        case config.Pretrain():
            seen = _check_views(c.views, splits.inputs, f"{path}.views")
            if (smaller := c.method.smaller_views) is not None:
                _check_views(smaller, seen, f"{path}.method.local_views")
        case config.Finetune(self_training=config.SelfTraining() as own):
            _check_views(c.views, splits.inputs, f"{path}.views")
            _check_views(own.weak, splits.inputs, f"{path}.self_training.weak")
            _check_views(own.strong, splits.inputs, f"{path}.self_training.strong")
        case config.Finetune():
            _check_views(c.views, splits.inputs, f"{path}.views")
        case config.Cache():
            _check_views(c.recipe, inputs_of(run, c.teachers[0], splits), f"{path}.recipe")
        case config.Evaluate(pairs=config.Pairs(views=views)):
            own = splits.inputs if c.model is None else inputs_of(run, c.model, splits)
            _check_views(views, own, f"{path}.pairs.views")


def inputs_of(run: config.Run, name: str, splits: Splits) -> Inputs:
    """What the model of a stage is given; of a cache, what its teachers are.

    Raises:
      BadInput: a stage asks for a size, and nothing has one.
    """
    with under(f"config.stages.{name}"):
        match run.stages[name]:
            case config.Pretrain(views=views) | config.Finetune(views=views):
                return splits.inputs.sized(views.size)
            case config.Pretrained(size=size):
                return splits.inputs.sized(size)
            case config.Cache() as c:
                return inputs_of(run, c.teachers[0], splits).sized(c.recipe.size)
            case config.FromCache() as c:
                return inputs_of(run, c.cache, splits).sized(c.size)
            case config.Shrink(model=of) | config.Quantize(model=of) | config.Export(model=of):
                return inputs_of(run, of, splits)
            case config.Trim(model=of):
                return inputs_of(run, of, splits)
            case config.OwnStage(leaves=str(of)):
                return inputs_of(run, of, splits)
        return splits.inputs


def _check_views(c: config.Views, own: Inputs, path: str) -> Inputs:
    """What these views are, out of which no more is cut than there is."""
    with under(path):
        seen = own.sized(c.size)
    for field, fault, *mend in c.too_large(seen):
        raise BadInput(f"{path}.{field}", fault, *mend)
    return seen
