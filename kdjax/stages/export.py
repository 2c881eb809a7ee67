"""One file a format, loaded again in its runtime and held against the live model."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from kdjax import config, export, files, quant
from kdjax.artifacts import streaming
from kdjax.artifacts.model import Spec, load
from kdjax.checks import expected
from kdjax.config import own
from kdjax.contexts.context import Context
from kdjax.measuring import measure
from kdjax.measuring.parity import StageFailed, compare
from kdjax.models import Compute
from kdjax.types import BadInput, Variables, under

_LOOKED_AT = 16
"""Examples that a layer-wise comparison is made on."""

TIMED_IN = export.ONNX()
"""What a budget of milliseconds is measured in."""

_OF_A_BUDGET = 2.0
"""Most seconds that one such time takes: what it decides is not to depend on how rows are timed."""


def check(context: Context, c: config.Export) -> Mapping[str, Any]:
    """Asks for what the formats need, before anything that is exported has been trained.

    Raises:
      BadInput: the extra of a format is not installed, there is no model to export, its file would be
        slower than that of the float one, two formats have one suffix, or the accuracy may not fall of
        a task that has none.
    """
    runtimes = list(runtimes_of(c, context.path))
    for path, runtime in runtimes:
        try:
            runtime.require()
        except BadInput as error:
            raise BadInput(path, f"{error}") from None
    spec = Spec.of(context.inputs[c.model], field=f"{context.path}.model")
    if c.accuracy_drop is not None:
        expected.check_accuracy(context, spec, f"{context.path}.accuracy_drop")
    taken: dict[str, str] = {}
    for path, runtime in runtimes:
        if (other := taken.setdefault(runtime.suffix, path)) != path:
            raise BadInput(
                path,
                f"its files end in {runtime.suffix}, as those of {other} do",
                "give one of them another suffix, or a stage of its own",
            )
    _refuse_misfits(context, c, spec)
    return {}


def runtimes_of(c: config.Export, path: str) -> Iterator[tuple[str, export.Runtime]]:
    """The formats of a stage in their order, each with its path in the config."""
    for i, format in enumerate(c.formats):
        at = f"{path}.formats[{i}]"
        yield at, format.runtime(path=at)


def _refuse_misfits(context: Context, c: config.Export, spec: Spec) -> None:
    """Raises `BadInput` where a format should not be asked to hold this model."""
    for at, runtime in runtimes_of(c, context.path):
        if runtime.streaming:
            with under(f"{at}.streaming"):
                streaming.check(spec, model=c.model)
        for fault in runtime.misfits(spec.rules, lambda: spec.layers().layers, model=c.model):
            raise BadInput(f"{context.path}.formats", fault)


def run(context: Context, c: config.Export) -> Mapping[str, Any]:
    """Writes, reloads, compares and times each format."""
    artifact = context.inputs[c.model]
    spec, variables = load(artifact, field=f"{context.path}.model")
    _refuse_misfits(context, c, spec)
    variables = jax.device_put(variables)
    names = spec.task.names(context.splits.test.target)
    model = exported(spec, variables, class_names=names)
    live = measure.live_logits(context, spec, variables)
    threads = context.run.latency_threads
    rows, parities = [], []
    for at, runtime in runtimes_of(c, context.path):
        path = context.folder / f"{c.model}{runtime.suffix}"
        with own.explaining((c.formats, f"{context.path}.formats")):
            with _of_rules(context, c.model):
                runtime.write(model, path)
            if not path.is_file():
                raise BadInput(at, f"there is no file {path.name} after write(model, path)")
            reloaded = judged(runtime.load(path, threads=threads), spec)
            found = measure.answers_of(
                context.splits, spec.task, reloaded, open_length=runtime.open_batch
            )
            try:
                parity = compare(
                    path,
                    found,
                    live,
                    context.splits.test_labels,
                    task=spec.task,
                    runtime=runtime.runs_in,
                    **_allowed(c, spec),
                )
            except StageFailed as failed:
                where = _where(runtime, model, path, context.splits.test_inputs)
                raise StageFailed(f"{failed}{where}") from None
            row = measure.file_row(
                context, spec, variables, path, reloaded, runtime=runtime, logits=found
            )
            described = export.described(runtime, path, model)
        rows.append(dataclasses.asdict(row))
        parities.append({**dataclasses.asdict(parity), **described})
    said = {"class_names": [*names]} if names else {}
    if beside := context.splits.train.beside:
        for name, content in beside.items():
            files.write(context.folder / name, content)
        said["beside"] = [*beside]
    return {"rows": rows, "parity": parities, **said}


@contextlib.contextmanager
def _of_rules(context: Context, name: str) -> Iterator[None]:
    """A rule that is refused is one of the stage that has quantized the model."""
    try:
        yield
    except BadInput as error:
        stages = context.run.stages
        while not isinstance(stage := stages[name], config.Quantize):
            names = (f"{getattr(stage, field, '')}" for field in ("model", "start_from", "leaves"))
            if not (name := next((n for n in names if n in stages), "")):
                raise
        raise error.under("", {"rules": f"config.stages.{name}.rules"}) from None


def _allowed(c: config.Export, spec: Spec) -> dict[str, float]:
    """What `compare` is to hold a file against."""
    # An activation is rounded the other way where a sum was added up in another order.
    if not any(rule.activations for rule in spec.rules.values()):
        return {"difference": c.tolerance}
    if c.accuracy_drop is not None:
        return {"drop": c.accuracy_drop}
    return {"agreement": c.agreement}


def by_name(run: Callable[..., Any], names: Iterable[str]) -> Callable[[Mapping[str, Any]], Any]:
    """A function of a file, of its inputs by their names, which are in the order of the file."""
    order = tuple(names)
    return lambda inputs: run(*(inputs[name] for name in order))


def judged(run: Callable[..., Any], spec: Spec) -> Callable[[Mapping[str, Any]], Any]:
    """Likewise, and of its answers what the task of its model looks at."""
    answer = by_name(run, spec.inputs.fields)
    return lambda inputs: spec.task.judged(answer(inputs), inputs)


def exported(
    spec: Spec, variables: Variables, *, class_names: tuple[str, ...] = ()
) -> export.Model:
    """A model as a format writes it."""
    module = spec.in_float.module(Compute(folded=True))
    folded = spec.folded(variables)
    predict = spec.deployed(variables)
    return export.Model(
        predict=predict,
        inputs=spec.inputs.from_length(export.shortest_of(predict, spec.inputs.fields)),
        output=spec.output(),
        forward=spec.answers(module),
        variables={name: tree for name, tree in folded.items() if name != quant.RANGES},
        rules=spec.rules,
        ranges=variables.get(quant.RANGES, {}),
        class_names=class_names,
        stream=lambda: streaming.stream_of(spec, variables),
    )


def _where(
    runtime: export.Runtime, model: export.Model, path: epath.Path, inputs: Mapping[str, np.ndarray]
) -> str:
    """Which layer of a file that failed sees something else than the live one."""
    raw = (inputs[name][:_LOOKED_AT] for name in model.inputs.fields)
    apart = export.layer_differences(runtime, path, model, *raw)
    if not apart:
        return ""
    worst = max(apart, key=lambda name: apart[name])
    return f"; what goes into {worst} differs most, by {apart[worst]:.2g} of its largest value"


def file_latency(context: Context, spec: Spec, variables: Variables) -> float:
    """Milliseconds that the file of a model takes for `latency_batch` examples, the median."""
    with as_timed(spec, variables, threads=context.run.latency_threads) as run:
        return measure.timed(context, run, seconds=_OF_A_BUDGET).ms_p50


@contextlib.contextmanager
def as_timed(
    spec: Spec, variables: Variables, *, threads: int
) -> Iterator[Callable[[Mapping[str, Any]], Any]]:
    """A model as a file in the runtime that budgets are measured in, which takes inputs by name."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"model{TIMED_IN.suffix}"
        TIMED_IN.write(exported(spec, variables), file)
        yield by_name(TIMED_IN.load(file, threads=threads), spec.inputs.fields)
