"""One file a format, loaded again in its runtime and held against the live model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import config
from kdjax.export import load_onnx, load_stablehlo, write_onnx, write_stablehlo
from kdjax.stages import measure
from kdjax.stages.context import Context
from kdjax.stages.model import load
from kdjax.stages.parity import compare


def run(context: Context, c: config.Export) -> Mapping[str, Any]:
    """Writes, reloads, compares and times each format."""
    artifact = context.inputs[c.model]
    spec, variables = load(artifact, field=f"config.stages.{context.name}.model")
    variables = jax.tree.map(jnp.asarray, variables)
    predict = spec.deployed(variables)
    live = measure.live_logits(context, spec, variables)
    images, threads = context.splits.test_images, context.run.latency_threads
    rows, parities = [], []
    for format in dict.fromkeys(c.formats):
        match format:
            case "stablehlo":
                path = context.folder / f"{c.model}.stablehlo"
                write_stablehlo(predict, path, image_shape=spec.image_shape)
                reloaded, runtime = load_stablehlo(path), f"stablehlo:{jax.default_backend()}"
                used = measure.cpu_threads()
            case "onnx":
                path = context.folder / f"{c.model}.onnx"
                write_onnx(predict, path, image_shape=spec.image_shape)
                reloaded, runtime = load_onnx(path, threads=threads), "onnxruntime:cpu"
                used = threads
        logits, parity = compare(
            path, reloaded, images, live, runtime=runtime, difference=c.tolerance
        )
        row = measure.row(
            context,
            spec,
            variables,
            stage=path.name,
            logits=logits,
            time=measure.timed(context, reloaded),
            runtime=runtime,
            threads=used,
            bytes_on_disk=measure.file_bytes(path),
        )
        rows.append(dataclasses.asdict(row))
        parities.append(dataclasses.asdict(parity))
    return {"rows": rows, "parity": parities}
