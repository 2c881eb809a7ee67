"""A model in integers: its rules chosen, its ranges found, held against the float one."""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from kdjax import config, quant, tree
from kdjax.artifacts.artifact import Artifact, save_variables
from kdjax.artifacts.model import Spec, load
from kdjax.checks import expected
from kdjax.contexts.context import Context
from kdjax.fitting import pruning
from kdjax.measuring import measure
from kdjax.measuring.parity import compare
from kdjax.models import Compute
from kdjax.stages.export import file_latency
from kdjax.stages.mixed import check_mixed, mixed_rules
from kdjax.types import BadInput, Variables, under

_BATCH = 64
_USUAL = 256  # examples that ranges are found on


def run(context: Context, c: config.Quantize) -> Mapping[str, Any]:
    """Folds, calibrates on training examples, and compares with the float model on the test examples."""
    path = f"config.stages.{context.name}"
    examples = context.sample_size(c.calibration_examples, usual=_USUAL)
    inputs = context.sample(examples, field=f"{path}.calibration_examples")
    artifact = context.inputs[c.model]
    _float(artifact, c, path)
    spec, variables = load(artifact, field=f"{path}.model")
    live = measure.live_logits(context, spec, variables)
    mixed, spent = None, {}
    if c.budget is not None or c.sensitivity is not None:

        def latency(rules: Mapping[str, quant.Rule]) -> float:
            tried = spec, variables
            if rules:
                tried = quantized(spec, variables, inputs, c, mixed=rules)[:2]
            return file_latency(context, *tried)

        mixed, spent = mixed_rules(context, c, spec, variables, latency)
    spec, found, names = quantized(spec, variables, inputs, c, field=f"{path}.rules", mixed=mixed)
    constant = quant.constant(found.get(quant.RANGES, {}))
    _warn(context, examples, constant)
    predict = spec.compiled(fast=context.parallel.fast)
    answers = measure.answers_of(context.splits, spec.task, lambda inputs: predict(found, inputs))
    parity = compare(
        context.folder,
        answers,
        live,
        context.splits.test_labels,
        task=spec.task,
        runtime=f"xla:{jax.default_backend()}",
        agreement=None if c.accuracy_drop is not None else c.agreement,
        drop=c.accuracy_drop,
    )
    parity = dataclasses.replace(parity, artifact=context.name)
    kept = save_variables(context.folder, found, alone=True)
    pruned = pruning.carried(artifact, found["params"])
    row = measure.live_row(
        context,
        spec,
        found,
        folder=context.folder,
        logits=answers,
        sparsity=pruning.share(pruned),
    )
    return {
        "variables": kept,
        "model": spec.plain(),
        **pruned,
        "quantized": {
            "layers": {name: dataclasses.asdict(rule) for name, rule in spec.rules.items()},
            "float_layers": [name for name in names if name not in spec.rules],
            **({"constant_activations": constant} if constant else {}),
            **spent,
        },
        "rows": [dataclasses.asdict(row)],
        "parity": [dataclasses.asdict(parity)],
    }


def _warn(context: Context, examples: int, constant: Mapping[str, float]) -> None:
    """A line for each activation that was one number in calibration."""
    for name, value in constant.items():
        print(
            f"{context.name}: {name} is {value:g} on all {examples} calibration examples, "
            "so its range is empty; what else it is later is rounded coarsely or cut off: calibrate on "
            "others, or leave its layer in float",
            file=sys.stderr,
        )


def check(context: Context, c: config.Quantize) -> Mapping[str, Any]:
    """Refuses what cannot be quantized so; gives what the manifest will say of the model."""
    path = context.path
    examples = context.sample_size(c.calibration_examples, usual=_USUAL)
    context.check_sample(examples, field=f"{path}.calibration_examples")
    with under(path):
        quant.check_percentile(c.percentile)
    artifact = context.inputs[c.model]
    spec = _float(artifact, c, path)
    if c.accuracy_drop is not None:
        expected.check_accuracy(context, spec, f"{path}.accuracy_drop")
    graph = spec.layers()
    if c.budget is not None or c.sensitivity is not None:
        rules = check_mixed(context, c, spec, graph)
    else:
        rules = _chosen(c, graph, f"{path}.rules")
    masked = {name: artifact.manifest[name] for name in ("masked",) if name in artifact.manifest}
    return {"model": dataclasses.replace(spec, rules=rules).plain(), **masked}


def _float(artifact: Artifact, c: config.Quantize, path: str) -> Spec:
    spec = Spec.of(artifact, field=f"{path}.model")
    if spec.rules:
        raise BadInput(f"{path}.model", f"{c.model} is quantized already", "give the float one")
    return spec


def _chosen(c: config.Quantize, graph: quant.Graph, field: str) -> dict[str, quant.Rule]:
    return quant.choose(
        {layers.pattern: layers.rule for layers in c.rules},
        [layer.name for layer in graph.layers],
        float_layers=graph.edges if c.float_edges else (),
        kinds=graph.kinds,
        field=field,
    )


def quantized(
    spec: Spec,
    variables: Variables,
    inputs: Mapping[str, np.ndarray],
    c: config.Quantize,
    *,
    field: str = "rules",
    mixed: Mapping[str, quant.Rule] | None = None,
) -> tuple[Spec, Variables, list[str]]:
    """A model with its BatchNorm folded, its rules chosen and its ranges found.

    Args:
      spec: of the float model.
      variables: of it.
      inputs: raw, to calibrate on, in batches of 64; the last one shares some with that before.
      c: how.
      field: that has the rules, for messages.
      mixed: the rules, instead of those of `c`.

    Returns:
      The model, its variables and the names of all its layers.
    """
    folded = spec.folded(variables)
    forward = spec.answers(spec.module(Compute(folded=True)))
    see, n = jax.jit(spec.inputs.see_all), tree.rows(inputs)
    size = min(_BATCH, n)
    starts = [*range(0, n - size, size), n - size]
    batches = [
        see({name: array[start : start + size] for name, array in inputs.items()})
        for start in starts
    ]
    graph = quant.graph_of(forward, folded, batches[0])
    names = [layer.name for layer in graph.layers]
    rules = mixed
    if rules is None:
        rules = _chosen(c, graph, field)
    ranges = quant.calibrate(
        forward, folded, batches, rules=rules, method=c.calibration, percentile=c.percentile
    )
    found = {**folded, quant.RANGES: ranges} if ranges else folded
    return dataclasses.replace(spec, rules=rules), found, names
