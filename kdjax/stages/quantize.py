"""Post-training int8: an ONNX file that is quantized, run and measured."""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import config
from kdjax.export import load_onnx, write_onnx
from kdjax.quant import quantize_onnx
from kdjax.stages import measure
from kdjax.stages.context import Context
from kdjax.stages.model import load
from kdjax.stages.parity import compare


def run(context: Context, c: config.Quantize) -> Mapping[str, Any]:
    """Calibrates on training images, and holds the int8 file against the live float model."""
    path = f"config.stages.{context.name}"
    artifact = context.inputs[c.model]
    calibration = context.sample(c.calibration_examples, field=f"{path}.calibration_examples")
    spec, variables = load(artifact, field=f"{path}.model")
    variables = jax.tree.map(jnp.asarray, variables)
    target = context.folder / f"{c.model}.int8.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "float.onnx"
        write_onnx(spec.deployed(variables), source, image_shape=spec.image_shape)
        quantize_onnx(source, target, calibration=calibration)

    threads, images = context.run.latency_threads, context.splits.test_images
    reloaded = load_onnx(target, threads=threads)
    logits, parity = compare(
        target,
        reloaded,
        images,
        measure.live_logits(context, spec, variables),
        runtime="onnxruntime:cpu",
        agreement=c.agreement,
    )
    row = measure.row(
        context,
        spec,
        variables,
        logits=logits,
        time=measure.timed(context, reloaded),
        runtime="onnxruntime:cpu",
        threads=threads,
        bytes_on_disk=measure.file_bytes(target),
    )
    row = dataclasses.replace(row, model=f"{spec.name} int8")
    return {"rows": [dataclasses.asdict(row)], "parity": [dataclasses.asdict(parity)]}
