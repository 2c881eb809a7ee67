"""What masks cost while training, and what smaller shapes save. Prints one JSON object.

  python tests/benchmarks/pruning.py                    both parts, minutes on two CPU cores
  python tests/benchmarks/pruning.py --parts=shrunk --width=16

`masks`: 100 steps of the digits' student, of which one finds the masks anew by magnitude, against 100
steps without masks, and with masks that nobody finds anew. `shrunk`: a ResNet-18 exported to ONNX whole,
with half the channels of each group taken away, and whole with nine tenths of its weights zero.
"""

import argparse
import dataclasses
import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import step_time
from result import ratios, show

from kdjax import data, evaluate, prune, shrink, train, tree
from kdjax.config.encoders.resnet import ResNet18
from kdjax.config.fields import KERNELS
from kdjax.config.views.crop_flip import CropFlipViews
from kdjax.data import Dataset
from kdjax.export import load_onnx, write_onnx
from kdjax.stages import finetune

_STEPS = 100
_VIEWS = CropFlipViews(recipe="crop_flip")


def _dataset(batch: int, side: int, channels: int, classes: int) -> Dataset:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4 * batch, side, side, channels), dtype=np.uint8)
    return data.from_arrays(images, random.integers(0, classes, 4 * batch), classes=classes)


def masks(batch: int):
    """A hundred steps each: dense, held at masks, held at masks of which one step finds new ones."""
    _, encoder, side, channels, classes, _ = step_time.PAIRS["digits"]
    dataset = _dataset(batch, side, channels, classes)
    spec = step_time.spec_of(encoder, dataset)
    variables, tx = spec.init(jax.random.key(0)), step_time.sgd()
    rule = prune.gradual(
        prune.schedules.cubic(0.9, begin_step=0, end_step=10**6), mask=prune.masks.topk_mask
    )
    renewed = {"begin_step": 0, "end_step": 10**6, "every_steps": _STEPS}
    fixed = jax.tree.map(
        lambda yes, w: prune.masks.topk_mask(jnp.abs(w), 0.9) if yes else None,
        tree.match(variables["params"], KERNELS),
        variables["params"],
    )
    optimizers = {
        "dense": tx,
        "held": prune.hold_fixed(tx, fixed),
        "renewed_once": prune.hold(tx, rule, prunable=KERNELS, **renewed),
    }
    recipe = _VIEWS.recipe_for(spec.inputs)
    feed = {
        "row": np.arange(batch, dtype=np.int32)[None],
        "epoch": np.zeros((1, batch), np.uint32),
    }

    def hundred(tx):
        objective = finetune.objective(spec.module(), spec.task.terms())
        step = step_time.steps(
            train.make_train_step(objective, tx),
            finetune.fresh_view(recipe, "benchmark"),
            train.TrainState.start(jax.tree.map(jnp.copy, variables), tx),
            data.resident_arrays(dataset),
            feed,
        )
        return lambda: [step() for _ in range(_STEPS)][-1]

    return {name: hundred(tx) for name, tx in optimizers.items()}


def shrunk(width: int, threads: int):
    """One image through each file, and what the models cost on paper."""
    dataset = _dataset(1, 32, 3, 10)
    encoder = ResNet18(name="resnet18", width=width)
    spec = step_time.spec_of(encoder, dataset)
    variables = spec.init(jax.random.key(0))
    model, blank = spec.analysed(), spec.blank()
    groups = shrink.groups_of(model, variables, blank)
    kept = shrink.keep_each(groups, shrink.group_l1(groups, variables["params"]), 0.5)
    found = shrink.take_away(model, groups, kept, variables, blank)
    zeros = jax.tree.map(
        lambda yes, w: jnp.where(prune.masks.topk_mask(jnp.abs(w), 0.9), w, 0) if yes else w,
        tree.match(variables["params"], KERNELS),
        variables["params"],
    )
    models = {
        "dense": (spec, variables),
        "half_the_channels": (dataclasses.replace(spec, widths=found.widths), found.variables),
        "nine_tenths_zero": (spec, {**variables, "params": zeros}),
    }
    calls, costs, folder = {}, {}, Path(tempfile.mkdtemp())
    ((field_name, field),) = spec.inputs.fields.items()
    image = np.zeros((1, *field.shape), np.uint8)
    for name, (of, values) in models.items():
        file = folder / f"{name}.onnx"
        write_onnx(of.deployed(values), file, inputs=of.inputs.fields)
        calls[name] = functools.partial(load_onnx(file, threads=threads), image)
        costs[name] = {
            "params": tree.size(values["params"]),
            "flops": evaluate.flops(of.predict, of.abstract(), {field_name: field.batch(1)}),
            "bytes": file.stat().st_size,
        }
    return calls, {"width": width, "threads": threads, "groups": len(groups), "costs": costs}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", default="masks,shrunk")
    parser.add_argument("--batch", type=int, default=256, help="of the training steps")
    parser.add_argument("--width", type=int, default=64, help="of the ResNet-18")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime")
    parser.add_argument("--max_seconds", type=float, default=180.0, help="of one part")
    args = parser.parse_args()
    results = {}
    limits = {"min_seconds": 0.5, "max_seconds": args.max_seconds}
    if "masks" in args.parts:
        times = evaluate.interleaved(masks(args.batch), warmup=1, repeats=30, **limits)
        results["masks"] = {"batch": args.batch, "steps": _STEPS, **ratios(times, "dense")}
    if "shrunk" in args.parts:
        calls, about = shrunk(args.width, args.threads)
        times = evaluate.interleaved(calls, repeats=200, **limits)
        results["shrunk"] = {**about, **ratios(times, "dense")}
    show(results)


if __name__ == "__main__":
    main()
