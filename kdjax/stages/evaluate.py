"""What the features of a frozen encoder are worth: neighbours, a linear classifier, how they lie."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Key, Shaped

from kdjax import config, data, evaluate, keys, report, tasks, tree, views
from kdjax.artifacts.model import encoder_of
from kdjax.checks.expected import check_views
from kdjax.contexts.context import Context, as_many
from kdjax.data.sources import SECOND, TOKENS
from kdjax.inputs import Inputs
from kdjax.measuring import asking, measure
from kdjax.report.headline import PIXELS, TFIDF
from kdjax.types import BadInput, Variables

_USUAL_VOTES, _USUAL_PAIRS = 200, 1000


class Asked(NamedTuple):
    """Where features come from: a frozen encoder, or the inputs themselves.

    Attributes:
      name: what the report calls it.
      inputs: that it is given.
      width: of its features.
      embed: `(variables, inputs) -> features`.
      variables: of the encoder; none of the raw inputs.
      counted: inputs whose integers are counted instead, see `kdjax.evaluate.tfidf`.
    """

    name: str
    inputs: Inputs
    width: int
    embed: Callable[[Variables, Mapping[str, Array]], Array]
    variables: Variables
    counted: tuple[str, ...] = ()


def asked(context: Context, c: config.Evaluate, *, field: str) -> Callable[[], Asked]:
    """What reads what is to be judged.

    Raises:
      BadInput: the stage left no encoder; the line names `field`.
    """
    if c.model is None:
        inputs = context.splits.inputs
        counted = inputs.symbols
        return lambda: Asked(
            TFIDF if counted else PIXELS,
            inputs,
            sum(math.prod(part.seen.shape) for part in inputs.parts),
            lambda variables, given: jnp.concatenate(
                [x.reshape(len(x), -1) for x in given.values()], axis=1
            ),
            {"params": {}},
            counted,
        )
    spec, read = encoder_of(context.inputs[c.model], field=field)
    name = spec.encoder.title + (" shrunk" if spec.widths else "")
    return lambda: Asked(name, spec.inputs, spec.features, spec.embed, read())


class Features(NamedTuple):
    """What a frozen encoder says of examples without augmentation.

    Attributes:
      train: of the labelled training examples.
      test: of all test examples.
    """

    train: Float32[np.ndarray, "n dim"] | evaluate.Bags
    test: Float32[np.ndarray, "m dim"] | evaluate.Bags


def run(context: Context, c: config.Evaluate) -> Mapping[str, Any]:
    """Asks the encoder once for every labelled and every test example, and judges it."""
    path = f"config.stages.{context.name}"
    dataset = context.splits.partly_labelled(context.seed, c, path=path)
    labels, shown = dataset.labels, np.flatnonzero(dataset.shown)
    _check(context, c, labels[shown], path)
    of = asked(context, c, field=f"{path}.model")()
    said: dict[str, Any] = {"labels": len(shown), "rows": []}
    if c.knn is not None or c.linear is not None:
        said |= _with_labels(context, c, of, shown, labels[shown])
    if c.pairs is not None:
        za, zb = _pairs(context, c, c.pairs, of)
        said["pairs"] = {
            "examples": len(za),
            "alignment": float(evaluate.alignment(za, zb)),
            "uniformity": float(evaluate.uniformity(za)),
        }
    return said


def check(context: Context, c: config.Evaluate) -> Mapping[str, Any]:
    """Refuses what cannot be judged by these labels and examples, or has no encoder."""
    path = context.path
    dataset = context.splits.partly_labelled(context.seed, c, path=path)
    _check(context, c, dataset.labels[dataset.shown], path)
    own = context.splits.inputs
    if c.model is not None:
        own = encoder_of(context.inputs[c.model], field=f"{path}.model")[0].inputs
    if c.pairs is not None:
        inputs = own.sized(c.pairs.views.size)
        check_views(c.pairs.views, context, inputs, path=f"{path}.pairs.views")
    return {}


def _with_labels(
    context: Context,
    c: config.Evaluate,
    of: Asked,
    shown: Int[np.ndarray, " m"],
    y: Int[np.ndarray, " m"],
) -> dict[str, Any]:
    """The rows of `knn` and `linear`, and how the latter was chosen."""
    features, costs = _features(context, c, of, shown), _costs(context, of)
    x = features.train
    said, rows = {}, []
    classes = tasks.of(context.splits.train).classes_of_example(f"{context.path}.knn")
    if c.knn is not None:
        k = as_many(c.knn.k, usual=_USUAL_VOTES, there=len(shown))
        shares = evaluate.knn(
            x, y, features.test, classes=classes, k=k, temperature=c.knn.temperature
        )
        notes = f"vote of the {k} nearest of {len(shown)} labelled examples"
        rows.append(_row(context, "knn", shares, notes, costs))
    if c.linear is not None:
        occurring, places = np.unique(y, return_inverse=True)
        probe = evaluate.linear_probe(
            x,
            places,
            classes=len(occurring),
            seed=context.seed,
            strengths=c.linear.strengths,
            validation=c.linear.validation,
            max_iterations=c.linear.max_iterations,
            standardize=not of.counted,
        )
        notes = f"linear on the features of {len(shown)} labelled examples"
        found = probe.logits(features.test)
        logits = np.full(
            (len(found), classes), -np.inf, found.dtype
        )  # of a class that never occurs
        logits[:, occurring] = found
        rows.append(_row(context, "linear", logits, notes, costs))
        said["linear"] = {
            "strength": probe.strength,
            "strengths": list(c.linear.strengths),
            "validation_accuracy": list(probe.validation_accuracy),
        }
    return {**said, "rows": [dataclasses.asdict(row) for row in rows]}


def _seen(of: Asked):
    """`(variables, raw inputs) -> features` without augmentation."""

    def features(variables: Variables, batch: Mapping[str, Array]) -> Float[Array, "batch dim"]:
        return of.embed(variables, of.inputs.see_all(batch)).astype(jnp.float32)

    return features


def _features(
    context: Context, c: config.Evaluate, of: Asked, shown: Int[np.ndarray, " m"]
) -> Features:
    """Kept in the stage's folder, or asked for and kept there."""
    labelled = context.splits.train.select(shown)
    if of.counted:
        return Features(
            *evaluate.tfidf(*(_sequences(own, of) for own in (labelled, context.splits.test)))
        )
    ask, batch = context.parallel.spread(_seen(of), of.variables), context.parallel.shared(c.batch)

    def ours(name: str, dataset: data.Dataset) -> Float32[np.ndarray, "n dim"]:
        return asking.kept(
            context.folder / f"features_{name}.npy",
            (len(dataset), of.width),
            lambda: asking.over_alike(ask, dataset, context.splits.widths(dataset), batch=batch),
        )

    return Features(ours("train", labelled), ours("test", context.splits.test))


