"""From config to the things themselves. The only tables of names in kdjax are the matches here."""

import functools
import os
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from kdjax import config, data, models, prune, teacher, views
from kdjax.data import Dataset
from kdjax.models import Compute
from kdjax.train import optimizers
from kdjax.types import BadInput

Recipe = Callable[[Key[Array, ""], Array], Float[Array, "height width channel"]]
Mix = Callable[..., tuple[Array, Array]]
"""`(key, view, view of the partner) -> (mixed, weight)`."""


def dataset(c: config.Data, split: str) -> Dataset:
    """The examples of a split, all labels shown."""
    match c.name:
        case "digits":
            return data.digits(split)
        case _:
            return data.prepared(
                c.name,
                split,
                data_dir=c.data_dir or os.environ.get("KDJAX_DATA_DIR"),
                image_key=c.image_key,
                label_key=c.label_key,
                id_key=c.id_key,
            )


def recipe(c: config.Views, d: config.Data, *, size: int, pixels_at: int | None = None) -> Recipe:
    """`(key, raw image) -> view` of this size, normalised.

    `pixels_at` is the size that the recipe's pixels are meant for, where that is another one.
    """
    common = {"size": size, "mean": d.mean, "std": d.std}
    fields = {name: value for name, value in vars(c).items() if name not in ("recipe", "size")}
    match c:
        case config.SimCLRViews():
            return functools.partial(views.simclr, pixels_at=pixels_at, **fields, **common)
        case config.CropFlipViews():
            return functools.partial(views.crop_flip, pixels_at=pixels_at, **fields, **common)
        case config.EvalViews():
            return lambda key, image: views.eval_view(image, **common)


def mix(c: config.Mix | None) -> Mix | None:
    """What is done to a view and that of its partner, None for nothing."""
    match c:
        case config.Mixup(alpha=alpha):
            return functools.partial(views.mixup, alpha=alpha)
        case config.CutMix(alpha=alpha):
            return functools.partial(views.cutmix, alpha=alpha)
        case None:
            return None


def signal(c: config.Cache, *, outputs: int) -> teacher.Vector | teacher.Apart:
    """What is kept of a teacher with this many outputs: classes, or the width of its features."""
    match c.signal:
        case config.FullLogits():
            of = teacher.Logits(classes=outputs, dtype=c.dtype)
        case config.TopK(k=k, temperatures=temperatures):
            of = teacher.TopK(classes=outputs, k=k, temperatures=temperatures, dtype=c.dtype)
        case config.Embedding():
            of = teacher.Embedding(dim=outputs, dtype=c.dtype)
    if c.together == "apart" and len(c.teachers) > 1:
        return teacher.Apart(of=of, teachers=len(c.teachers))
    return of


def encoder(c: config.Encoder, compute: Compute) -> nn.Module:
    """The module; its features are [batch, dim]."""
    match c:
        case config.CNN():
            return models.CNN(c.widths, compute=compute)
        case config.CifarResNet():
            return models.cifar_resnet(c.depth, multiplier=c.multiplier, compute=compute)
        case config.ResNet18():
            return models.resnet18(width=c.width, compute=compute)


def encoder_name(c: config.Encoder) -> str:
    """What the report calls it."""
    match c:
        case config.CNN():
            return "cnn-" + "-".join(map(str, c.widths))
        case config.CifarResNet():
            return f"resnet{c.depth}" + (f"x{c.multiplier}" if c.multiplier > 1 else "")
        case config.ResNet18():
            return "resnet18" + (f"-w{c.width}" if c.width != 64 else "")


def compute(c: config.Training, axis_name: str | None) -> Compute:
    """How a model is run while it is trained."""
    return Compute(dtype=jnp.dtype(c.dtype), axis_name=axis_name)


def optimizer(
    c: config.Training, pruning: config.Prune | None, *, path: str
) -> optax.GradientTransformation:
    """Clipping, the optimizer, and the masks last.

    Raises:
      BadInput: the schedule of the pruning does not fit into the training.
    """
    o = c.optimizer
    match o.schedule:
        case config.Cosine(warmup_steps=warmup):
            if not 0 <= warmup < c.steps:
                raise BadInput(
                    f"{path}.optimizer.schedule.warmup_steps: {warmup} is not in [0, steps), and "
                    f"steps is {c.steps}"
                )
            schedule = optimizers.warmup_cosine(o.learning_rate, steps=c.steps, warmup_steps=warmup)
        case config.Stairs(at_steps=at_steps, factor=factor):
            schedule = optimizers.stairs(o.learning_rate, at_steps=at_steps, factor=factor)
        case config.Constant():
            schedule = optax.constant_schedule(o.learning_rate)
    decay = {"weight_decay": o.weight_decay, "decayed": o.decayed}
    match o:
        case config.SGD():
            tx = optimizers.sgd(schedule, momentum=o.momentum, nesterov=o.nesterov, **decay)
        case config.AdamW():
            tx = optimizers.adamw(schedule, b1=o.b1, b2=o.b2, **decay)
        case config.LARS():
            tx = optimizers.lars(schedule, momentum=o.momentum, trust=o.trust, **decay)
    chain = [tx] if o.clip_norm is None else [optax.clip_by_global_norm(o.clip_norm), tx]
    if pruning is not None:
        if pruning.end_step >= c.steps:
            raise BadInput(
                f"{path}.prune.end_step: {pruning.end_step} is not before the end of training at "
                f"step {c.steps}"
            )
        steps = {"begin_step": pruning.begin_step, "end_step": pruning.end_step}
        chain.append(
            prune.prune_by_magnitude(
                prune.cubic(pruning.sparsity, **steps),
                every_steps=pruning.every_steps,
                prunable=pruning.prunable,
                **steps,
            )
        )
    return optax.chain(*chain)
