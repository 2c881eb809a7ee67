"""Which ways to distil can be told apart on CIFAR-100, with a budget of two CPU cores and six hours.

ResNet-20 teaches ResNet-8. One teacher; all students have the same steps, batches, optimizer and number
of seeds, and the views of one cache. Weights and temperatures are those of the authors' code for
CIFAR-100 (see `kdjax.config`); nothing was tuned here. Students that learn features ask the teacher in
the step.

  kdjax --config=configs/cifar100_budget.py --workdir=DIR --config.data.data_dir=TFDS

CRD draws 1,024 negatives and not 16,384, which would take most of a step on a CPU. The published
protocol, with 240 epochs and larger networks, is in `configs/cifar100_kd.py`.
"""

import cifar
from ml_collections import ConfigDict

from kdjax.parse import parse_arg

_STAGES = [f"encoder/stage{i}" for i in range(3)]


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, teacher_epochs=20, epochs=5, seeds=4, runlocal=False)
    train, test, examples, batch, negatives = "train", "test", cifar.EXAMPLES, 64, 1024
    if args["runlocal"]:
        train, test, examples, negatives = "train[:128]", "test[:128]", 128, 16
        args |= dict(teacher_epochs=1, epochs=1, seeds=1)
    teacher, small = dict(name="cifar_resnet", depth=20), dict(name="cifar_resnet", depth=8)
    views = cifar.VIEWS

    def training(epochs: float) -> dict:
        return cifar.sgd(epochs, 0.1, 5e-4, examples=examples, batch=batch, warmup=200)

    at_length = training(args["epochs"])

    def distilled(**own) -> dict:
        shared = dict(kind="distill", cache="cache", encoder=small, temperature=4.0)
        return {**shared, **at_length, **own}

    def features(**terms) -> dict:
        return distilled(live=True, features=terms, kd_weight=0.0, ce_weight=1.0)

    c = ConfigDict()
    c.name = "cifar100_budget"
    c.seeds = list(range(args["seeds"]))
    c.data = dict(cifar.CIFAR100, train_split=train, test_split=test)
    stages = dict(
        teacher=dict(
            kind="finetune",
            seed=0,
            encoder=teacher,
            views=views,
            **training(args["teacher_epochs"]),
        ),
        cache=dict(kind="cache", seed=0, teacher="teacher", recipe=views, views=args["epochs"]),
        scratch=dict(kind="finetune", encoder=small, views=views, **at_length),
        kd=distilled(kd_weight=0.9, ce_weight=0.1),
        dkd=distilled(logits=dict(name="dkd", alpha=1.0, beta=2.0), kd_weight=1.0, ce_weight=1.0),
        dist=distilled(logits=dict(name="dist"), kd_weight=2.0, ce_weight=1.0, temperature=1.0),
        standardized=distilled(standardize=True, temperature=2.0, kd_weight=9.0, ce_weight=0.1),
        multi_level=distilled(logits=dict(name="multi_level"), kd_weight=9.0, ce_weight=0.1),
        crd=features(crd=dict(name="crd", negatives=negatives)),
        review=features(
            review=dict(
                name="review",
                student=[*(f"{stage}_block0" for stage in _STAGES), "encoder"],
                teacher=[*(f"{stage}_block2" for stage in _STAGES), "encoder"],
            )
        ),
        rkd=features(rkd=dict(name="rkd")),
    )
    c.stages = ConfigDict(stages, sort_keys=False)
    return c
