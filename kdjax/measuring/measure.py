"""The rows of the report: what a model is worth on the test examples, and what it costs."""

import dataclasses
import gzip
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath

from kdjax import alone, data, evaluate, export, parse, report, tasks, tree
from kdjax.artifacts.artifact import Artifact, variables_bytes
from kdjax.artifacts.model import Spec, load
from kdjax.contexts.context import Context, Splits
from kdjax.types import BadInput, Variables

AGREEMENT = "agreement"
"""Name of the score that says how far a model agrees with the run's reference."""

_BATCH = 512

_BATCH_ALIKE = 128
"""Of examples of like length: fewer differ less."""


def answers_of(
    splits: Splits,
    task: tasks.Task,
    run: Callable[[dict[str, np.ndarray]], Any],
    *,
    open_length: bool = True,
) -> np.ndarray:
    """What a function of raw inputs answers to all test examples, [examples, ...].

    Examples of like length are asked together where the data has buckets, padded to the longest of
    them; those of the last batch to the longest that there may be, at as many positions as which the
    others are given back.

    Args:
      splits: whose test examples are asked.
      task: that is answered.
      run: it, of batches of one size.
      open_length: it takes inputs of any length; otherwise all are padded to the longest.
    """
    inputs, widths = splits.test_inputs, splits.widths(splits.test)
    if widths is None or not open_length:
        return evaluate.logits_over(run, inputs, batch=min(_BATCH, tree.rows(inputs)))
    turns = widths.alike(np.arange(widths.examples))
    batch, found = min(_BATCH_ALIKE, len(turns)), []
    for begin in range(0, len(turns), batch):
        rows = turns[begin : begin + batch]
        own = {name: array[rows] for name, array in inputs.items()}
        if begin + batch < len(turns):
            own = data.cut(own, widths.of(rows))
        found.append(evaluate.logits_over(run, own, batch=batch))
    padding = np.asarray(task.behind or 0.0, np.float32)
    answers = np.empty((len(turns), *found[-1].shape[1:]), np.float32)
    for begin, own in zip(range(0, len(turns), batch), found, strict=True):
        here = np.broadcast_to(padding, (len(own), *answers.shape[1:])).copy()
        here[:, : own.shape[1]] = own
        answers[turns[begin : begin + batch]] = here
    return answers


def live_logits(context: Context, spec: Spec, variables: Variables) -> np.ndarray:
    """Of all test examples, by the model as it was trained."""
    predict, variables = spec.compiled(fast=context.parallel.fast), jax.device_put(variables)
    return answers_of(context.splits, spec.task, lambda x: predict(variables, x))


def live_row(
    context: Context,
    spec: Spec,
    variables: Variables,
    *,
    folder: epath.Path,
    logits: np.ndarray | None = None,
    sparsity: float | None = None,
) -> report.Row:
    """The row of a model that XLA runs on this machine; its variables are kept in `folder`.

    `logits` are its answers, where they have been found already.
    """
    predict, variables = spec.compiled(fast=context.parallel.fast), jax.device_put(variables)
    return row(
        context,
        spec,
        variables,
        logits=live_logits(context, spec, variables) if logits is None else logits,
        time=timed(context, lambda inputs: predict(variables, inputs), seconds=seconds_of(context)),
        runtime=f"xla:{jax.default_backend()}",
        threads=cpu_threads(),
        bytes_on_disk=variables_bytes(folder),
        sparsity=sparsity,
    )


def timed(
    context: Context,
    run: Callable[[dict[str, np.ndarray]], Any],
    *,
    seconds: float,
    bulk: bool = False,
) -> evaluate.Latency:
    """Latency of one call on `latency_batch` test examples, see `timed_inputs`.

    A hundred calls, or as many as fit into `seconds`, five at least; of `latency_bulk_batch` examples
    where it is `bulk`.
    """
    batch = context.run.latency_bulk_batch if bulk else context.run.latency_batch
    inputs = timed_inputs(context.splits, batch)
    return evaluate.latency(lambda: run(inputs), min_seconds=0.0, max_seconds=seconds)


def seconds_of(context: Context) -> float:
    """How long the timing of one row of the report may take."""
    return context.run.latency_seconds


def timed_inputs(splits: Splits, batch: int) -> dict[str, np.ndarray]:
    """So many raw test examples, the longest first, which are repeated if there are fewer.

    All are padded as far as every test example is.
    """
    long = sum(splits.test.lengths.values(), np.zeros(len(splits.test), np.int64))
    rows = np.resize(np.argsort(-long, kind="stable"), batch)
    return {name: array[rows] for name, array in splits.test_inputs.items()}


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
    **figures: Any,
) -> report.Row:
    """What was measured, as one row; `figures` are fields of it that not every model has."""
    batch = context.run.latency_batch
    seconds = spec.inputs.seconds(timed_inputs(context.splits, batch))
    return report.Row(
        stage=stage or context.name,
        model=spec.name,
        params=tree.size(variables["params"]),
        nonzero_params=tree.nonzero(variables["params"]),
        bytes_on_disk=bytes_on_disk,
        flops=spec.flops(),
        **scored(context, spec.task, logits),
        seeds=1,
        latency_ms_p50=time.ms_p50,
        latency_ms_p95=time.ms_p95,
        runtime=runtime,
        threads=threads,
        batch=batch,
        sparsity=sparsity,
        seconds=seconds,
        real_time_factor=None if not seconds else time.real_time_factor(seconds),
        **figures,
    )