def _sequences(dataset: data.Dataset, of: Asked) -> dict[str, evaluate.Sequences]:
    """The integers of all examples that are counted."""
    inputs, found = dataset.inputs(), {}
    for name in of.counted:
        field, values = dataset.fields[name], inputs[name]
        lengths = dataset.lengths.get(name, np.full(len(values), values.shape[1]))
        second = inputs.get(SECOND) if name == TOKENS else None
        found[name] = evaluate.Sequences(values, lengths, field.frame, second)
    return found


def _costs(context: Context, of: Asked) -> dict[str, Any]:
    """The encoder's own part of a row. It has no file of its own, and nothing of it is timed."""
    example = {name: field.batch(1) for name, field in of.inputs.fields.items()}
    abstract = jax.eval_shape(lambda: of.variables)
    return {
        "model": of.name,
        "params": tree.size(of.variables["params"]),
        "nonzero_params": tree.nonzero(of.variables["params"]),
        "flops": None if of.counted else evaluate.flops(_seen(of), abstract, example),
        "bytes_on_disk": None,
        "latency_ms_p50": None,
        "latency_ms_p95": None,
        "runtime": None,
        "threads": None,
        "batch": None,
    }


def _row(
    context: Context,
    what: str,
    scores: Float[np.ndarray, "n classes"],
    notes: str,
    costs: Mapping[str, Any],
) -> report.Row:
    """Of one way of using the features."""
    worth = measure.scored(context, tasks.of(context.splits.test), scores)
    return report.Row(stage=f"{context.name}/{what}", seeds=1, notes=notes, **costs, **worth)


