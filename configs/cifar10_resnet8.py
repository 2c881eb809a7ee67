"""CIFAR-10 on a microcontroller's network: ResNet-8 of MLPerf Tiny, whose gate is 85 % in int8.

Banbury et al. 2021, https://arxiv.org/abs/2106.07597. A ResNet-20 learns all labels and says what it
sees on `views` views of each image; three ResNet-8 (78 thousand parameters) learn from that, and three
from the labels alone, in as many steps and with the same optimizer. The teacher and its cache are of
seed 0, whichever seed the student is of.

  kdjax --config=configs/cifar10_resnet8.py --workdir=DIR --config.data.data_dir=TFDS
"""

from ml_collections import ConfigDict

from kdjax.parse import parse_arg

_EXAMPLES = 50_000


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, teacher_epochs=30, epochs=40, views=20, seeds=3, runlocal=False)
    train, test, examples, batch = "train", "test", _EXAMPLES, 64
    if args["runlocal"]:
        train, test, examples, batch = "train[:128]", "test[:128]", 128, 64
        args.update(teacher_epochs=1, epochs=1, views=1, seeds=1)
    views = dict(recipe="crop_flip", shift=4, flip=0.5)

    def training(epochs: float, learning_rate: float, weight_decay: float) -> dict:
        steps = round(epochs * examples / batch)
        return dict(
            steps=steps,
            batch=batch,
            optimizer=dict(
                name="sgd",
                learning_rate=learning_rate,
                momentum=0.9,
                nesterov=True,
                weight_decay=weight_decay,
                schedule=dict(name="cosine", warmup_steps=min(400, steps // 2)),
            ),
            checkpoint_every_steps=1_000,
            log_every_steps=max(1, round(examples / batch / 4)),
        )

    small = dict(name="cifar_resnet", depth=8)
    at_length = training(args["epochs"], 0.1, 1e-4)
    c = ConfigDict()
    c.name = "cifar10_resnet8"
    c.seeds = list(range(args["seeds"]))
    c.data = dict(
        name="cifar10",
        train_split=train,
        test_split=test,
        mean=[0.4914, 0.4822, 0.4465],
        std=[0.2470, 0.2435, 0.2616],
    )
    stages = dict(
        teacher=dict(
            kind="finetune",
            encoder=dict(name="cifar_resnet", depth=20),
            views=views,
            **training(args["teacher_epochs"], 0.1, 5e-4),
        ),
        cache=dict(kind="cache", teacher="teacher", recipe=views, views=args["views"]),
        student=dict(kind="distill", cache="cache", encoder=small, temperature=4.0, **at_length),
        scratch=dict(kind="finetune", encoder=small, views=views, **at_length),
    )
    c.stages = ConfigDict(stages, sort_keys=False)
    return c
