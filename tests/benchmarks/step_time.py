"""What a train step costs, as ratios measured in one interleaved run. Prints one JSON object.

  python tests/benchmarks/step_time.py                  the digits pair, seconds on two CPU cores
  python tests/benchmarks/step_time.py --pair=cifar     ResNet32x4 -> ResNet8x4 on 32x32, for a GPU

`distillation`: the student alone (cross-entropy), the same student with logits from the cache, and with
the teacher called in the step. `simclr`: the step that draws its two views on the device, the same step
with the views made by a call of their own before it, and fed with views that cost nothing.
"""

import argparse
import functools
import json
import platform
import sys

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import config, data, evaluate, models, train
from kdjax.data import Dataset
from kdjax.stages import build, distill, finetune, pretrain
from kdjax.stages.model import Spec

PAIRS = {
    "digits": (
        config.CNN(name="cnn", widths=(32, 64, 128, 256)),
        config.CNN(name="cnn", widths=(16, 32, 64, 64)),
        8,
        1,
        10,
        256,
    ),
    "cifar": (
        config.CifarResNet(name="cifar_resnet", depth=32, multiplier=4),
        config.CifarResNet(name="cifar_resnet", depth=8, multiplier=4),
        32,
        3,
        100,
        64,
    ),
}
"""Teacher, student, side, channels, classes, batch."""

_DATA = config.Data(name="benchmark")
_VIEWS = config.CropFlipViews(recipe="crop_flip")
_CONTRAST = config.SimCLRViews(recipe="simclr")


def _spec(encoder: config.Encoder, dataset: Dataset) -> Spec:
    return Spec.new(encoder, dataset, _DATA, size=dataset.image_shape[0])


def _runner(objective, draw, variables, resident, feed):
    """A call that makes one step and waits for it; the state goes on from call to call."""
    parallel = train.choose("single")
    tx = build.optimizers.sgd(
        lambda step: 1e-3, momentum=0.9, nesterov=False, weight_decay=5e-4, decayed=".*"
    )
    run_steps = parallel.compile(
        train.make_run_steps(
            lambda resident, feed, key: draw(data.take(resident, feed), resident, key),
            train.make_train_step(objective, tx),
        )
    )
    state = [train.TrainState.start(jax.tree.map(jnp.copy, variables), tx)]
    resident, feed = parallel.replicate(resident), parallel.feed(feed)
    key = jax.random.key(0)

    def call():
        state[0], metrics = run_steps(state[0], resident, feed, key)
        return metrics

    return call


def distillation(teacher: Spec, student: Spec, dataset: Dataset, batch: int):
    """The three steps on one batch."""
    recipe = build.recipe(_VIEWS, _DATA, size=student.size)
    logits = np.zeros((1, len(dataset), teacher.classes), np.float16)
    resident = {**data.resident_arrays(dataset), "teacher_logits": logits}
    lives = {**resident, "teacher": teacher.init(jax.random.key(1))}
    feed = {
        "row": np.arange(batch, dtype=np.int32)[None],
        "epoch": np.zeros((1, batch), np.uint32),
    }
    variables = student.init(jax.random.key(0))
    kd = distill.objective(student.module(), temperature=4.0, kd_weight=0.9, ce_weight=0.1)
    cached = functools.partial(distill.cached_view, recipe, "cache", count=1)
    return {
        "student_only": _runner(
            finetune.objective(student.module()),
            finetune.fresh_view(recipe, "cache"),
            variables,
            resident,
            feed,
        ),
        "cached_kd": _runner(kd, cached(), variables, resident, feed),
        "live_kd": _runner(kd, cached(live_teacher=teacher.module()), variables, lives, feed),
    }


def simclr(encoder: Spec, dataset: Dataset, batch: int):
    """The step with its views on the device, against views made outside of it."""
    model = models.Contrastive(
        build.encoder(encoder.encoder, models.Compute()), models.Projector((128, 64))
    )
    recipe = build.recipe(_CONTRAST, _DATA, size=encoder.size)
    draw = pretrain.two_views(recipe, "pretrain")
    objective = pretrain.objective(model, temperature=0.5)
    blank = jnp.zeros((1, encoder.size, encoder.size, encoder.image_shape[-1]))
    variables = model.init(jax.random.key(0), blank, train=True)
    resident = data.resident_arrays(dataset)
    feed = {
        "row": np.arange(batch, dtype=np.int32)[None],
        "epoch": np.zeros((1, batch), np.uint32),
    }
    outside = jax.jit(
        lambda key: draw(data.take(resident, {k: v[0] for k, v in feed.items()}), {}, key)
    )
    ready = jax.device_get(outside(jax.random.key(0)))

    def fed(batch, resident, key):
        return batch

    step = _runner(objective, fed, variables, {}, {k: v[None] for k, v in ready.items()})

    def two_calls():
        jax.block_until_ready(outside(jax.random.key(0)))
        return step()

    return {
        "views_in_the_step": _runner(objective, draw, variables, resident, feed),
        "views_made_outside": two_calls,
        "views_for_nothing": _runner(
            objective, fed, variables, {}, {k: v[None] for k, v in ready.items()}
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pair", choices=PAIRS, default="digits")
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    teacher, student, side, channels, classes, batch = PAIRS[args.pair]
    random = np.random.default_rng(0)
    dataset = data.from_arrays(
        random.integers(0, 256, (4 * batch, side, side, channels), dtype=np.uint8),
        random.integers(0, classes, 4 * batch),
        classes=classes,
    )
    specs = _spec(teacher, dataset), _spec(student, dataset)
    results = {}
    for name, calls, base in (
        ("distillation", distillation(*specs, dataset, batch), "student_only"),
        ("simclr", simclr(specs[0], dataset, batch), "views_for_nothing"),
    ):
        times = evaluate.interleaved(calls, repeats=args.repeats, max_seconds=120)
        p50 = {call: time.ms_p50 for call, time in times.items()}
        results[name] = {
            "ms_p50": p50,
            "ratio": {call: ms / p50[base] for call, ms in p50.items()},
            "base": base,
        }
        if name == "simclr":
            results[name]["images_per_second"] = {c: batch / ms * 1e3 for c, ms in p50.items()}
    json.dump(
        {
            "command": " ".join(["python", "tests/benchmarks/step_time.py", *sys.argv[1:]]),
            "pair": args.pair,
            "batch": batch,
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
            "python": platform.python_version(),
            **results,
        },
        sys.stdout,
        indent=1,
    )
    print()


if __name__ == "__main__":
    main()
