"""One file a format, loaded again in its runtime and held against the live model."""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from kdjax import config, quant
from kdjax.export import (
    facts,
    load_litert,
    load_onnx,
    load_stablehlo,
    require_litert,
    require_onnx,
    write_litert,
    write_onnx,
    write_stablehlo,
)
from kdjax.models import Compute
from kdjax.stages import measure
from kdjax.stages.context import Context
from kdjax.stages.model import Spec, load
from kdjax.stages.parity import StageFailed, compare
from kdjax.types import BadInput, Variables

_LOOKED_AT = 16
"""Examples that a layer-wise comparison is made on."""


def check(context: Context, c: config.Export) -> Mapping[str, Any]:
    """Asks for what the formats need, before anything that is exported has been trained.

    Raises:
      BadInput: the extra of a format is not installed, there is no model to export, its file would be
        slower than that of the float one, or the accuracy may not fall of a task that has none.
    """
    if "onnx" in c.formats:
        require_onnx()
    if "litert" in c.formats:
        require_litert()
    spec = Spec.of(context.inputs[c.model], field=f"{context.path}.model")
    if c.accuracy_drop is not None:
        spec.task.check_accuracy(f"{context.path}.accuracy_drop")
    _refuse_slow(context, c, spec)
    return {}


def _refuse_slow(context: Context, c: config.Export, spec: Spec) -> None:
    """ONNX Runtime's one kernel for convolutions in ranges of the call takes several times a float one's.

    Raises:
      BadInput: the model has one, and is to be an ONNX file.
    """
    called = [name for name, rule in spec.rules.items() if rule.activations == "dynamic"]
    if "onnx" not in c.formats or not called:
        return
    slow = [layer.name for layer in spec.layers().layers if layer.convolution]
    if found := [name for name in called if name in slow]:
        raise BadInput(
            f"{context.path}.formats: in ONNX a convolution with dynamic activations ({found[0]}, "
            f"{len(found)} in all) is several times slower than in float; export litert alone, or give "
            f"the convolutions of {c.model} activations='int8'"
        )


def run(context: Context, c: config.Export) -> Mapping[str, Any]:
    """Writes, reloads, compares and times each format."""
    artifact = context.inputs[c.model]
    spec, variables = load(artifact, field=f"config.stages.{context.name}.model")
    _refuse_slow(context, c, spec)
    variables = jax.device_put(variables)
    predict = spec.deployed(variables)
    live = measure.live_logits(context, spec, variables)
    inputs, threads = context.splits.test_inputs, context.run.latency_threads
    rows, parities = [], []
    for format in dict.fromkeys(c.formats):
        match format:
            case "stablehlo":
                path = context.folder / f"{c.model}.stablehlo"
                write_stablehlo(predict, path, inputs=spec.inputs.fields)
                loaded, runtime = load_stablehlo(path), f"stablehlo:{jax.default_backend()}"
                used = measure.cpu_threads()
            case "onnx":
                path = context.folder / f"{c.model}.onnx"
                write_onnx_model(spec, variables, path)
                loaded, runtime = load_onnx(path, threads=threads), "onnxruntime:cpu"
                used = threads
            case "litert":
                path = context.folder / f"{c.model}.tflite"
                write_litert_model(spec, variables, path)
                loaded, runtime = load_litert(path, threads=threads), "litert:cpu"
                used = threads
        reloaded = by_name(loaded, spec.inputs.fields)
        # An activation is rounded the other way where a sum was added up in another order.
        rounds = any(rule.activations for rule in spec.rules.values())
        if not rounds:
            allowed = {"difference": c.tolerance}
        elif c.accuracy_drop is not None:
            allowed = {"drop": c.accuracy_drop}
        else:
            allowed = {"agreement": c.agreement}
        labels = context.splits.test.labels
        try:
            found, parity = compare(
                path, reloaded, inputs, live, labels, task=spec.task, runtime=runtime, **allowed
            )
        except StageFailed as failed:
            if format == "stablehlo":
                raise
            raise StageFailed(f"{failed}{_where(spec, variables, path, inputs)}") from None
        row = measure.file_row(
            context,
            spec,
            variables,
            path,
            reloaded,
            logits=found,
            runtime=runtime,
            threads=used,
        )
        rows.append(dataclasses.asdict(row))
        parities.append({**dataclasses.asdict(parity), **facts(path, inputs=spec.inputs.fields)})
    return {"rows": rows, "parity": parities}


