"""From what several parts of a config say together to the things themselves."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from kdjax import config, data, tasks, teacher, train, tree
from kdjax.data import Dataset
from kdjax.models import Compute
from kdjax.train import optimizers, rates
from kdjax.types import BadInput, PyTree, under


def dataset(
    c: config.Data, split: str, *, kept: data.Kept | None = None, tested: bool = False
) -> Dataset:
    """The examples of a split, all labels shown; see `kdjax.data.prepared` for `kept`.

    Args:
      c: which data.
      split: of them.
      kept: see above.
      tested: models are tested on them.
    """
    data_dir = os.environ.get("KDJAX_DATA_DIR") if c.data_dir is None else c.data_dir
    if c.source is not None:
        return _asked(c, c.source.dataset(split, data_dir=data_dir, kept=kept), tested=tested)
    if c.name == "digits":
        return data.digits(split)
    return data.prepared(
        c.name,
        split,
        data_dir=data_dir,
        image_key=c.image_key,
        label_key=c.label_key,
        id_key=c.id_key,
        kept=kept,
    )


def _asked(c: config.Data, found: Dataset, *, tested: bool) -> Dataset:
    """Data without labels as those of which a target is asked."""
    if c.target is None:
        return found
    if not isinstance(found.target, data.Unlabelled):
        raise BadInput(
            "data.target", f"the labels of {found.name} are {found.target}", "leave it out"
        )
    with under("data.target"):
        return c.target.asked(found, tested=tested)


def signal(
    c: config.Cache, *, task: tasks.Task | None, width: int, positions: int | None = None
) -> teacher.Vector | teacher.Apart | teacher.Positions:
    """What is kept of a teacher.

    Args:
      c: the config of the cache.
      task: of the teacher, None where its features are kept.
      width: of its features.
      positions: that it answers at, of the longest example; None where it answers once.

    Raises:
      BadInput: the task has no such signal; the line begins with the field.
    """
    if task is None:
        assert c.signal is not None
        of = c.signal.kept(width, dtype=c.dtype)
    elif c.signal is None:
        of = task.signal(c.dtype, positions=positions)
    else:
        kept = c.signal.kept(task.classes_of_answer("signal.name"), dtype=c.dtype)
        of = task.each(kept, positions=positions)
        if c.signal.of_hidden:
            if not isinstance(of, teacher.Positions):
                raise BadInput("signal.at", f"hidden, and {task.name} answers once", "give all")
            of = dataclasses.replace(of, hidden=True)
    if c.together == "mean" or len(c.teachers) == 1:
        return of
    if isinstance(of, teacher.Positions):
        raise BadInput("together", "what is said of positions is not kept apart", "give mean")
    return teacher.Apart(of=of, teachers=len(c.teachers))


def compute(c: config.Training, axis_name: str | None) -> Compute:
    """How a model is run while it is trained."""
    return Compute(dtype=jnp.dtype(c.dtype), axis_name=axis_name)


def terms(
    c: config.Training,
    known: train.Terms,
    *,
    path: str,
    axis_name: str | None = None,
) -> dict[str, tuple[train.Number, train.Term]]:
    """All terms of a stage: those that it has, and the user's.

    Args:
      c: its config.
      known: that it has.
      path: of its config, for messages.
      axis_name: mapped axis of the batch.

    Raises:
      BadInput: two have one name.
    """
    found = dict(known)
    for name, own in c.terms.items():
        field = f"{path}.terms.{name}"
        if name in known:
            raise BadInput(field, "the stage has a term of this name", "give it another")
        weight = config.over_steps(own.weight, steps=c.steps)
        found[name] = (weight, own.term(axis_name=axis_name, path=field))
    return found


def optimizer(
    c: config.Training, *, names: Callable[[], Sequence[str]], apart: str | None = None
) -> optax.GradientTransformation:
    """The penalty of the scales, clipping, the optimizer, and the rates of layers.

    Args:
      c: of the training.
      names: of the parameters of the model, in the order in which it uses them, see
        `kdjax.models.names_in_order`; asked for where that matters.
      apart: pattern of the parameters whose gradients are not clipped, and do not count where those
        of the others are.
    """
    of, freezing = c.optimizer, c.optimizer.freezing
    if of.updates(c.steps) is None:
        return optax.set_to_zero()
    after, chain = [], []
    if c.scale_l1:
        chain.append(optimizers.l1(c.scale_l1, penalized=".*/scale", freezing=freezing))
    if (norm := of.clip_norm) is not None:
        clip = optax.clip_by_global_norm(norm)
        chain += [clip if apart is None else optax.masked(clip, _all_but(apart))]
    if of.layer_decay is not None or of.rates:
        how = {"layer_decay": of.layer_decay, "layers": of.layers, "rates": of.rates}
        after.append(rates.scaled(functools.cache(lambda: rates.factors(names(), **how))))

    def updates(begin_step: int) -> optax.GradientTransformation:
        found = of.updates(c.steps, begin_step=begin_step)
        assert found is not None
        return optax.chain(found, *after) if after else found

    if freezing is None:
        made = optax.chain(*chain, updates(0))
    else:
        made = train.freeze(updates, freezing, before=chain)
    return optimizers.decaying(made, of.decayed) if of.weight_decay else made


def _all_but(pattern: str) -> Callable[[PyTree], PyTree]:
    return lambda params: jax.tree.map(lambda yes: not yes, tree.match(params, pattern))
