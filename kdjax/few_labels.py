"""The recipe for few labels: what a run of an image set that nobody has tuned begins with.

Everything follows from facts about the images, which are seen without a label, by the rules below; a
config that knows better changes what it knows better. The line: self-supervision on all images (SimCLR),
a teacher that begins with a linear probe and is trained on the labelled images and on its own predictions
of all others (SoftMatch), its answers in a cache, and a student that learns those.

The rules:

* Views. All but the weakest are warped (turned, sheared, stretched), as a camera does it, or a hand, as
  far as warped images lie among the others (`warp_strength`): photographs and digits of many hands
  bear more of it than spectrograms, and than digits that have been straightened. Colours vary where
  there are colours. Images are mirrored where a linear classifier cannot tell them from their mirror
  images (`mirrored`, `CHIRAL`): digits, letters and spectrograms are told apart, photographs are not.
  A labelled image is shifted and warped half as far, and never cut: of so few, no part can be missed.
* Sizes. Cuts and shifts are parts of the shorter side. An encoder halves its maps until 4 pixels of it
  are left.
* Steps are the same for all sets, so that the time goes with the area of the images.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epy
from jaxtyping import Float64, UInt8

from kdjax import spelling
from kdjax import views as views_of
from kdjax.types import BadInput

with epy.lazy_imports():  # slow to import, and few runs look at the data so
    from sklearn import linear_model

CHIRAL = 0.6
"""Accuracy of telling images from their mirror images above which no view is mirrored."""

STRENGTHS = (1.0, 0.75, 0.5, 0.25)
"""Of a warp, as parts of the whole one, which turns by 15 degrees; less than the last is none."""

FARTHER = 1.2
"""How much farther a warped image may lie from its nearest neighbour than an image does."""

LOOKED_AT = 1000
"""Images that facts are found from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What the rules are about.

    Attributes:
      side: of an image, in pixels, the shorter one.
      channels: 1 of grey, 3 of colour; of any other number they have no colours that vary.
      mean, std: of each channel, of pixels from 0 to 1.
      mirrored: see `mirrored`.
      warp: see `warp_strength`.
    """

    side: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrored: float
    warp: float


def facts(images: UInt8[np.ndarray, "n height width channel"], *, seed: int = 0) -> Facts:
    """Of a sample of the training images; no label is looked at."""
    unit = images.astype(np.float64) / 255
    return Facts(
        side=min(images.shape[1:3]),
        channels=images.shape[-1],
        mean=tuple(round(float(x), 3) for x in unit.mean((0, 1, 2))),
        std=tuple(max(round(float(x), 3), 0.001) for x in unit.std((0, 1, 2))),
        mirrored=mirrored(images, seed=seed),
        warp=warp_strength(images, seed=seed),
    )


def warp(strength: float) -> dict[str, float]:
    """Fields of a view: `turn`, `shear` and `stretch` of this strength."""
    return {"turn": 15 * strength, "shear": 0.15 * strength, "stretch": 1.15**strength}


def warp_strength(images: UInt8[np.ndarray, "n height width channel"], *, seed: int = 0) -> float:
    """The largest of `STRENGTHS` at which warped images still look like the others; 0 where none does.

    That is: the median distance from a warped image to the nearest other image than its own is at most
    `FARTHER` times that of an image as it is. No label is needed, and where the images themselves vary
    as a warp makes them vary, all of it is borne.
    """
    small = _pooled(images, 32)
    flat = small.reshape(len(small), -1)
    usual = _to_nearest(flat, flat)
    key = jax.random.split(jax.random.key(seed), len(small))
    for strength in STRENGTHS:

        def one(key, image, strength=strength):
            return views_of.warp(key, image, **warp(strength))

        warped = np.asarray(jax.vmap(one)(key, jnp.asarray(small, jnp.float32)), np.float64)
        if _to_nearest(warped.reshape(len(small), -1), flat) <= FARTHER * usual:
            return strength
    return 0.0


def _to_nearest(x: Float64[np.ndarray, "n dim"], others: Float64[np.ndarray, "n dim"]) -> float:
    """Median distance of a row to the nearest of the others, the one at its own place left out."""
    squared = (x**2).sum(1)[:, None] + (others**2).sum(1)[None, :] - 2 * x @ others.T
    np.fill_diagonal(squared, np.inf)
    return float(np.median(np.sqrt(np.maximum(squared.min(1), 0))))


def _pooled(
    images: UInt8[np.ndarray, "n height width channel"], most: int
) -> Float64[np.ndarray, "n rows columns channel"]:
    """From 0 to 1, as means of whole squares, with at most so many of them along a side."""
    n, height, width, channels = images.shape
    pool = max(1, -(-max(height, width) // most))
    rows, columns = height // pool, width // pool
    small = images[:, : rows * pool, : columns * pool].astype(np.float64) / 255
    return small.reshape(n, rows, pool, columns, pool, channels).mean((2, 4))


def mirrored(images: UInt8[np.ndarray, "n height width channel"], *, seed: int = 0) -> float:
    """How often a linear classifier tells an image from its mirror image: 0.5 where it cannot.

    It sees the difference of the two, half of which is all that they differ in; it is fitted on two
    thirds of the images and asked about the rest. Where it is often right, mirroring makes images that
    do not occur.

    Reference: Lin et al. 2020, https://arxiv.org/abs/2006.09512, of the idea.
    """
    small = _pooled(images, 16)  # which is enough, and soon fitted
    n = len(small)
    odd = (small - small[:, :, ::-1])[:, :, : small.shape[2] // 2].reshape(n, -1)
    if not odd.size:
        return 0.5
    rng = np.random.default_rng(seed)
    sign = rng.permuted(np.resize([1, -1], n))
    fitted = rng.permutation(n) < 2 * n // 3
    scale = odd.std() or 1.0
    x = odd * sign[:, None] / scale
    regression = linear_model.LogisticRegression(C=0.01, fit_intercept=False, max_iter=200)
    regression.fit(x[fitted], sign[fitted])
    return float(regression.score(x[~fitted], sign[~fitted]))


def views(facts: Facts) -> dict[str, dict[str, Any]]:
    """Recipes by what they are for: `contrast`, `label`, `weak`, `strong` and `student`."""
    side, colour = facts.side, facts.channels == 3
    flip = 0.0 if facts.mirrored > CHIRAL else 0.5
    contrast = {
        "recipe": "simclr",
        "crop_scale": [0.4, 1.0],
        "flip": flip,
        **({} if facts.channels in (1, 3) else {"jitter": 0.0}),
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.4 if colour else 0.0,
        "hue": 0.1 if colour else 0.0,
        "grayscale": 0.2 if colour else 0.0,
        "blur": 0.3,
        "blur_kernel": 3,
        **warp(facts.warp),
    }
    weak = {"recipe": "crop_flip", "shift": max(1, side // 14), "flip": flip}
    return {
        "contrast": contrast,
        "label": {**weak, **warp(facts.warp / 2)},
        "weak": weak,
        "strong": {
            **contrast,
            "crop_scale": [0.5, 1.0],
            "cutout": side // 3,
            **warp(5 / 3 * facts.warp),
        },
        "student": {**weak, **warp(facts.warp)},
    }


def widths(facts: Facts, *, first: int) -> list[int]:
    """Channels of a plain network: with each halving twice as many, eight times at most."""
    halvings = max(3, (facts.side // 4).bit_length() - 1)
    return [first * 2 ** min(i, 3) for i in range(halvings + 1)]


def _training(steps: int, *, batch: int, rate: float, effort: float) -> dict[str, Any]:
    """How every stage of the line is trained: AdamW, a short warmup and a cosine."""
    steps = max(1, round(effort * steps))
    return training(steps, batch=batch, rate=rate, warmup=min(20, steps // 2), log_every=10)


def training(steps: int, *, batch: int, rate: float, warmup: int, log_every: int) -> dict[str, Any]:
    """Fields of a stage that is trained by AdamW: a warmup of so many steps, then a cosine."""
    return {
        "steps": steps,
        "batch": batch,
        "optimizer": {
            "name": "adamw",
            "learning_rate": rate,
            "weight_decay": 1e-2,
            "clip_norm": 5.0,
            "schedule": {"name": "cosine", "warmup_steps": warmup},
        },
        "checkpoint_every_steps": 200,
        "log_every_steps": log_every,
    }


INGREDIENTS = ("warp", "pretraining", "probe", "self_training")
"""What the line can do without, to see what it buys: see `stages`."""


def stages(
    facts: Facts, *, labels: int = 10, effort: float = 1.0, without: str = ""
) -> dict[str, Any]:
    """The stages of the line, by name, for a config.

    Args:
      facts: of the images.
      labels: of a class. A single one leaves none to choose a classifier's strength by.
      effort: all steps are multiplied by it.
      without: one of `INGREDIENTS` to leave out, none by default. Without `warp` no view is warped;
        without `pretraining` the teacher begins at random, without `probe` its linear layer alone does;
        without `self_training` it learns the labelled images alone, in a quarter of the steps.

    Raises:
      BadInput: `without` is none of them.
    """
    if without and without not in INGREDIENTS:
        raise BadInput(
            "without", f"there is no {without!r}", spelling.suggestion(without, INGREDIENTS)
        )
    if without == "warp":
        facts = dataclasses.replace(facts, warp=0.0)
    seen = views(facts)
    trained = functools.partial(_training, effort=effort)
    large = {"name": "cnn", "widths": widths(facts, first=32)}
    student = {"name": "cnn", "widths": widths(facts, first=16)}
    begins: dict[str, Any] = {"start_from": "pretrain", "head": "probe"}
    own: dict[str, Any] | None = {"weak": seen["weak"], "strong": seen["strong"]}
    steps_of_teacher = 1600
    match without:
        case "pretraining":
            begins = {"encoder": large}
        case "probe":
            begins["head"] = "random"
        case "self_training":
            own, steps_of_teacher = None, 400
    linear = {"strengths": [0.1]} if labels == 1 else {}
    line = {
        "pixels": {"kind": "evaluate", "knn": None, "linear": linear},
        "pretrain": dict(
            kind="pretrain",
            encoder=large,
            projector=[256, 64],
            method={"name": "simclr", "temperature": 0.2},
            views=seen["contrast"],
            **trained(1000, batch=128, rate=3e-3),
        ),
        "probe": {"kind": "evaluate", "model": "pretrain", "knn": None, "linear": linear},
        "teacher": dict(
            kind="finetune",
            views=seen["label"],
            self_training=own,
            **begins,
            **trained(steps_of_teacher, batch=128, rate=1e-3),
        ),
        "cache": {"kind": "cache", "teacher": "teacher", "recipe": seen["student"], "views": 4},
        "student": dict(
            kind="distill",
            cache="cache",
            encoder=student,
            temperature=2.0,
            **trained(1200, batch=256, rate=4e-3),
        ),
        "scratch": dict(
            kind="finetune",
            encoder=student,
            views=seen["label"],
            **trained(400, batch=128, rate=4e-3),
        ),
    }
    unread = ("pretrain", "probe") if without == "pretraining" else ()
    return {name: stage for name, stage in line.items() if name not in unread}
