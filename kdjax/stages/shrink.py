"""A model with fewer units: scored, taken away, its statistics found anew, and measured."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from kdjax import config, keys, shrink, train, tree
from kdjax.artifacts.artifact import save_variables
from kdjax.artifacts.model import Spec, load
from kdjax.contexts.context import Context
from kdjax.fitting.pruning import UNIT_SCORES, unit_scores
from kdjax.measuring import measure
from kdjax.measuring.parity import StageFailed
from kdjax.models import with_fast_convolutions
from kdjax.prune import allocation
from kdjax.shrink import Groups
from kdjax.stages.export import TIMED_IN, file_latency
from kdjax.types import BadInput, PyTree, Variables, under

_BATCH = 128
_USUAL = 1024  # examples that statistics are found anew on
_EXAMPLE = 8  # examples that the model is traced with, and that show what is constant

MOST_UNITS = 0.95
"""The largest share of the units that goes, where a budget is to be met."""


def run(context: Context, c: config.Shrink) -> Mapping[str, Any]:
    """Takes units away, holds the result against the masked model, and leaves it."""
    path = f"config.stages.{context.name}"
    artifact = context.inputs[c.model]
    spec, variables = load(artifact, field=f"{path}.model")
    variables = jax.device_put(variables)
    _check(context, c)
    most, examples = len(context.splits.train), context.sample_size(c.examples, usual=_USUAL)
    inputs = context.sample(min(max(examples, _BATCH), most), field=f"{path}.examples")
    model, example = spec.analysed(), jax.jit(spec.inputs.see_all)(_first(inputs, _EXAMPLE))
    groups = shrink.groups_of(model, variables, example)
    movable = _movable(groups, c, path)
    keep = _choice(context, c, movable, _scores(context, c, movable, spec, variables, inputs), path)

    def smaller(kept: Mapping[str, Array]) -> tuple[Spec, Variables]:
        found = shrink.take_away(model, groups, kept, variables, example)
        return dataclasses.replace(spec, widths=found.widths), found.variables

    if c.budget is None:
        kept = keep(c.sparsity)
    else:
        cost, limit = _cost(context, c.budget, path)
        with under(path, {"prune.budget": "budget"}):
            kept = allocation.meet(
                keep, lambda kept: cost(*smaller(kept)), limit, most=MOST_UNITS, tolerance=0.002
            )
    masks, masked = jax.jit(functools.partial(_masked, movable))(kept, variables["params"])
    found = shrink.shrink(model, masks, variables, example, groups=groups)
    small = dataclasses.replace(spec, widths=found.widths)
    difference = _difference(
        spec,
        {**variables, "params": masked},
        small,
        found.variables,
        inputs,
    )
    if not difference <= c.tolerance:
        raise StageFailed(
            f"{context.name}: the shrunk model differs from the masked one by {difference:.3g} of "
            f"the largest output, more than {c.tolerance:g}"
        )
    left = found.variables
    if examples:
        left = recalibrated(small, left, _first(inputs, examples), fast=context.parallel.fast)
    fingerprint = save_variables(context.folder, left, alone=True)
    row = measure.live_row(context, small, left, folder=context.folder)
    return {
        "variables": fingerprint,
        "model": small.plain(),
        "rows": [dataclasses.asdict(row)],
        "shrunk": {
            "model": c.model,
            "difference": difference,
            "groups": shrink.described(groups, found.kept),
            "frozen": {f"{name}[{axis}]": why for (name, axis), why in groups.frozen.items()},
        },
    }


def _masked(groups: Groups, kept: Mapping[str, Array], params: PyTree) -> tuple[PyTree, PyTree]:
    """The masks of the units that are not kept, and the parameters with zeros there."""
    masks = shrink.unit_masks(groups, kept, params)
    return masks, tree.apply_masks(masks, params)


def check(context: Context, c: config.Shrink) -> Mapping[str, Any]:
    """Refuses what cannot be shrunk so; gives what the manifest will say, but for the widths."""
    path, spec = context.path, _check(context, c)
    groups = shrink.groups_of(spec.analysed(), spec.abstract(), spec.blank())
    movable = _movable(groups, c, path)
    if c.score in UNIT_SCORES:
        with under(path):
            params = spec.abstract()["params"]
            jax.eval_shape(lambda params: UNIT_SCORES[c.score](movable, params), params)
    return {"model": spec.plain()}


def _check(context: Context, c: config.Shrink) -> Spec:
    """The model that is shrunk, if the config fits it and the data."""
    path = context.path
    spec = Spec.of(context.inputs[c.model], field=f"{path}.model")
    with under(f"{path}.model"):
        spec.analysed()  # it is quantized
    if not 0 <= c.sparsity < 1:
        raise BadInput(f"{path}.sparsity", f"{c.sparsity} is not in [0, 1)")
    if c.multiple < 1:
        raise BadInput(f"{path}.multiple", f"{c.multiple} is not positive")
    if examples := context.sample_size(c.examples, usual=_USUAL):
        context.check_sample(examples, field=f"{path}.examples")
    if c.budget is not None:
        if c.sparsity:
            raise BadInput(f"{path}.budget", "give one of sparsity and budget")
        (name, limit) = _budget(c.budget, path)
        if limit <= 0:
            raise BadInput(f"{path}.budget.{name}", f"{limit:g} is not above zero")
        if name == "latency_ms":
            TIMED_IN.require()
    if c.sensitivity is not None:
        said = context.inputs[c.sensitivity].manifest.get("sensitivity", {})
        if said.get("model") != c.model:
            raise BadInput(
                f"{path}.sensitivity",
                f"{c.sensitivity} is not a stage of kind sensitivity of {c.model}",
            )
        if not said["curves"]:
            raise BadInput(f"{path}.sensitivity", f"{c.sensitivity} has no sparsities to go by")
    return spec


def _movable(groups: Groups, c: config.Shrink, path: str) -> Groups:
    """The groups that may lose units."""
    movable = groups.without(_frozen(groups, c.frozen, path))
    if not len(movable):
        raise BadInput(path, f"{c.model} has no group of units that can lose any")
    return movable


def _frozen(groups: Groups, pattern: str | None, path: str) -> dict[str, str]:
    if pattern is None:
        return {}
    try:
        found = {g.name: "the config says so" for g in groups if re.fullmatch(pattern, g.name)}
    except re.error as error:
        raise BadInput(f"{path}.frozen", f"{pattern!r} is no regular expression: {error}") from None
    if not found:
        raise BadInput(
            f"{path}.frozen",
            f"{pattern!r} matches no group",
            f"the first is {next(iter(groups.sizes))!r}",
        )
    return found


def _scores(
    context: Context,
    c: config.Shrink,
    groups: Groups,
    spec: Spec,
    variables: Variables,
    inputs: Mapping[str, np.ndarray],
) -> shrink.Scores:
    match c.score:
        case "activity":
            look = jax.jit(
                lambda variables, batch: shrink.activations(
                    spec.analysed(), groups.contractions, variables, spec.inputs.see_all(batch)
                )
            )
            return shrink.activity(groups, look(variables, _first(inputs, _BATCH)))
        case "random":
            return shrink.random(groups, keys.stream(context.key, f"{context.name}/scores"))
        case name:
            return unit_scores(name, groups, variables["params"])


def _choice(
    context: Context, c: config.Shrink, groups: Groups, scores: shrink.Scores, path: str
) -> Callable[[float], dict[str, Array]]:
    """`sparsity -> units that stay`."""
    if c.sensitivity is not None:
        said = context.inputs[c.sensitivity].manifest
        curves = {
            name: {float(sparsity): increase for sparsity, increase in curve.items()}
            for name, curve in said["sensitivity"]["curves"].items()
            if name in groups.sizes
        }
        each = jax.jit(functools.partial(shrink.keep_each, groups, multiple=c.multiple))
        return lambda sparsity: each(
            scores, allocation.by_sensitivity(curves, groups.sizes, sparsity)
        )
    keep = shrink.keep_best if c.ranking == "global" else shrink.keep_each
    return jax.jit(functools.partial(keep, groups, scores, multiple=c.multiple))


def _cost(
    context: Context, budget: config.Budget, path: str
) -> tuple[Callable[[Spec, Variables], float], float]:
    """What a model costs, and what it may."""
    name, limit = _budget(budget, path)

    costs: dict[str, Callable[[Spec, Variables], float]] = {
        "params": lambda spec, variables: tree.size(variables["params"]),
        "flops": lambda spec, variables: spec.flops(),
        "bytes": lambda spec, variables: 4 * tree.size(variables["params"]),
        "latency_ms": lambda spec, variables: file_latency(context, spec, variables),
    }
    return costs[name], limit


def _budget(budget: config.Budget, path: str) -> tuple[str, float]:
    """What is limited, and to what."""
    given = {name: value for name, value in vars(budget).items() if value is not None}
    if len(given) != 1:
        raise BadInput(f"{path}.budget", f"give one of {', '.join(vars(budget))}")
    ((name, limit),) = given.items()
    return name, float(limit)


def _difference(spec: Spec, masked: Variables, small: Spec, left: Variables, inputs) -> float:
    """Largest difference of an output, relative to the largest one."""
    want, have = (
        jax.jit(s.predict)(v, _first(inputs, _BATCH)) for s, v in ((spec, masked), (small, left))
    )
    want, have = jax.device_get((want, have))
    return float(np.abs(want - have).max() / np.maximum(np.abs(want).max(), np.float32(1e-30)))


def recalibrated(
    spec: Spec, variables: Variables, inputs: Mapping[str, np.ndarray], *, fast: bool
) -> Variables:
    """The variables with the statistics of BatchNorm found anew, in batches of one size.

    `fast` is as for `Spec.compiled`.
    """
    module: Any = spec.module()
    n, see = tree.rows(inputs), jax.jit(spec.inputs.see_all)
    batch = min(_BATCH, n)
    parts = (
        {name: array[start : start + batch] for name, array in inputs.items()}
        for start in range(0, n // batch * batch, batch)
    )
    rngs = {"dropout": jax.random.key(0)}  # of a model that has any, as in training

    def forward(v: Variables, batch: Mapping[str, Any]) -> PyTree:
        return module.apply(v, batch["inputs"], train=True, mutable=["batch_stats"], rngs=rngs)[1]

    return train.recalibrate(
        with_fast_convolutions(forward) if fast else forward,
        variables,
        ({"inputs": see(part)} for part in parts),
    )


def _first(inputs: Mapping[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    """The first `n` examples."""
    return {name: array[:n] for name, array in inputs.items()}