def scored(context: Context, task: tasks.Task, answers: np.ndarray) -> dict[str, Any]:
    """What answers to the test examples are worth, as fields of a row; no scores without any label."""
    test, known = context.splits.test, context.splits.test.shown
    compared = _compared(context, task, answers)
    found, primary = {}, AGREEMENT if compared else None
    labels = test.labels
    if compared and known.any() and not known.all():
        answers, labels = answers[known], labels[known]
    if not context.splits.is_unlabelled and (known.any() or not compared):
        found = {**task.scores(answers, labels)}
        primary = task.primary if known.all() else primary
    for name, own in context.run.scores.items():
        path = f"config.scores.{name}"
        if name in found or name in compared:
            raise BadInput(path, "the task has a score of this name", "give it another")
        found[name] = own.score(answers, labels, path=path)
        primary = name if own.primary else primary
    return {"scores": {**found, **compared}, "primary": primary}


def _compared(context: Context, task: tasks.Task, answers: np.ndarray) -> dict[str, report.Score]:
    """How far answers to the test examples agree with those of the run's reference."""
    if context.name == context.run.reference:
        return {AGREEMENT: task.likeness(answers, answers)}
    if context.reference is None:
        return {}
    return {AGREEMENT: task.likeness(answers, _answers(context, context.reference()))}


def _answers(context: Context, artifact: Artifact) -> np.ndarray:
    """Those of a finished model, found once in a run."""
    kept, mark = context.splits.answers, artifact.manifest["fingerprint"]
    if mark not in kept:
        spec, variables = load(artifact, field="config.reference")
        kept[mark] = live_logits(context.given(spec.inputs), spec, variables)
    return kept[mark]


def again(context: Context, artifact: Artifact) -> list[dict[str, Any]]:
    """The rows of a finished model, with the scores that this run asks for; else as they are.

    Args:
      context: of its stage; of its inputs none is asked for.
      artifact: what it left, with the rows in its manifest.

    Raises:
      BadInput: a score cannot be found, or the model is not whole.
    """
    said = artifact.manifest
    if "rows" not in said:  # published weights without a classifier of the task
        return []
    if "sweep" in said:
        spec = parse.parse(Spec, said["sweep"]["model"], f"{artifact.folder}: sweep.model")
        students = range(len(said["sweep"]["students"]))
        models = [artifact.student(spec.abstract(), i) for i in students]
    else:
        spec, variables = load(artifact, field=context.path)
        models = [variables]
    context = context.given(spec.inputs)
    rows = []
    for row, variables in zip(said["rows"], models, strict=True):
        found = scored(context, spec.task, live_logits(context, spec, variables))
        plain = {name: dataclasses.asdict(score) for name, score in found["scores"].items()}
        rows.append({**row, "scores": plain, "primary": found["primary"]})
    return rows


def check_scores(context: Context) -> None:
    """Asks for every score of answers that are made up, before there is a model.

    Raises:
      BadInput: one cannot be found.
    """
    if context.run.scores:
        test = context.splits.test
        task = tasks.of(test)
        scored(context, task, task.made_up(len(test)))


def file_row(
    context: Context,
    spec: Spec,
    variables: Variables,
    path: epath.Path,
    run: Callable[[dict[str, np.ndarray]], Any],
    *,
    runtime: export.Runtime,
    logits: np.ndarray,
) -> report.Row:
    """The row of an exported file: what its own runtime gives, and takes."""
    content, batch = path.read_bytes(), context.run.latency_batch
    told, seconds = context.run.latency_threads, seconds_of(context)
    memory = runtime.memory(path, threads=told, batch=batch) if seconds else None
    bulk = timed(context, run, bulk=True, seconds=seconds / 2)
    return row(
        context,
        spec,
        variables,
        stage=path.name,
        logits=logits,
        time=timed(context, run, seconds=seconds),
        runtime=runtime.runs_in,
        threads=told if runtime.takes_threads else cpu_threads(),
        bytes_on_disk=len(content),
        gzip_bytes=len(gzip.compress(content, mtime=0)),
        peak_memory_bytes=memory,
        bulk_ms_p50=bulk.ms_p50,
        bulk_ms_p95=bulk.ms_p95,
        bulk_batch=context.run.latency_bulk_batch,
    )


def cpu_threads() -> int | None:
    """What XLA takes on a CPU: it cannot be told; None where it runs elsewhere."""
    if jax.default_backend() != "cpu":
        return None
    return alone.cores()
