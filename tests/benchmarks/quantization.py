"""What integers and smaller shapes save in ONNX Runtime. Prints one JSON object.

  python tests/benchmarks/quantization.py                         ResNet-18, minutes on one CPU core
  python tests/benchmarks/quantization.py --networks=mobilenet    MobileNetV3-small, and with ReLU
  python tests/benchmarks/quantization.py --networks=vit          a small transformer
  python tests/benchmarks/quantization.py --models=float,int8     these two alone

Every file is made as a stage makes it, from random parameters: what they compute is worth nothing, what
it costs is what it would cost. All of them are timed in turn in one process, one thread. A turn is many
calls of one session, after some that are not timed: its weights are in the caches as they are where
nothing else runs, and a machine that drifts slows all of them alike. A time is the median of the turns'
medians; a gain comes with the least and the largest of a turn. Where PyTorch and torchvision are
installed, the same network in eager PyTorch and with its dynamic int8 are timed in the same turns, as the
reference from outside; what the runtime gains over it and what int8 gains over float in one runtime are
ratios of their own.
"""

import argparse
import dataclasses
import gzip
import importlib.util
import io
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from result import ratios, show

from kdjax import config, evaluate, export, shrink, tree
from kdjax.artifacts.model import Spec
from kdjax.config.encoders.mobilenet import MobileNetV3
from kdjax.config.encoders.resnet import ResNet18, ResNet50
from kdjax.config.encoders.vit import ViT
from kdjax.inputs import Inputs
from kdjax.stages import quantize
from kdjax.stages.export import exported
from kdjax.tasks import Classification
from kdjax.types import Field

_FIELDS = {"image": Field((32, 32, 3), "uint8")}


