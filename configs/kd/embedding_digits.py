"""Label-free distillation on the embedded handwritten digits, with the cosine to the teacher's row.

SimCLR on all 1,437 training images; a small encoder learns the cached embedding of the large one without
a label; its frozen features are judged with five labels a class, and it is fine-tuned on them, as the
large one is. The files beside this one have other methods in the same line.

  kdjax --config=configs/kd/embedding_digits.py:seeds=1 --workdir=DIR
  kdjax --config=configs/kd/embedding_digits.py:tune --workdir=DIR  (tested on a fifth of train)
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from kdjax.parse import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    return line(arg, name="embedding_digits", method=dict(name="cosine"))


def line(arg: str | None, *, name: str, method: Mapping[str, Any]) -> ConfigDict:
    """The line with `method`, see `kdjax.config.EmbeddingMethod`."""
    args = parse_arg(arg, labels=5, seeds=5, tune=False, runlocal=False)
    steps = dict(pretrain=350, student=400, tuned=150)
    if args["runlocal"]:
        steps = dict.fromkeys(steps, 2)
        args["seeds"] = 1
    warmup = 0 if args["runlocal"] else 20

    c = ConfigDict()
    c.name = name
    c.seeds = list(range(args["seeds"]))
    train, test = ("train[:80%]", "train[80%:]") if args["tune"] else ("train", "test")
    c.data = dict(
        name="digits",
        train_split=train,
        test_split=test,
        labels_per_class=args["labels"],
        mean=[0.3],
        std=[0.37],
    )
    # A digit is no longer itself when it is mirrored or coloured: shapes and strokes vary instead.
    contrast_views = dict(
        recipe="simclr",
        crop_scale=[0.4, 1.0],
        crop_ratio=[0.7, 1.43],
        flip=0.0,
        shift=1,
        brightness=0.4,
        contrast=0.4,
        saturation=0.0,
        hue=0.0,
        grayscale=0.0,
        blur=0.3,
        blur_kernel=3,
        cutout=3,
    )
    train_views = dict(recipe="crop_flip", crop_scale=[0.6, 1.0], shift=1, flip=0.0, cutout=2)
    tune_views = dict(recipe="crop_flip", crop_scale=[0.8, 1.0], flip=0.0)
    adamw = dict(name="adamw", weight_decay=1e-2, schedule=dict(name="cosine", warmup_steps=warmup))
    training = dict(checkpoint_every_steps=100, log_every_steps=10)
    tuned = dict(
        kind="finetune",
        views=tune_views,
        steps=steps["tuned"],
        batch=64,
        optimizer=dict(adamw, learning_rate=1e-3),
        **training,
    )
    judged = dict(kind="evaluate", knn=dict(k=min(10, 10 * args["labels"])))
    stages = dict(
        pretrain=dict(
            kind="pretrain",
            encoder=dict(name="cnn", widths=[32, 64, 128, 256]),
            projector=[256, 64],
            temperature=0.2,
            views=contrast_views,
            steps=steps["pretrain"],
            batch=128,
            optimizer=dict(adamw, learning_rate=3e-3),
            **training,
        ),
        frozen_teacher=dict(judged, model="pretrain"),
        teacher=dict(tuned, start_from="pretrain"),
        cache=dict(
            kind="cache",
            teacher="pretrain",
            recipe=train_views,
            views=16,
            signal=dict(name="embedding"),
        ),
        student_encoder=dict(
            kind="distill_encoder",
            cache="cache",
            encoder=dict(name="cnn", widths=[16, 32, 64, 96]),
            method=dict(method),
            steps=steps["student"],
            batch=256,
            optimizer=dict(adamw, learning_rate=4e-3),
            **training,
        ),
        frozen_student=dict(judged, model="student_encoder"),
        student=dict(tuned, start_from="student_encoder"),
    )
    c.stages = ConfigDict(stages, sort_keys=False)  # the report's rows stand in this order
    return c
