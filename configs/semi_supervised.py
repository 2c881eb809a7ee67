"""What few labels are enough for, on the embedded handwritten digits: SimCLR, then 1 %, 10 %, all.

One encoder is pretrained on all 1,437 training images without a label. Its frozen features are judged
by the nearest labelled examples and by a linear classifier, and it is fine-tuned, with the labels of
1 %, 10 % and all of each class (10, 143 and 1,437; one of a class at least). The same network from
scratch beside it.

  kdjax --config=configs/semi_supervised.py --workdir=DIR
  kdjax --config=configs/semi_supervised.py:seeds=1 --workdir=DIR
"""

from ml_collections import ConfigDict

from kdjax.parse import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, seeds=5, runlocal=False)
    steps = dict(pretrain=350, tuned_1=60, tuned_10=150, tuned_100=300)
    if args["runlocal"]:
        steps = dict.fromkeys(steps, 2)
        args["seeds"] = 1
    warmup = 0 if args["runlocal"] else 20

    c = ConfigDict()
    c.name = "semi_supervised"
    c.seeds = list(range(args["seeds"]))
    c.data = dict(name="digits", mean=[0.3], std=[0.37])

    # As in digits.py: a digit is no longer itself when it is mirrored.
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
    tune_views = dict(recipe="crop_flip", crop_scale=[0.8, 1.0], flip=0.0)
    encoder = dict(name="cnn", widths=[32, 64, 128, 256])
    adamw = dict(name="adamw", weight_decay=1e-2, schedule=dict(name="cosine", warmup_steps=warmup))
    training = dict(checkpoint_every_steps=100, log_every_steps=10)

    stages: dict[str, dict] = dict(
        pretrain=dict(
            kind="pretrain",
            encoder=encoder,
            projector=[256, 64],
            temperature=0.2,
            views=contrast_views,
            steps=steps["pretrain"],
            batch=128,
            optimizer=dict(adamw, learning_rate=3e-3),
            **training,
        )
    )
    # (percent, neighbours, strengths): one example of a class leaves none to choose a strength by.
    for percent, k, strengths in ((1, 1, [0.1]), (10, 10, None), (100, 200, None)):
        labels = dict(labels_share=percent / 100)
        linear = {} if strengths is None else dict(strengths=strengths)
        stages[f"frozen_{percent}"] = dict(
            kind="evaluate", model="pretrain", knn=dict(k=k), linear=linear, **labels
        )
        tuned = dict(
            kind="finetune",
            views=tune_views,
            steps=steps[f"tuned_{percent}"],
            batch=64,
            optimizer=dict(adamw, learning_rate=1e-3),
            **labels,
            **training,
        )
        stages[f"tuned_{percent}"] = dict(tuned, start_from="pretrain")
        stages[f"scratch_{percent}"] = dict(tuned, encoder=encoder)
    stages["frozen_100"]["pairs"] = dict(views=contrast_views, examples=360)
    c.stages = ConfigDict(stages, sort_keys=False)  # the report's rows stand in this order
    return c
