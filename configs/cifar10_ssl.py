"""CIFAR-10 with 1 % and 10 % of its labels: SimCLR, BYOL, DINO and MoCo v2 on two CPU cores.

One network, one recipe of views and one number of steps for all four, on all 50,000 images without
labels; then, with 500 and with 5,000 labels, a linear classifier on the frozen features, the whole
network fine-tuned, and the same network on the labels alone, with three times the steps. `untrained` is
the network before training, except for BatchNorm's statistics.

  kdjax --config=configs/cifar10_ssl.py --workdir=DIR --config.data.data_dir=TFDS
"""

import cifar
from ml_collections import ConfigDict

from kdjax.parse import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, steps=4_000, seeds=3, runlocal=False)
    train, test, widths, batch = "train", "test", [32, 64, 128, 256], 128
    tuning = {1: 400, 10: 1_200}
    if args["runlocal"]:
        train, test, widths, batch = "train[:256]", "test[:128]", [4, 8], 32
        args |= dict(steps=2, seeds=1)
        tuning = dict.fromkeys(tuning, 2)
    steps = args["steps"]
    encoder = dict(name="cnn", widths=widths)

    def training(steps: int, learning_rate: float) -> dict:
        return dict(
            steps=steps,
            batch=batch,
            optimizer=dict(
                name="adamw",
                learning_rate=learning_rate,
                weight_decay=1e-2,
                schedule=dict(name="cosine", warmup_steps=min(100, steps // 2)),
            ),
            log_every_steps=max(1, steps // 100),
        )

    ramp = dict(begin=0.99, end=1.0, shape="cosine")
    methods: dict[str, tuple[dict, float]] = dict(
        simclr=(dict(name="simclr", temperature=0.2), 2e-3),
        byol=(dict(name="byol", predictor=[256], momentum=ramp), 2e-3),
        dino=(
            dict(
                name="dino",
                prototypes=1_024,
                momentum=ramp,
                freeze_steps=min(390, steps - 1),
            ),
            1e-3,
        ),
        moco_v2=(
            dict(
                name="moco_v2", queue=4_096 if batch == 128 else 64, temperature=0.2, momentum=0.99
            ),
            2e-3,
        ),
    )
    pretrain = dict(kind="pretrain", encoder=encoder, projector=[256, 128], views=cifar.CONTRAST)
    stages: dict[str, dict] = dict(
        untrained=dict(
            pretrain,
            method=methods["simclr"][0],
            **(training(min(30, steps), 1e-3) | dict(optimizer=dict(name="frozen"))),
        )
    )
    for name, (method, rate) in methods.items():
        stages[name] = dict(pretrain, method=method, **training(steps, rate))
    for percent, of_tuning in tuning.items():
        labels = dict(labels_share=percent / 100)
        for name in ("untrained", *methods):
            stages[f"{name}_probe_{percent}"] = dict(
                kind="evaluate", model=name, knn=None, **labels
            )
            if name in methods:
                stages[f"{name}_tuned_{percent}"] = dict(
                    kind="finetune",
                    start_from=name,
                    views=cifar.VIEWS,
                    **labels,
                    **training(of_tuning, 5e-4),
                )
        stages[f"scratch_{percent}"] = dict(
            kind="finetune",
            encoder=encoder,
            views=cifar.VIEWS,
            **labels,
            **training(3 * of_tuning, 2e-3),
        )
    c = ConfigDict()
    c.name = "cifar10_ssl"
    c.seeds = list(range(args["seeds"]))
    c.data = dict(cifar.CIFAR10, train_split=train, test_split=test)
    c.stages = ConfigDict(stages, sort_keys=False)
    return c
