"""What integers and smaller shapes save in ONNX Runtime. Prints one JSON object.

  python tests/benchmarks/quantization.py                         minutes on one CPU core
  python tests/benchmarks/quantization.py --networks=mobilenet    MobileNetV3-small

Every file is made as a stage makes it, from random parameters: what they compute is worth nothing, what
it costs is what it would cost. All of them are timed in turn in one process, one thread.
"""

import argparse
import dataclasses
import gzip
import tempfile
from pathlib import Path

import jax
import numpy as np
from result import ratios, show

from kdjax import config, evaluate, shrink, tree
from kdjax.stages import quantize
from kdjax.stages.export import write_onnx_model
from kdjax.stages.model import Spec

_SIDE = 32


def _spec(encoder: config.Encoder) -> Spec:
    return Spec(
        encoder=encoder,
        classes=10,
        image_shape=(_SIDE, _SIDE, 3),
        size=_SIDE,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


def _halved(spec: Spec, variables, multiple: int):
    """Half the channels of each group, rounded up to a multiple."""
    model, blank = spec.analysed(), spec.blank()
    groups = shrink.groups_of(model, variables, blank)
    scores = shrink.group_l1(groups, variables["params"])
    kept = shrink.keep_each(groups, scores, 0.5, multiple=multiple)
    found = shrink.take_away(model, groups, kept, variables, blank)
    return dataclasses.replace(spec, widths=found.widths), found.variables


def _int8(spec: Spec, variables):
    """In int8, with ranges from random images."""
    images = np.random.default_rng(0).integers(0, 256, (64, *spec.image_shape), np.uint8)
    c = config.Quantize(kind="quantize", model="benchmark")
    found = quantize.quantized(spec, variables, images, c)
    return found[:2]


def _models(networks: str, multiple: int):
    """`{name: (spec, variables)}`, float and int8."""

    def fresh(encoder):
        spec = _spec(encoder)
        return spec, spec.init(jax.random.key(0))

    if networks == "mobilenet":
        whole = fresh(config.MobileNetV3(name="mobilenet_v3", size="small"))
        return {"float": whole, "int8": _int8(*whole)}
    student = fresh(config.ResNet18(name="resnet18"))
    half = _halved(*student, multiple)
    return {
        "resnet50_float": fresh(config.ResNet50(name="resnet50")),
        "float": student,
        "int8": _int8(*student),
        "half_float": half,
        "half_int8": _int8(*half),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", choices=["resnet", "mobilenet"], default="resnet")
    parser.add_argument("--batches", default="1,64")
    parser.add_argument("--multiple", type=int, default=16, help="of the widths of the half")
    parser.add_argument("--max_seconds", type=float, default=120.0, help="of one batch size")
    args = parser.parse_args()
    folder, files, costs = Path(tempfile.mkdtemp()), {}, {}
    for name, (spec, variables) in _models(args.networks, args.multiple).items():
        file = folder / f"{name}.onnx"
        write_onnx_model(spec, variables, file)
        files[name] = file
        costs[name] = {
            "params": tree.size(variables["params"]),
            "bytes": file.stat().st_size,
            "gzip_bytes": len(gzip.compress(file.read_bytes(), 6)),
        }
    results = {"networks": args.networks, "threads": 1, "multiple": args.multiple, "files": costs}
    for batch in map(int, args.batches.split(",")):
        calls = {n: evaluate.onnx_call(f, threads=1, batch=batch) for n, f in files.items()}
        times = evaluate.interleaved(
            calls, repeats=200, min_seconds=0.5, max_seconds=args.max_seconds
        )
        results[f"batch_{batch}"] = ratios(times, "float")
    show(results)


if __name__ == "__main__":
    main()
