"""ResNet-18 on CIFAR-10: self-supervision, half of the weights pruned at random, dynamic int8.

Three claims are often made in round numbers: self-supervision gives ten points, pruning halves the
parameters, int8 makes a network twice as fast. Here each is measured by itself, beside the alternatives.
It is a REDUCED form, for two CPU cores: `width` 16 instead of 64 (a sixteenth of the parameters), minutes
of pretraining instead of days, 10 % of the labels.

  kdjax --config=configs/cifar10_resnet18.py --workdir=DIR --config.data.data_dir=TFDS

* `scratch`, `tuned`: on the labels alone, and from the encoder that SimCLR has trained on all images.
* `random`, `smallest`: half of the weights of `tuned`, drawn at random or the smallest, are zero, and it
  trains on, from the answers of `tuned` about all images; `dense` does so without pruning. A zero is
  still stored and multiplied.
* `half`: about half of the parameters are gone, 30 % of all channels, and it trains on for as long.
* `dynamic`: `random` in int8 with ranges found in each call; `int8`: `half` with calibrated ranges.

Where to find the three claims in the report: the points are `tuned` over `scratch`, with an interval over
the seeds; the parameters are those of `random` (as many as before, half of them zero) and of `half`, with
the bytes of their files; the speed is the latency of the files of `dynamic` and `int8` relative to those
of `random` and `half`, with the same runtime, threads and batch.
"""

import cifar
from ml_collections import ConfigDict

from kdjax.parse import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(
        arg,
        width=16,
        pretrain_steps=2_000,
        steps=1_500,
        more=800,
        labels=0.1,
        seeds=3,
        runlocal=False,
    )
    train, test, batch = "train", "test", 64
    if args["runlocal"]:
        train, test, batch = "train[:256]", "test[:128]", 32
        args |= dict(width=8, pretrain_steps=2, steps=2, more=2, seeds=1)
    labels = dict(labels_share=args["labels"])
    encoder = dict(name="resnet18", width=args["width"])

    def training(steps: int, learning_rate: float, batch: int = batch) -> dict:
        own = cifar.sgd(
            steps, learning_rate, 5e-4, examples=batch, batch=batch, warmup=max(1, steps // 10)
        )
        return own | dict(log_every_steps=max(1, steps // 40))

    on = dict(
        kind="distill",
        cache="cache",
        start_from="tuned",
        temperature=4.0,
        kd_weight=1.0,
        ce_weight=0.0,
        **training(args["more"], 0.02),
    )
    zeros = dict(name="gradual", schedule="one_shot", sparsity=0.5, begin_step=0)
    zeros |= dict(end_step=1, every_steps=1)
    bits = dict(kind="quantize", calibration_examples=256, agreement=0.0)
    stages: dict[str, dict] = dict(
        pretrain=dict(
            kind="pretrain",
            encoder=encoder,
            projector=[128, 128],
            method=dict(name="simclr", temperature=0.2),
            views=cifar.CONTRAST,
            **training(args["pretrain_steps"], 0.1, 2 * batch),
        ),
        tuned=dict(
            kind="finetune",
            start_from="pretrain",
            views=cifar.VIEWS,
            **labels,
            **training(args["steps"], 0.05),
        ),
        scratch=dict(
            kind="finetune",
            encoder=encoder,
            views=cifar.VIEWS,
            **labels,
            **training(args["steps"], 0.1),
        ),
        cache=dict(kind="cache", teacher="tuned", recipe=cifar.VIEWS, views=1),
        dense=on,
        random=dict(on, prune=dict(zeros, score="random")),
        smallest=dict(on, prune=zeros),
        cut=dict(kind="shrink", model="tuned", examples=256, sparsity=0.3, multiple=8),
        half=dict(on, start_from="cut"),
        dynamic=dict(bits, model="random", rules=[dict(activations="dynamic")]),
        int8=dict(bits, model="half"),
    )
    for name in ("tuned", "random", "half", "dynamic", "int8"):
        formats = ["litert"] if name == "dynamic" else ["onnx", "litert"]
        stages[f"export_{name}"] = dict(kind="export", model=name, formats=formats)
    c = ConfigDict()
    c.name = "cifar10_resnet18"
    c.seeds = list(range(args["seeds"]))
    c.data = dict(cifar.CIFAR10, train_split=train, test_split=test)
    c.stages = ConfigDict(stages, sort_keys=False)
    return c
