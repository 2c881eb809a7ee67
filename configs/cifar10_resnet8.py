"""CIFAR-10 on a microcontroller's network: ResNet-8 of MLPerf Tiny, which requires 85 % in int8.

Banbury et al. 2021, https://arxiv.org/abs/2106.07597. A ResNet-20 learns all labels and is asked about
`views` views of each image; three ResNet-8 (78 thousand parameters) learn from its answers, and three
from the labels alone, in as many steps and with the same optimizer. Each student is quantized to int8, as
it is and with further training, and once more with half of its parameters gone. The teacher and its cache
have seed 0, for the students of all seeds.

  kdjax --config=configs/cifar10_resnet8.py --workdir=DIR --config.data.data_dir=TFDS
  kdjax --config=configs/cifar10_resnet8.py:hurt --workdir=DIR --config.data.data_dir=TFDS

`hurt` takes the same students further, to where methods of pruning and numbers of few bits differ: 80, 90
and 95 % of the weights pruned in six ways, and int8, int4 and ternary weights, as they are and with
further training. In the same DIR it begins with the students that are there.
"""

import cifar
from ml_collections import ConfigDict

from kdjax.parse import parse_arg

_PARAMS = 78_042
"""Of the student."""


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(
        arg, teacher_epochs=30, epochs=40, more=10, views=20, seeds=3, hurt=False, runlocal=False
    )
    train, test, examples, batch = "train", "test", cifar.EXAMPLES, 64
    if args["runlocal"]:
        train, test, examples, batch = "train[:128]", "test[:128]", 128, 32
        args |= dict(teacher_epochs=1, epochs=1, more=1, views=1, seeds=1)
    views = cifar.VIEWS

    def training(epochs: float, learning_rate: float, weight_decay: float) -> dict:
        shared = dict(examples=examples, batch=batch, warmup=400)
        own = cifar.sgd(epochs, learning_rate, weight_decay, **shared)
        return dict(own, checkpoint_every_steps=1_000)

    small = dict(name="cifar_resnet", depth=8)
    cut = dict(kind="shrink", model="student", examples=min(1024, examples))
    bits = dict(kind="quantize", model="student", calibration_examples=min(512, examples))
    at_length = training(args["epochs"], 0.1, 1e-4)
    distilled = dict(kind="distill", cache="cache", temperature=4.0)
    on = {**distilled, **training(args["more"], 0.02, 1e-4)}
    c = ConfigDict()
    c.name = "cifar10_resnet8"
    c.seeds = list(range(args["seeds"]))
    c.data = dict(cifar.CIFAR10, train_split=train, test_split=test)
    stages = dict(
        teacher=dict(
            kind="finetune",
            seed=0,
            encoder=dict(name="cifar_resnet", depth=20),
            views=views,
            **training(args["teacher_epochs"], 0.1, 5e-4),
        ),
        cache=dict(kind="cache", seed=0, teacher="teacher", recipe=views, views=args["views"]),
        student={
            **distilled,
            **at_length,
            "encoder": small,
            "rewind_step": min(1_000, at_length["steps"] - 1),
        },
    )
    if args["hurt"]:
        stages |= _hurt(on, cut, bits, training(args["more"], 0.1, 1e-4)["optimizer"])
    else:
        aware = {**distilled, **training(2, 0.002, 1e-4)}
        stages |= dict(
            scratch=dict(kind="finetune", encoder=small, views=views, **at_length),
            int8=bits,
            aware=dict(aware, start_from="int8"),
            cut=dict(cut, budget=dict(params=_PARAMS // 2), multiple=8),
            half=dict(on, start_from="cut", **training(args["epochs"] / 2, 0.05, 1e-4)),
            half_int8=dict(bits, model="half"),
            half_aware=dict(aware, start_from="half_int8"),
            export_teacher=dict(kind="export", model="teacher", formats=["onnx"]),
            export_student=dict(kind="export", model="student", formats=["onnx"]),
            export_aware=dict(kind="export", model="aware", formats=["onnx"]),
            export_half_aware=dict(kind="export", model="half_aware", formats=["onnx"]),
        )
    c.stages = ConfigDict(stages, sort_keys=False)
    return c


def _hurt(on: dict, cut: dict, bits: dict, optimizer: dict) -> dict:
    """The student pruned and in few bits; all that trains does so for as long.

    * `dense`: trained on, with nothing pruned.
    * `one_shot`, `gradual`: the smallest weights, at once or by the cubic schedule; `random`: any.
    * `ticket`: the smallest, and what stays begins again as it was early on, with the first rate.
    * `rigl`: masks that move.
    * `channels`: real smaller shapes, with that share of the parameters gone.
    * `int8`, `int4`, `ternary`: weights, and activations in int8; `_aware`: trained on.
    """
    steps = on["steps"]
    every = max(1, steps // 100)
    stages: dict[str, dict] = dict(dense=dict(on, start_from="student"))
    for share in (80, 90, 95):
        sparsity = share / 100
        gradual = dict(
            name="gradual",
            sparsity=sparsity,
            begin_step=0,
            end_step=max(1, steps // 2),
            every_steps=every,
            allocation="erk",
        )
        once = dict(gradual, schedule="one_shot")
        ticket = dict(name="ticket", sparsity=sparsity, allocation="erk")
        moving = dict(
            name="sparse_training",
            sparsity=sparsity,
            end_step=max(1, steps * 3 // 4),
            every_steps=every,
        )
        budget = dict(params=round((1 - sparsity) * _PARAMS))
        stages |= {
            f"one_shot_{share}": dict(on, start_from="student", prune=once),
            f"random_{share}": dict(on, start_from="student", prune=dict(once, score="random")),
            f"gradual_{share}": dict(on, start_from="student", prune=gradual),
            f"ticket_{share}": dict(on, start_from="student", prune=ticket, optimizer=optimizer),
            f"rigl_{share}": dict(on, start_from="student", prune=moving),
            f"cut_{share}": dict(cut, budget=budget),
            f"channels_{share}": dict(on, start_from=f"cut_{share}"),
        }
    weights = dict(int8={}, int4=dict(weights="int4", scale="mse"), ternary=dict(weights="ternary"))
    for name, rule in weights.items():
        stages[name] = dict(bits, agreement=0.0, rules=[rule])
        stages[f"{name}_aware"] = dict(on, start_from=name)
    return stages
