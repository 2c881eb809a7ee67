"""A model in integers: its rules chosen, its ranges found, held against the float one."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import config, models, quant
from kdjax.models import Compute
from kdjax.stages import measure, pruning
from kdjax.stages.artifact import save_variables
from kdjax.stages.context import Context
from kdjax.stages.model import load, logits
from kdjax.stages.parity import compare
from kdjax.types import BadInput

_BATCH = 64


def run(context: Context, c: config.Quantize) -> Mapping[str, Any]:
    """Folds, calibrates on training images, and compares with the float model on the test images."""
    path = f"config.stages.{context.name}"
    images = context.sample(c.calibration_examples, field=f"{path}.calibration_examples")
    artifact = context.inputs[c.model]
    spec, variables = load(artifact, field=f"{path}.model")
    if spec.rules:
        raise BadInput(f"{path}.model: {c.model} is quantized already; give the float one")
    live = measure.live_logits(context, spec, variables)
    folded = models.fold(jax.tree.map(jnp.asarray, variables))
    module = spec.module(Compute(folded=True))

    def forward(variables, images):
        return logits(module, variables, images)

    seen = jax.jit(spec.preprocess)
    size = min(_BATCH, len(images))
    whole = len(images) - len(images) % size  # batches of one shape
    batches = [seen(images[i : i + size]) for i in range(0, whole, size)]
    graph = quant.graph_of(forward, folded, batches[0])
    names = [layer.name for layer in graph.layers]
    edges = graph.edges if c.float_edges else ()
    wanted = {layers.pattern: layers.rule for layers in c.rules}
    rules = quant.choose(wanted, names, float_layers=edges, field=f"{path}.rules")
    ranges = quant.calibrate(
        forward, folded, batches, rules=rules, method=c.calibration, percentile=c.percentile
    )
    spec = dataclasses.replace(spec, rules=rules)
    found = {**folded, quant.RANGES: ranges} if ranges else folded

    predict = jax.jit(spec.predict)
    _, parity = compare(
        context.folder,
        lambda images: predict(found, images),
        context.splits.test_images,
        live,
        runtime=f"xla:{jax.default_backend()}",
        agreement=c.agreement,
    )
    parity = dataclasses.replace(parity, artifact=context.name)
    kept = save_variables(context.folder, found)
    pruned = pruning.carried(artifact, folded["params"])
    row = measure.live_row(
        context, spec, found, folder=context.folder, sparsity=pruning.share(pruned)
    )
    return {
        "variables": kept,
        "model": spec.plain(),
        **pruned,
        "quantized": {
            "layers": {name: dataclasses.asdict(rule) for name, rule in rules.items()},
            "float_layers": [name for name in names if name not in rules],
            "calibration_examples": whole,
        },
        "rows": [dataclasses.asdict(row)],
        "parity": [dataclasses.asdict(parity)],
    }