def _spec(encoder: config.Encoder) -> Spec:
    return Spec(
        encoder=encoder,
        inputs=Inputs.of(_FIELDS, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        task=Classification(classes=10),
    )


def _halved(spec: Spec, variables, multiple: int):
    """Half the channels of each group, rounded up to a multiple."""
    model, blank = spec.analysed(), spec.blank()
    groups = shrink.groups_of(model, variables, blank)
    scores = shrink.group_l1(groups, variables["params"])
    kept = shrink.keep_each(groups, scores, 0.5, multiple=multiple)
    found = shrink.take_away(model, groups, kept, variables, blank)
    return dataclasses.replace(spec, widths=found.widths), found.variables


def _quantized(spec: Spec, variables, **numbers):
    """With ranges from random images, int8 unless told otherwise."""
    inputs = {name: field.made_up(64) for name, field in spec.inputs.fields.items()}
    c = config.Quantize(kind="quantize", model="benchmark", rules=(config.Layers(**numbers),))
    return quantize.quantized(spec, variables, inputs, c)[:2]


def _models(networks: str, multiple: int):
    """`{name: (spec, variables)}`."""

    def fresh(encoder):
        spec = _spec(encoder)
        return spec, spec.init(jax.random.key(0))

    match networks:
        case "mobilenet":
            whole = fresh(MobileNetV3(name="mobilenet_v3", size="small"))
            relu = fresh(MobileNetV3(name="mobilenet_v3", size="small", activation="relu"))
            return {
                "float": whole,
                "int8": _quantized(*whole),
                "relu_float": relu,
                "relu_int8": _quantized(*relu),
            }
        case "vit":
            whole = fresh(ViT(name="vit", width=384, depth=6, heads=6, mlp=1536, patch=4))
            return {
                "float": whole,
                "dynamic_int8": _quantized(*whole, activations="dynamic"),
                "int8": _quantized(*whole),
                "int8_weights": _quantized(*whole, activations=None),
                "int4_weights": _quantized(*whole, weights="int4", activations=None),
            }
    student = fresh(ResNet18(name="resnet18"))
    half = _halved(*student, multiple)
    return {
        "resnet50_float": fresh(ResNet50(name="resnet50")),
        "float": student,
        "int8": _quantized(*student),
        "dynamic_int8": _quantized(*student, activations="dynamic"),
        "half_float": half,
        "half_int8": _quantized(*half),
    }


def _in_torch(networks: str) -> dict[str, Any]:
    """The same network in eager PyTorch and in its dynamic int8; empty without PyTorch."""
    if networks == "vit" or not all(map(importlib.util.find_spec, ("torch", "torchvision"))):
        return {}
    import torch
    import torchvision

    torch.set_num_threads(1)
    if networks == "mobilenet":
        model = torchvision.models.mobilenet_v3_small(num_classes=10)
        model.features[0][0].stride = (1, 1)
    else:
        model = torchvision.models.resnet18(num_classes=10)
        model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = torch.nn.Identity()
    model.eval()
    dynamic = torch.ao.quantization.quantize_dynamic(model, dtype=torch.qint8)
    return {"torch": model, "torch_dynamic_int8": dynamic}


def _torch_call(model: Any, batch: int) -> Callable[[], Any]:
    import torch

    random = np.random.default_rng(0).normal(size=(batch, 3, 32, 32))
    images = torch.from_numpy(random.astype(np.float32))

    def call():
        with torch.inference_mode():
            return model(images)

    return call


def _alone(
    calls: dict[str, Callable[[], Any]], *, turns: int, seconds: float
) -> dict[str, list[evaluate.Latency]]:
    """Each call's latency in each of some turns, which it has to itself for so many seconds."""
    found: dict[str, list[evaluate.Latency]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            found[name].append(
                evaluate.latency(
                    call, warmup=5, repeats=10, min_seconds=seconds, max_seconds=5 * seconds
                )
            )
    return found


def _middle(turns: list[evaluate.Latency]) -> evaluate.Latency:
    """The medians of what the turns say, and how many samples that are in all."""
    return evaluate.Latency(
        ms_p50=float(np.median([turn.ms_p50 for turn in turns])),
        ms_p95=float(np.median([turn.ms_p95 for turn in turns])),
        repeats=sum(turn.repeats for turn in turns),
        warmup=sum(turn.warmup for turn in turns),
    )


def _gains(slow: list[evaluate.Latency], fast: list[evaluate.Latency]) -> dict[str, float]:
    """How many times as fast: the median of the turns, the least and the largest."""
    gains = [a.ms_p50 / b.ms_p50 for a, b in zip(slow, fast, strict=True)]
    return {"median": float(np.median(gains)), "least": min(gains), "largest": max(gains)}


def _cost(content: bytes, params: int) -> dict[str, int]:
    return {"params": params, "bytes": len(content), "gzip_bytes": len(gzip.compress(content, 6))}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", choices=["resnet", "mobilenet", "vit"], default="resnet")
    parser.add_argument("--batches", default="1,64")
    parser.add_argument("--multiple", type=int, default=16, help="of the widths of the half")
    parser.add_argument("--models", help="only these, comma between them; float among them")
    parser.add_argument("--turns", type=int, default=11, help="of each session, for a batch size")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a session's turn")
    args = parser.parse_args()
    folder, files, costs = Path(tempfile.mkdtemp()), {}, {}
    wanted = None if args.models is None else args.models.split(",")
    for name, (spec, variables) in _models(args.networks, args.multiple).items():
        if wanted is not None and name not in wanted:
            continue
        file = folder / f"{name}.onnx"
        export.ONNX().write(exported(spec, variables), file)
        files[name] = file
        costs[name] = _cost(file.read_bytes(), tree.size(variables["params"]))
        costs[name]["peak_memory_bytes"] = export.ONNX().memory(file, threads=1, batch=1)
    outside, versions = {} if wanted else _in_torch(args.networks), {}
    for name, model in outside.items():
        import torch

        versions = {"torch": torch.__version__}
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        params = sum(value.numel() for value in model.parameters())
        # Packed weights of its int8 layers are no parameters.
        costs[name] = _cost(buffer.getvalue(), params)
    results = {
        **versions,
        "networks": args.networks,
        "threads": 1,
        "multiple": args.multiple,
        "files": costs,
    }
    for batch in map(int, args.batches.split(",")):
        calls = {n: export.onnx_call(f, threads=1, batch=batch) for n, f in files.items()}
        calls |= {name: _torch_call(model, batch) for name, model in outside.items()}
        turns = _alone(calls, turns=args.turns, seconds=args.seconds)
        times = {name: _middle(taken) for name, taken in turns.items()}
        results[f"batch_{batch}"] = found = ratios(times, "float")
        if outside:
            found["gain_of_the_runtime"] = _gains(turns["torch"], turns["float"])
        for name, kind in itertools.product(files, ("int8", "dynamic_int8")):
            fast = name.removesuffix("float") + kind
            if name.endswith("float") and fast in turns:
                found[f"gain_of_{fast}"] = _gains(turns[name], turns[fast])
    show(results)


if __name__ == "__main__":
    main()
