"""How much each group of units and each layer's numbers matter, to allocate by."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax import config, parse, quant, shrink, tasks, teacher, train, tree
from kdjax.artifacts.artifact import CACHE
from kdjax.artifacts.model import Spec, load
from kdjax.config.logit_losses.plain import PLAIN_KD
from kdjax.contexts.context import Context
from kdjax.fitting.pruning import UNIT_SCORES, unit_scores
from kdjax.loss_deltas import loss_deltas
from kdjax.models import Compute, with_fast_convolutions
from kdjax.teacher_targets.source import Source, weights_of
from kdjax.types import BadInput, Batch, Variables, under

_BATCH = 128
_USUAL = 512  # examples that are looked at

Term = Callable[[Float[Array, "batch ..."], Batch], train.Losses]
"""`(answers, batch) -> losses` of each example, or of its positions."""


class State(NamedTuple):
    """What is changed: the units that stay, and the numbers of the layers."""

    keep: shrink.Keep
    numbers: quant.Choice


def run(context: Context, c: config.Sensitivity) -> Mapping[str, Any]:
    """Masks one group or quantizes one layer at a time, and says what it does to the model."""
    path = f"config.stages.{context.name}"
    _check(context, c)
    spec, variables = load(context.inputs[c.model], field=f"{path}.model")
    variables = jax.device_put(variables)
    batches, term = _batches(context, c, spec, path)
    choices, ranges = _choices(spec, variables, batches, c, path)

    # In integers the order of sums is that of the file: what is rounded lies on the same side.
    fast = context.parallel.fast
    predict = with_fast_convolutions(spec.predict) if fast else spec.predict

    def says(state: State, batch: Batch) -> Float[Array, "batch ..."]:
        masks = shrink.unit_masks(groups, state.keep, variables["params"])
        masked = {**variables, "params": tree.apply_masks(masks, variables["params"])}
        if not c.numbers:
            return predict(masked, batch["inputs"])
        return choices.run(
            spec.folded(masked), batch["inputs"], choice=state.numbers, ranges=ranges
        )

    example = jax.tree.map(lambda x: x[:1], batches[0]["inputs"])
    groups = shrink.groups_of(spec.analysed(), variables, example)
    scores = unit_scores(c.score, groups, variables["params"])
    whole = State(shrink.whole_of(groups), choices.choice({}))
    if c.against == "predictions":
        ask = jax.jit(says)
        batches = [{**batch, "whole": ask(whole, batch)} for batch in batches]
    with under(path):
        units = shrink.fallen(groups, scores, c.sparsities) if c.sparsities else {}
        states: dict[tuple[str, float | str], State] = {
            at: whole._replace(keep=keep) for at, keep in units.items()
        }
        for layer, rules in choices.candidates.items():
            for i, rule in enumerate(rules):
                numbers = choices.choice({layer: i + 1})
                states[layer, rule.name] = whole._replace(numbers=numbers)
        rises = loss_deltas(
            lambda state, batch: _mean(term(says(state, batch), batch)), whole, states, batches
        )
    curves = (
        shrink.curves({at: rises[at] for at in units}, groups, scores, c.sparsities)
        if c.sparsities
        else {}
    )
    return {
        "sensitivity": {
            "model": c.model,
            "against": c.against,
            "loss": spec.task.losses_of[c.against],
            "examples": sum(tree.rows(batch["inputs"]) for batch in batches),
            "curves": {
                name: {str(sparsity): increase for sparsity, increase in curve.items()}
                for name, curve in curves.items()
            },
            "groups": shrink.described(groups, {}),
            # What is not finite is no choice.
            "layers": {
                layer: {
                    rule.name: rises[layer, rule.name]
                    for rule in rules
                    if math.isfinite(rises[layer, rule.name])
                }
                for layer, rules in choices.candidates.items()
            },
            "numbers": {
                rule.name: parse.plain(rule)
                for rules in choices.candidates.values()
                for rule in rules
            },
        }
    }


def check(context: Context, c: config.Sensitivity) -> Mapping[str, Any]:
    """Refuses what cannot be measured; gives what the manifest will say that others read."""
    path, spec = context.path, _check(context, c)
    if c.against == "labels":
        context.labelled_sample(_examples(context, c), field=f"{path}.examples")
    if c.cache is not None:
        _source(context, c.cache, spec, path)
    curves: dict[str, dict[str, float]] = {}
    if c.sparsities:
        groups = shrink.groups_of(spec.analysed(), spec.abstract(), spec.blank())
        with under(path):
            params = spec.abstract()["params"]
            jax.eval_shape(lambda params: UNIT_SCORES[c.score](groups, params), params)
        curves = {group.name: dict.fromkeys(map(str, c.sparsities), 0.0) for group in groups}
    candidates = _candidates(c, spec.layers().kinds if c.numbers else {}, path)
    return {
        "sensitivity": {
            "model": c.model,
            "curves": curves,
            "layers": {n: {rule.name: 0.0 for rule in rules} for n, rules in candidates.items()},
            "numbers": {
                rule.name: parse.plain(rule) for rules in candidates.values() for rule in rules
            },
        }
    }


def _examples(context: Context, c: config.Sensitivity) -> int:
    """How many training examples are looked at."""
    return context.sample_size(c.examples, usual=_USUAL)


def _check(context: Context, c: config.Sensitivity) -> Spec:
    """The model that is looked at, if it can be."""
    path = context.path
    context.check_sample(_examples(context, c), field=f"{path}.examples")
    spec = Spec.of(context.inputs[c.model], field=f"{path}.model")
    if spec.rules:
        raise BadInput(f"{path}.model", f"{c.model} is quantized already", "give the float one")
    return spec


def _batches(
    context: Context, c: config.Sensitivity, spec: Spec, path: str
) -> tuple[list[dict[str, Any]], Term]:
    """Inputs as the model is given them and what a loss needs beside them, and the loss.

    Raises:
      BadInput: there are no labels, or no teacher, to hold the model against.
    """
    field, labels = f"{path}.examples", None
    examples = _examples(context, c)
    if c.against == "labels":
        rows, labels = context.labelled_sample(examples, field=field)
    else:
        rows = context.sample_rows(examples, field=field)
    parts = _parts(len(rows))
    if c.cache is not None:
        return _taught(context, c.cache, spec, [rows[part] for part in parts], path)
    read, see = context.splits.train.read, jax.jit(spec.inputs.see_all)
    batches: list[dict[str, Any]] = [{"inputs": see(read(rows[part]))} for part in parts]
    task = spec.task
    if labels is None:
        return batches, lambda answers, batch: task.distance(answers, batch["whole"])
    for batch, part in zip(batches, parts, strict=True):
        batch["label"] = jnp.asarray(labels[part])
    return batches, lambda answers, batch: task.supervised({task.output: answers}, batch)


def _mean(losses: train.Losses) -> Float[Array, ""]:
    """Over what counts."""
    if not isinstance(losses, tuple):
        return losses.mean()
    losses, rows = losses
    rows = rows.astype(jnp.float32)
    return (rows * losses).sum() / jnp.maximum(rows.sum(), 1e-6)


def _parts(n: int) -> list[slice]:
    """Batches of one size, 128 at most: all of `n` examples, but for fewer than there are batches."""
    count = -(-n // _BATCH)
    size = n // count
    return [slice(i * size, (i + 1) * size) for i in range(count)]


def _source(context: Context, name: str, spec: Spec, path: str) -> Source:
    """What a cache is made of whose teachers say what a model of this task can be held against."""
    if not isinstance(context.run.stages[name], config.Cache):
        raise BadInput(f"{path}.cache", f"{name} is not a stage of kind cache")
    source = Source.of(
        context.run,
        name,
        seed=context.run.stages[name].seed_of(context.seed),
        inputs=context.inputs,
        dataset=context.splits.train,
    )
    if source.of_features:
        raise BadInput(
            f"{path}.cache",
            f"{name} keeps the features of encoders, and not what teachers answer",
        )
    if fault := spec.task.misfit(source.signal, name, positions=spec.positions):
        raise BadInput(f"{path}.cache", fault)
    return source


def _taught(
    context: Context, name: str, spec: Spec, parts: list[Any], path: str
) -> tuple[list[dict[str, Any]], Term]:
    """Views of a cache with what its teachers say of them."""
    dataset, source = context.splits.train, _source(context, name, spec, path)
    cached, folder = source.c, context.inputs[name].folder
    opened = teacher.TeacherCache.open(folder / CACHE, expected=source.binding(), owner=folder)
    signal = source.signal
    apart = isinstance(signal, teacher.Apart)
    of = signal.of if isinstance(signal, teacher.Apart | teacher.Positions) else signal
    temperature = of.temperatures[0] if isinstance(of, teacher.TopK) else 1.0
    taught = spec.task.taught(
        signal,
        tasks.Softmaxes(temperature, PLAIN_KD),
        teacher_weights=weights_of(cached, None, f"{path}.cache") if apart else None,
    )
    see, read = jax.jit(source.view(spec.inputs)), opened.reader(dataset.ids)
    batches = []
    for part in parts:
        numbers = (part % cached.views).astype("uint32")
        inputs, _ = see(source.read(part, numbers), jax.random.key(source.seed))
        said = {kind: jnp.asarray(value) for kind, value in read(part, numbers).items()}
        batches.append({"inputs": inputs, **said})
    return batches, lambda answers, batch: taught({spec.output(): answers}, batch)


def _choices(
    spec: Spec,
    variables: Variables,
    batches: list[dict[str, Any]],
    c: config.Sensitivity,
    path: str,
) -> tuple[quant.Choices, dict[str, Any]]:
    """The folded model with the numbers that each of its layers may have, and their ranges.

    Raises:
      BadInput: a pattern is none, or matches no layer, or two give a layer the same numbers.
    """
    forward = spec.answers(spec.module(Compute(folded=True)))
    folded, seen = spec.folded(variables), [batch["inputs"] for batch in batches]
    candidates = _candidates(c, quant.graph_of(forward, folded, seen[0]).kinds, path)
    choices = quant.Choices(forward, folded, seen[0], candidates=candidates)
    ranged = any(rule.activations for rule in choices.rules.values())
    ranges = quant.calibrate(forward, folded, seen, rules=choices.rules) if ranged else {}
    return choices, ranges


def _candidates(
    c: config.Sensitivity, kinds: Mapping[str, str], path: str
) -> dict[str, list[quant.Rule]]:
    """The numbers that each layer may have."""
    names = list(kinds)
    field = f"{path}.numbers"
    candidates: dict[str, list[quant.Rule]] = {}
    for layers in c.numbers:
        assert layers.rule is not None  # float is what a layer is held against
        chosen = quant.choose({layers.pattern: layers.rule}, names, kinds=kinds, field=field)
        for name, rule in chosen.items():
            rules = candidates.setdefault(name, [])
            if rule not in rules:
                rules.append(rule)
            elif rule == layers.rule:  # and not one of which a lookup takes the weights alone
                raise BadInput(field, f"{rule.name} is given twice to {name}")
    return {name: candidates[name] for name in names if name in candidates}