def by_name(run: Callable[..., Any], names: Iterable[str]) -> Callable[[Mapping[str, Any]], Any]:
    """A function of a file, of its inputs by their names, which are in the order of the file."""
    order = tuple(names)
    return lambda inputs: run(*(inputs[name] for name in order))


def _where(
    spec: Spec, variables: Variables, path: epath.Path, inputs: Mapping[str, np.ndarray]
) -> str:
    """Which layer of a file that failed sees something else than the live one."""
    forward, own, ranges = _in_float(spec, variables)
    apart = quant.differences(
        path,
        lambda variables, *arrays: spec.raw(lambda inputs: forward(variables, inputs))(*arrays),
        own,
        *(inputs[name][:_LOOKED_AT] for name in spec.inputs.fields),
        rules=spec.rules,
        ranges=ranges,
    )
    if not apart:
        return ""
    worst = max(apart, key=lambda name: apart[name])
    return f"; what goes into {worst} differs most, by {apart[worst]:.2g} of its largest value"


def write_litert_model(spec: Spec, variables: Variables, path: os.PathLike[str]) -> None:
    """Writes the LiteRT file of a float model, or of a quantized one with its integers."""
    if not spec.rules:
        write_litert(
            spec.deployed(variables),
            path,
            inputs=spec.inputs.fields,
            output=spec.output(),
        )
        return
    forward, own, ranges = _in_float(spec, variables)
    rounds = quant.with_composites(forward, own, spec.blank(), rules=spec.rules, ranges=ranges)
    plan = quant.plan_of(forward, own, spec.blank(), rules=spec.rules, ranges=ranges)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "model.tflite"
        write_litert(spec.raw(rounds), made, inputs=spec.inputs.fields, output=spec.output())
        quant.quantize_in_the_call(made, plan)
        content = made.read_bytes()
    quant.require_integers(quant.litert_faults(content, plan), "LiteRT")
    with open(path, "wb") as file:
        file.write(content)


def write_onnx_model(spec: Spec, variables: Variables, path: os.PathLike[str]) -> None:
    """Writes the ONNX file of a float model, or of a quantized one with its integers."""
    if not spec.rules:
        write_onnx(
            spec.deployed(variables),
            path,
            inputs=spec.inputs.fields,
            output=spec.output(),
        )
        return
    forward, own, ranges = _in_float(spec, variables)
    plan = quant.plan_of(forward, own, spec.blank(), rules=spec.rules, ranges=ranges)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "float.onnx"
        write_onnx(
            spec.raw(lambda inputs: forward(own, inputs)),
            source,
            inputs=spec.inputs.fields,
            output=spec.output(),
        )
        quant.write_quantized(source, path, plan)


def onnx_latency(context: Context, spec: Spec, variables: Variables) -> float:
    """Milliseconds that the ONNX file of a model takes for `latency_batch` examples, the median."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        write_onnx_model(spec, variables, file)
        run = load_onnx(file, threads=context.run.latency_threads)
        return measure.timed(context, by_name(run, spec.inputs.fields)).ms_p50


def _in_float(spec: Spec, variables: Variables) -> tuple[Callable[..., Any], Variables, Variables]:
    """A folded model before anything is rounded: its function, its variables and its ranges."""
    module = spec.in_float.module(Compute(folded=True))
    folded = spec.folded(variables)
    own = {name: tree for name, tree in folded.items() if name != quant.RANGES}
    return spec.answers(module), own, variables.get(quant.RANGES, {})
