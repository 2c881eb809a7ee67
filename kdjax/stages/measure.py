"""The rows of the report: what a model is worth on the test examples, and what it costs."""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath

from kdjax import evaluate, report, tree
from kdjax.stages.artifact import variables_bytes
from kdjax.stages.context import Context
from kdjax.stages.model import Spec
from kdjax.types import Variables

_BATCH = 512


def live_logits(context: Context, spec: Spec, variables: Variables) -> np.ndarray:
    """Of all test images, by the model as it was trained."""
    predict = jax.jit(spec.predict)
    images = context.splits.test_images
    batch = min(_BATCH, len(images))
    return evaluate.logits_over(lambda x: predict(variables, x), images, batch=batch)


def live_row(
    context: Context,
    spec: Spec,
    variables: Variables,
    *,
    folder: epath.Path,
    sparsity: float | None = None,
) -> report.Row:
    """The row of a model that XLA runs on this machine; its variables are kept in `folder`."""
    predict = jax.jit(spec.predict)
    variables = jax.device_put(variables)
    return row(
        context,
        spec,
        variables,
        logits=live_logits(context, spec, variables),
        time=timed(context, lambda images: predict(variables, images)),
        runtime=f"xla:{jax.default_backend()}",
        threads=cpu_threads(),
        bytes_on_disk=variables_bytes(folder),
        sparsity=sparsity,
    )


def timed(context: Context, run: Callable[[np.ndarray], Any]) -> evaluate.Latency:
    """Latency of one call on `latency_batch` test images, which are repeated if there are fewer.

    A hundred calls, or as many as two seconds hold.
    """
    images = context.splits.test_images
    images = np.resize(images, (context.run.latency_batch, *images.shape[1:]))
    return evaluate.latency(lambda: run(images), min_seconds=0.0, max_seconds=2.0)


def row(
    context: Context,
    spec: Spec,
    variables: Variables,
    *,
    logits: np.ndarray,
    time: evaluate.Latency,
    runtime: str,
    threads: int | None,
    bytes_on_disk: int,
    stage: str | None = None,
    sparsity: float | None = None,
) -> report.Row:
    """What was measured, as one row."""
    test = context.splits.test
    scores = evaluate.scores(
        evaluate.confusion(test.labels, logits.argmax(-1), classes=test.classes)
    )
    image = jax.ShapeDtypeStruct((1, *spec.image_shape), np.uint8)
    return report.Row(
        stage=stage or context.name,
        model=spec.name,
        params=tree.size(variables["params"]),
        nonzero_params=tree.nonzero(variables["params"]),
        bytes_on_disk=bytes_on_disk,
        flops=evaluate.flops(spec.predict, spec.abstract(), image),
        accuracy=scores.accuracy,
        recall_macro=scores.recall_macro,
        f1_macro=scores.f1_macro,
        accuracy_ci95=report.wilson(scores.accuracy, scores.examples),
        seeds=1,
        latency_ms_p50=time.ms_p50,
        latency_ms_p95=time.ms_p95,
        runtime=runtime,
        threads=threads,
        batch=context.run.latency_batch,
        sparsity=sparsity,
    )


def file_bytes(path: epath.PathLike) -> int:
    """Bytes on disk of one file."""
    return epath.Path(path).stat().length


def cpu_threads() -> int | None:
    """What XLA takes on a CPU: it cannot be told; None where it runs elsewhere."""
    if jax.default_backend() != "cpu":
        return None
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