def _check(
    context: Context, c: config.Evaluate, labels: Shaped[np.ndarray, "m ..."], path: str
) -> None:
    """Refuses, before the encoder is asked, what cannot be done with these labels and examples."""
    for name, wanted in (("knn", c.knn), ("linear", c.linear)):
        if wanted is not None:
            tasks.of(context.splits.train).classes_of_example(f"{path}.{name}")
    if c.model is None and context.splits.inputs.symbols:
        for name, wanted in (("knn", c.knn), ("pairs", c.pairs)):
            if wanted is not None:
                raise BadInput(
                    f"{path}.{name}",
                    "what is counted has a linear classifier alone, and no model is given",
                    f"set {path}.{name}=None, or name a model",
                )
    if c.knn is not None and (c.knn.k or 0) > len(labels):
        raise BadInput(
            f"{path}.knn.k",
            f"{c.knn.k} of {len(labels)} labelled examples cannot vote",
            f"give 1 to {len(labels)}, or more labels",
        )
    if c.linear is not None:
        _check_linear(context, c.linear, labels, f"{path}.linear")
    n = len(context.splits.test)
    if c.pairs is not None and (pairs := _paired(c.pairs, n)) not in range(2, n + 1):
        raise BadInput(
            f"{path}.pairs.examples",
            f"{pairs} is not between 2 and the {n} test examples",
        )


def _check_linear(
    context: Context, c: config.Linear, labels: Int[np.ndarray, " m"], path: str
) -> None:
    occurring, counts = np.unique(labels, return_counts=True)
    if len(occurring) < 2:
        raise BadInput(
            path, f"labels of {len(occurring)} class tell nothing apart", "give more labels"
        )
    few = int(occurring[counts.argmin()])
    if counts.min() < 2 and len(c.strengths) > 1:
        raise BadInput(
            f"{path}.strengths",
            f"class {few} has one labelled example, so that none is left to choose a strength by",
            "give one strength, or more labels",
        )


def _paired(c: config.Pairs, n: int) -> int:
    """How many of `n` test examples are seen twice."""
    return as_many(c.examples, usual=_USUAL_PAIRS, there=n)


def _pairs(
    context: Context,
    c: config.Evaluate,
    pairs: config.Pairs,
    of: Asked,
) -> tuple[Float[Array, "examples dim"], Float[Array, "examples dim"]]:
    """Features of views 0 and 1 of test examples that the seed draws."""
    dataset = context.splits.test
    random = np.random.Philox(key=[context.seed, 1]).random_raw(len(dataset))
    drawn = np.argsort(random, kind="stable")[: _paired(pairs, len(dataset))]
    inputs = of.inputs.sized(pairs.views.size)
    recipe = pairs.views.recipe_for(inputs, examples=context.splits.train)

    def ask(held: tuple[Variables, Key[Array, ""]], batch: Mapping[str, Array]):
        variables, key = held
        stream = keys.stream(key, context.name)

        def view(number: int):
            numbers = jnp.full(len(batch["id"]), number, jnp.uint32)
            inputs = views.batch_views(recipe, stream, numbers, batch["id"], batch["inputs"])
            return of.embed(variables, inputs).astype(jnp.float32)

        return view(0), view(1)

    def read(places: Int[np.ndarray, " b"]) -> dict[str, Any]:
        return {"id": dataset.ids[drawn[places]], "inputs": dataset.read(drawn[places])}

    spread = context.parallel.spread(ask, (of.variables, context.key))
    za, zb = asking.over(spread, read, len(drawn), batch=context.parallel.shared(c.batch))
    return jnp.asarray(za), jnp.asarray(zb)
