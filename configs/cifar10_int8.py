"""How well int8 agrees with float on photographs: a residual network on CIFAR-10, and its files.

A ResNet of `depth` is trained for a few epochs, quantized with each method of calibration on 512 training
images, trained further in int8 from its own cached logits, and exported. On 10,000 test images, the
report compares each file with its model, and each quantized model with the float one.

  kdjax --config=configs/cifar10_int8.py --workdir=DIR --config.data.data_dir=TFDS
  kdjax --config=configs/cifar10_int8.py:depth=20,epochs=20 --workdir=DIR ...

Half an hour on two CPU cores beside other work. Seed 0: float 75.46 % right; int8 gives the same label
for 99.03 % (percentile 99.03, least squared error 99.10, with the edges 99.00), right for 75.41 %.
"""

import cifar
from ml_collections import ConfigDict

from kdjax.parse import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, depth=8, epochs=8, seeds=1, runlocal=False)
    encoder = dict(name="cifar_resnet", depth=args["depth"])
    train, test, examples, batch = "train", "test", cifar.EXAMPLES, 128
    if args["runlocal"]:
        train, test, examples, batch, args["epochs"] = "train[:512]", "test[:128]", 512, 64, 1
    views = cifar.VIEWS

    def training(epochs: float, learning_rate: float) -> dict:
        return dict(
            steps=round(epochs * examples / batch),
            batch=batch,
            optimizer=dict(
                name="sgd",
                learning_rate=learning_rate,
                momentum=0.9,
                weight_decay=5e-4,
                schedule=dict(name="cosine", warmup_steps=round(0.5 * examples / batch)),
            ),
            log_every_steps=round(examples / batch / 4),
        )

    def int8(**changes) -> dict:
        return dict(
            kind="quantize", model="student", calibration_examples=512, agreement=0.9, **changes
        )

    c = ConfigDict()
    c.name = "cifar10_int8"
    c.seeds = list(range(args["seeds"]))
    c.data = dict(cifar.CIFAR10, train_split=train, test_split=test)
    stages = dict(
        student=dict(
            kind="finetune", encoder=encoder, views=views, **training(args["epochs"], 0.1)
        ),
        cache=dict(kind="cache", teacher="student", recipe=views, views=1),
        int8=int8(),
        int8_percentile=int8(calibration="percentile"),
        int8_mse=int8(calibration="mse"),
        int8_edges=int8(float_edges=False),
        aware=dict(
            kind="distill",
            cache="cache",
            start_from="int8",
            temperature=1.0,
            kd_weight=1.0,
            ce_weight=0.0,
            **training(1, 0.002),
        ),
        **{
            f"export_{model}": dict(kind="export", model=model, formats=["onnx"])
            for model in ("student", "int8", "int8_percentile", "int8_mse", "int8_edges", "aware")
        },
    )
    c.stages = ConfigDict(stages, sort_keys=False)
    return c
