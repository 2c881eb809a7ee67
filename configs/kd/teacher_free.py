"""Teacher-free distillation on the embedded handwritten digits: a virtual teacher made of the label.

Yuan et al. 2020, https://arxiv.org/abs/1909.11723 (Tf-KD_reg). A small network on all 1,437 training
images with the cross-entropy alone, with smoothed labels, and with the virtual teacher.

  kdjax --config=configs/kd/teacher_free.py:seeds=1 --workdir=DIR
"""

from ml_collections import ConfigDict

from kdjax.parse import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, seeds=5, labels=0, runlocal=False)
    steps, warmup = 400, 20
    if args["runlocal"]:
        steps, warmup, args["seeds"] = 2, 0, 1

    c = ConfigDict()
    c.name = "teacher_free"
    c.seeds = list(range(args["seeds"]))
    c.data = dict(name="digits", labels_per_class=args["labels"] or None, mean=[0.3], std=[0.37])
    scratch = dict(
        kind="finetune",
        encoder=dict(name="cnn", widths=[16, 32, 64, 96]),
        views=dict(recipe="crop_flip", crop_scale=[0.6, 1.0], shift=1, flip=0.0, cutout=2),
        steps=steps,
        batch=256,
        optimizer=dict(
            name="adamw",
            learning_rate=4e-3,
            weight_decay=1e-2,
            schedule=dict(name="cosine", warmup_steps=warmup),
        ),
        checkpoint_every_steps=100,
        log_every_steps=10,
    )
    stages = dict(
        scratch=scratch,
        smoothed=dict(scratch, label_smoothing=0.1),
        teacher_free=dict(scratch, teacher_free=dict(correct_probability=0.99, temperature=20.0)),
    )
    c.stages = ConfigDict(stages, sort_keys=False)
    return c
