"""What the self-supervised methods on the digits share, so that the method is all that differs.

All 1,437 training images without labels, the same views, encoder and number of steps; then k-NN and a
linear classifier on the frozen features. `table.py` has all methods in one run.
"""

from typing import Any

from ml_collections import ConfigDict

from kdjax import config
from kdjax.parse import parse_arg

# A digit is no longer itself when it is mirrored or coloured: shapes and strokes vary instead.
VIEWS = dict(
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


def ramp(begin: float, end: float = 1.0, **more) -> dict:
    """A number that changes while a stage trains."""
    return dict(begin=begin, end=end, **more)


def run(arg: str | None, **methods: dict) -> ConfigDict:
    """A run of these methods; of each the fields of its stage that are its own.

    The argument of the config may have `seeds=N`, `tune` (tested on a fifth of train, never on test)
    and `runlocal` (two steps, a tiny encoder).
    """
    args = parse_arg(arg, seeds=5, tune=False, runlocal=False)
    c = ConfigDict()
    c.name = "ssl_digits" if len(methods) > 1 else f"{next(iter(methods))}_digits"
    c.seeds = list(range(1 if args["runlocal"] else args["seeds"]))
    train, test = ("train[:80%]", "train[80%:]") if args["tune"] else ("train", "test")
    c.data = dict(name="digits", train_split=train, test_split=test, mean=[0.3], std=[0.37])
    stages: dict[str, dict] = {}
    for name, own in methods.items():
        stages |= {name: pretrained(own, runlocal=args["runlocal"]), **evaluated(name)}
    c.stages = ConfigDict(stages, sort_keys=False)
    return c


def pretrained(own: dict, *, runlocal: bool) -> dict:
    """The stage of a method."""
    stage: dict[str, Any] = dict(
        kind="pretrain",
        encoder=dict(name="cnn", widths=[32, 64, 128, 256]),
        projector=[256, 64],
        views=VIEWS,
        steps=350,
        batch=128,
        optimizer=dict(
            name="adamw",
            learning_rate=3e-3,
            weight_decay=1e-2,
            schedule=dict(name="cosine", warmup_steps=20),
        ),
        checkpoint_every_steps=100,
        log_every_steps=10,
    )
    stage |= own
    if runlocal:
        stage |= dict(steps=2, optimizer=dict(stage["optimizer"], schedule=dict(name="cosine")))
        stage["method"] = {k: v for k, v in stage["method"].items() if k != "freeze_steps"}
        if stage["encoder"]["name"] == "cnn":
            stage |= dict(encoder=dict(name="cnn", widths=[4, 8]), projector=[8, 8])
        else:
            stage["encoder"] = dict(stage["encoder"], width=8, depth=1, heads=2, mlp=8)
    return stage


def evaluated(name: str) -> dict:
    """The stage that measures what the stage `name` left."""
    if not hasattr(config, "Evaluate"):
        return {}
    return {f"{name}_eval": dict(kind="evaluate", model=name, knn=dict(k=20), linear=dict())}
