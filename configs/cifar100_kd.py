"""Knowledge distillation on CIFAR-100 by the protocol of the published tables.

Teacher ResNet32x4, student ResNet8x4, both 240 epochs, batch 64, SGD 0.05 with momentum 0.9 and decay
5e-4, a tenth of the rate at epochs 150, 180 and 210; 0.1 x cross-entropy + 0.9 x KD at temperature 4.
Published for this pair: teacher 79.42, student alone 72.50, KD 73.33 (top-1 in percent, last epoch;
Tian et al. 2019, https://arxiv.org/abs/1910.10699, table 1). Not run here.

  kdjax --config=configs/cifar100_kd.py --workdir=DIR --config.data.data_dir=TFDS
  kdjax --config=configs/cifar100_kd.py:live --workdir=DIR ...        the teacher in the step, no cache
  kdjax --config=configs/cifar100_kd.py:table --workdir=DIR ...       and other ways to compare logits
  kdjax --config=configs/cifar100_kd.py:short --workdir=DIR ...       minutes on two CPU cores

`table` has more students of the same teacher, with the weights that their authors give this pair.
Published: DKD 76.32 (Zhao et al. 2022, https://arxiv.org/abs/2203.08679), DIST 76.31 (Huang et al. 2022,
https://arxiv.org/abs/2205.10536), KD of standardized logits 76.62 (Sun et al. 2024,
https://arxiv.org/abs/2403.01427). The code of the first and the last keeps the epoch that is best on the
test set; here it is always the last epoch. The weight of DKD grows over twenty epochs: here at every
step, in its authors' code once an epoch.

The cache holds one view an epoch (float16: 10 MB an epoch), so that the cached and the live student
see the same images. After an interruption, the same command continues from the last checkpoint.
`short` is a tenth of the data, ResNet20 to ResNet8, a few epochs: it shows that everything learns, and
its numbers belong in no table (seed 0: teacher 9.2, student alone 9.0, KD 7.8, chance 1; nine minutes
on two CPU cores beside other work).
"""

import cifar
from ml_collections import ConfigDict

from kdjax.parse import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(
        arg, epochs=240, seeds=1, k=0, live=False, table=False, short=False, runlocal=False
    )
    teacher = dict(name="cifar_resnet", depth=32, multiplier=4)
    student = dict(name="cifar_resnet", depth=8, multiplier=4)
    train, test, examples, batch = "train", "test", cifar.EXAMPLES, 64
    if args["short"]:
        teacher = dict(name="cifar_resnet", depth=20)
        student = dict(name="cifar_resnet", depth=8)
        train, test, examples, args["epochs"] = "train[:10%]", "test[:20%]", cifar.EXAMPLES // 10, 4
    if args["runlocal"]:
        teacher = student = dict(name="cnn", widths=[8, 8])
        train, test, examples, batch, args["epochs"] = "train[:128]", "test[:128]", 128, 64, 1

    def at(epoch: float) -> int:
        return round(epoch * examples / batch)

    # Each once: a run of a few steps has fewer stairs.
    stairs = sorted({at(args["epochs"] * part) for part in (150 / 240, 180 / 240, 210 / 240)})
    training = dict(
        steps=at(args["epochs"]),
        batch=batch,
        optimizer=dict(
            name="sgd",
            learning_rate=0.05,
            momentum=0.9,
            weight_decay=5e-4,
            schedule=dict(name="stairs", at_steps=stairs, factor=0.1),
        ),
        checkpoint_every_steps=2_000,
        log_every_steps=at(1) if examples == cifar.EXAMPLES else 10,
    )
    views = cifar.VIEWS
    signal = dict(name="logits")
    if args["k"]:
        signal = dict(name="top_k", k=args["k"], temperatures=[4.0])

    c = ConfigDict()
    c.name = "cifar100_kd"
    c.seeds = list(range(args["seeds"]))
    c.data = dict(cifar.CIFAR100, train_split=train, test_split=test)

    def distilled(**own) -> dict:
        defaults = dict(
            kind="distill", cache="cache", live=args["live"], encoder=student, temperature=4.0
        )
        return {**defaults, **training, **own}

    plain = dict(kd_weight=0.9, ce_weight=0.1)
    others = dict(
        student_live=distilled(**plain, live=True),
        dkd=distilled(
            logits=dict(name="dkd", alpha=1.0, beta=8.0),
            kd_weight=dict(begin=0.0, end=1.0, end_step=max(1, at(args["epochs"] * 20 / 240))),
            ce_weight=1.0,
        ),
        dist=distilled(logits=dict(name="dist"), kd_weight=2.0, ce_weight=1.0),
        standardized=distilled(standardize=True, temperature=2.0, kd_weight=9.0, ce_weight=0.1),
    )
    stages = dict(
        teacher=dict(kind="finetune", encoder=teacher, views=views, **training),
        cache=dict(
            kind="cache", teacher="teacher", recipe=views, views=args["epochs"], signal=signal
        ),
        scratch=dict(kind="finetune", encoder=student, views=views, **training),
        student=distilled(**plain),
        **(others if args["table"] else {}),
        export_student=dict(kind="export", model="student"),
    )
    c.stages = ConfigDict(stages, sort_keys=False)
    return c
