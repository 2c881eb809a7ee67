"""From config to the things themselves. The only tables of names in kdjax are the matches here."""

import functools
import os
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from kdjax import config, data, models, teacher, tree, views
from kdjax.data import Dataset
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.train import optimizers
from kdjax.types import BadInput, PyTree

Recipe = Callable[[Key[Array, ""], Mapping[str, Array]], dict[str, Array]]
"""`(key, raw example) -> what a model is given of it`, by field."""

Mix = Callable[..., tuple[dict[str, Array], Array]]
"""`(key, view, view of the partner) -> (mixed, weight)`."""


def dataset(c: config.Data, split: str, *, kept: data.Kept | None = None) -> Dataset:
    """The examples of a split, all labels shown; see `kdjax.data.prepared` for `kept`."""
    match c.name:
        case "digits":
            return data.digits(split)
        case _:
            return data.prepared(
                c.name,
                split,
                data_dir=os.environ.get("KDJAX_DATA_DIR") if c.data_dir is None else c.data_dir,
                image_key=c.image_key,
                label_key=c.label_key,
                id_key=c.id_key,
                kept=kept,
            )


def recipe(c: config.Views, inputs: Inputs, *, meant_for: Inputs | None = None) -> Recipe:
    """How a view of an example is drawn: what it has of images is augmented, all else is as it is.

    Args:
      c: the recipe.
      inputs: of the model that sees the view.
      meant_for: of the one that the recipe's pixels are meant for, where that is another one.

    Raises:
      BadInput: the recipe is one of images, and there is none.
    """
    match c:
        case config.SimCLRViews():
            of_image = views.simclr
        case config.CropFlipViews():
            of_image = views.crop_flip
        case config.EvalViews():
            return lambda key, example: inputs.see(example)
    if not inputs.images:
        raise BadInput(
            f"recipe: {c.recipe} is one of images, and an example is {inputs}; take recipe=eval"
        )
    given = {name: value for name, value in vars(c).items() if name not in ("recipe", "size")}
    sizes = {image.field: image.size for image in (meant_for or inputs).images}

    def draw(key: Key[Array, ""], example: Mapping[str, Array]) -> dict[str, Array]:
        drawn = {
            image.field: of_image(
                key,
                example[image.field],
                size=image.size,
                mean=image.mean,
                std=image.std,
                pixels_at=None if meant_for is None else sizes[image.field],
                **given,
            )
            for image in inputs.images
        }
        return {
            part.field: drawn[part.field] if part.field in drawn else part.see(example[part.field])
            for part in inputs.parts
        }

    return draw


def mix(c: config.Mix | None, inputs: Inputs) -> Mix | None:
    """What is done to a view and that of its partner, None for nothing.

    Raises:
      BadInput: an example is not one image.
    """
    match c:
        case config.Mixup(alpha=alpha):
            of_images = functools.partial(views.mixup, alpha=alpha)
        case config.CutMix(alpha=alpha):
            of_images = functools.partial(views.cutmix, alpha=alpha)
        case None:
            return None
    if len(inputs.parts) != 1 or not inputs.images:
        raise BadInput(f"mix: {c.name} mixes images, and an example is {inputs}; leave it out")
    name = inputs.images[0].field

    def both(key: Key[Array, ""], own: Mapping[str, Array], other: Mapping[str, Array]):
        mixed, weight = of_images(key, own[name], other[name])
        return {name: mixed}, weight

    return both


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
    """The module; its features are [batch, dim].

    Raises:
      BadInput: there is no such network; the line names the field of the encoder.
    """
    given = {name: value for name, value in vars(c).items() if name not in ("name", "size")}
    given["compute"] = compute
    match c:
        case config.CNN():
            return models.CNN(**given)
        case config.CifarResNet():
            return models.cifar_resnet(**given)
        case config.ResNet18():
            return models.resnet18(**given)
        case config.ResNet50():
            return models.resnet50(**given)
        case config.VGG():
            return models.vgg(**given)
        case config.MobileNetV2():
            return models.mobilenet_v2(**given)
        case config.MobileNetV3(size="small"):
            return models.mobilenet_v3_small(**given)
        case config.MobileNetV3():
            return models.mobilenet_v3_large(**given)
        case config.EfficientNetB0():
            return models.efficientnet_b0(**given)
        case config.ViT():
            return models.vit(**given)


def encoder_name(c: config.Encoder) -> str:
    """What the report calls it: what is not as usual is said."""

    def but(mark: str, value: float | int, usual: float | int) -> str:
        return "" if value == usual else f"{mark}{value:g}"

    match c:
        case config.CNN():
            return "cnn-" + "-".join(map(str, c.widths))
        case config.CifarResNet():
            return f"resnet{c.depth}" + but("x", c.multiplier, 1)
        case config.VGG():
            return f"vgg{c.depth}" + but("-w", c.width, 64) + but("-p", c.pools, 3)
        case config.ViT():
            return f"vit-w{c.width}-d{c.depth}-h{c.heads}-m{c.mlp}-p{c.patch}"
        case config.ResNet18() | config.ResNet50():
            name = c.name + but("-w", c.width, 64)
        case config.MobileNetV3():
            name = f"mobilenet-v3-{c.size}" + but("-x", c.multiplier, 1)
            name += "" if c.activation == "hard_swish" else f"-{c.activation}"
        case config.MobileNetV2() | config.EfficientNetB0():
            name = c.name.replace("_", "-") + but("-x", c.multiplier, 1)
    return name + ("-imagenet" if c.imagenet_stem else "")


def compute(c: config.Training, axis_name: str | None) -> Compute:
    """How a model is run while it is trained."""
    return Compute(dtype=jnp.dtype(c.dtype), axis_name=axis_name)


def number(c: config.Number, *, steps: int) -> float | optax.Schedule:
    """A number, or its schedule over the steps of a stage."""
    if not isinstance(c, config.Ramp):
        return c
    end = steps if c.end_step is None else c.end_step
    return optimizers.ramp(
        c.begin,
        c.end,
        begin_step=c.begin_step,
        end_step=end,
        cosine=c.shape == "cosine",
    )


def optimizer(c: config.Training, *, apart: str | None = None) -> optax.GradientTransformation:
    """The penalty of the scales, clipping and the optimizer.

    Args:
      c: of the training.
      apart: pattern of the parameters whose gradients are not clipped, and do not count where those
        of the others are.
    """
    o = c.optimizer
    if isinstance(o, config.Frozen):
        return optax.set_to_zero()
    match o.schedule:
        case config.Cosine(warmup_steps=warmup):
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
    chain = [optimizers.l1(c.scale_l1, penalized=".*/scale")] if c.scale_l1 else []
    if o.clip_norm is not None:
        clip = optax.clip_by_global_norm(o.clip_norm)
        chain += [clip if apart is None else optax.masked(clip, _all_but(apart))]
    return optax.chain(*chain, tx)


def _all_but(pattern: str) -> Callable[[PyTree], PyTree]:
    return lambda params: jax.tree.map(lambda yes: not yes, tree.match(params, pattern))
