"""What the features of a frozen encoder are worth: neighbours, a linear classifier, how they lie."""

import collections
import dataclasses
import hashlib
import io
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Float32, Int, Key, Shaped

from kdjax import config, data, evaluate, files, keys, report, tasks, tree, views
from kdjax.artifacts.model import encoder_of
from kdjax.checks.expected import check_views
from kdjax.contexts.context import Context
from kdjax.inputs import Inputs
from kdjax.measuring import measure
from kdjax.report.headline import PIXELS, TFIDF
from kdjax.types import BadInput, PyTree, Variables

_AHEAD = 2
"""Batches that the device is given before what it says of the first one is waited for."""

_DIGEST_BYTES = 32


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
        shares = evaluate.knn(
            x, y, features.test, classes=classes, k=c.knn.k, temperature=c.knn.temperature
        )
        notes = f"vote of the {c.knn.k} nearest of {len(shown)} labelled examples"
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
        return kept(
            context.folder / f"features_{name}.npy",
            (len(dataset), of.width),
            lambda: over(ask, dataset.read, len(dataset), batch=batch),
        )

    return Features(ours("train", labelled), ours("test", context.splits.test))


def _sequences(dataset: data.Dataset, of: Asked) -> dict[str, evaluate.Sequences]:
    """The integers of all examples that are counted."""
    inputs, found = dataset.inputs(), {}
    for name in of.counted:
        field, values = dataset.fields[name], inputs[name]
        lengths = dataset.lengths.get(name, np.full(len(values), values.shape[1]))
        found[name] = evaluate.Sequences(values, lengths, field.frame)
    return found


def over(
    ask: Callable[[Any], Any],
    read: Callable[[Int[np.ndarray, " b"]], Any],
    n: int,
    *,
    batch: int,
) -> PyTree:
    """What `ask` says of `read(rows)` of all `n` rows, on the host, in batches of one size.

    The next batches are read while the device computes.
    """
    waiting: collections.deque[tuple[int, Any]] = collections.deque()
    parts: list[Any] = []

    def wait() -> None:
        here, found = waiting.popleft()
        parts.append(jax.tree.map(lambda x: np.array(x[:here]), jax.device_get(found)))

    for start in range(0, n, batch):
        rows = np.arange(start, min(start + batch, n))
        filled = np.pad(rows, (0, batch - len(rows)), mode="edge")
        waiting.append((len(rows), ask(read(filled))))
        if len(waiting) > _AHEAD:
            wait()
    while waiting:
        wait()
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def kept(
    path: epath.Path, shape: tuple[int, int], make: Callable[[], Float32[np.ndarray, "n dim"]]
) -> Float32[np.ndarray, "n dim"]:
    """What is in the file, or what `make` gives, which is then moved there whole.

    The name of the stage's folder has the fingerprint of its encoder and its data, so no others are
    ever found. What is no array of this shape, or not what was written, is made anew.

    Raises:
      ValueError: the features are not finite.
    """
    if (found := _read_kept(path)) is not None and (found.shape, found.dtype) == (
        shape,
        np.float32,
    ):
        return found
    made = make()
    if not np.isfinite(made).all():
        raise ValueError(
            f"{path}: not all features are finite; look at the training of the encoder"
        )
    buffer = io.BytesIO()
    np.save(buffer, made, allow_pickle=False)
    content = buffer.getvalue()
    files.write(path, content + hashlib.sha256(content).digest())
    return made


def _read_kept(path: epath.Path) -> np.ndarray | None:
    """The array in a file that ends with its own SHA-256, which `np.load` does not look at."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    content, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        return None
    return np.load(io.BytesIO(content), allow_pickle=False)


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
    if c.knn is not None and c.knn.k > len(labels):
        raise BadInput(
            f"{path}.knn.k",
            f"{c.knn.k} of {len(labels)} labelled examples cannot vote",
            f"give 1 to {len(labels)}, or more labels",
        )
    if c.linear is not None:
        _check_linear(context, c.linear, labels, f"{path}.linear")
    n = len(context.splits.test)
    if c.pairs is not None and c.pairs.examples > n:
        raise BadInput(
            f"{path}.pairs.examples",
            f"{c.pairs.examples} is not between 2 and the {n} test examples",
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


def _pairs(
    context: Context,
    c: config.Evaluate,
    pairs: config.Pairs,
    of: Asked,
) -> tuple[Float[Array, "examples dim"], Float[Array, "examples dim"]]:
    """Features of views 0 and 1 of test examples that the seed draws."""
    dataset = context.splits.test
    random = np.random.Philox(key=[context.seed, 1]).random_raw(len(dataset))
    drawn = np.argsort(random, kind="stable")[: pairs.examples]
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
    za, zb = over(spread, read, len(drawn), batch=context.parallel.shared(c.batch))
    return jnp.asarray(za), jnp.asarray(zb)
