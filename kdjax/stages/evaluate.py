"""What the features of a frozen encoder are worth: neighbours, a linear classifier, how they lie."""

import collections
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Float32, Int, Key, UInt8

from kdjax import config, evaluate, keys, report, tree, views
from kdjax.data import Dataset
from kdjax.stages import build, measure
from kdjax.stages.context import Context
from kdjax.stages.model import EncoderSpec, encoder_of
from kdjax.types import BadInput, PyTree, Variables

_AHEAD = 2
"""Batches that the device is given before what it says of the first one is waited for."""


def run(context: Context, c: config.Evaluate) -> Mapping[str, Any]:
    """Asks the encoder once for every training and test image, and judges what it says."""
    path = f"config.stages.{context.name}"
    if c.knn is None and c.linear is None and c.pairs is None:
        raise BadInput(f"{path}: there is nothing to do; give one of knn, linear and pairs")
    shown = context.splits.shown(context.seed, c, path=path)
    drawn = _drawn(context, c.pairs, path)
    _check_labels(context, c, shown, path)
    artifact = context.inputs[c.model]
    spec, read = encoder_of(artifact, field=f"{path}.model")
    encoder, d = Encoder(spec), context.run.data
    variables, said, rows = read(), {"labels": len(shown)}, []

    if c.knn is not None or c.linear is not None:
        plain = build.recipe(config.EvalViews(recipe="eval"), d, size=spec.size)

        def raw_features(variables: Variables, images: UInt8[Array, "batch ..."]):
            return encoder.features(variables, jax.vmap(lambda i: plain(context.key, i))(images))

        features = context.parallel.spread(raw_features, variables)
        batch = _share(context, c.batch)
        train, test = (
            kept(
                context.folder / f"features_{name}.npy",
                (len(dataset), spec.features),
                lambda dataset=dataset: over(features, dataset.read, len(dataset), batch=batch),
            )
            for name, dataset in (("train", context.splits.train), ("test", context.splits.test))
        )
        label, classes = context.splits.train.labels[shown], context.splits.train.classes
        image = jax.ShapeDtypeStruct((1, *spec.image_shape), np.uint8)
        abstract = jax.eval_shape(lambda: variables)
        costs = {
            "model": build.encoder_name(spec.encoder) + (" shrunk" if spec.widths else ""),
            "params": tree.size(variables["params"]),
            "nonzero_params": tree.nonzero(variables["params"]),
            # It has no file of its own: what its variables are, uncompressed.
            "bytes_on_disk": sum(leaf.nbytes for leaf in jax.tree.leaves(variables)),
            "flops": evaluate.flops(raw_features, abstract, image),
        }
        if c.knn is not None:
            k, temperature = c.knn.k, c.knn.temperature
            shares = evaluate.knn(
                train[shown], label, test, classes=classes, k=k, temperature=temperature
            )
            notes = f"{k} nearest of {len(shown)} labelled examples vote on frozen features"
            rows.append(_row(context, "knn", shares, notes, costs))
        if c.linear is not None:
            probe = evaluate.linear_probe(
                train[shown],
                label,
                classes=classes,
                seed=context.seed,
                strengths=c.linear.strengths,
                validation=c.linear.validation,
                max_iterations=c.linear.max_iterations,
            )
            notes = f"linear on frozen features, {len(shown)} labels, L2 {probe.strength:g}"
            rows.append(_row(context, "linear", probe.logits(test), notes, costs))
            said["linear"] = {
                "strength": probe.strength,
                "strengths": list(c.linear.strengths),
                "validation_accuracy": list(probe.validation_accuracy),
            }
    if c.pairs is not None:
        za, zb = map(jnp.asarray, _pairs(context, c, c.pairs, encoder, variables, drawn))
        said["pairs"] = {
            "examples": len(drawn),
            "alignment": float(evaluate.alignment(za, zb)),
            "uniformity": float(evaluate.uniformity(za)),
        }
    return {**said, "rows": [dataclasses.asdict(row) for row in rows]}


@dataclasses.dataclass(frozen=True)
class Encoder:
    """An encoder alone, run with frozen statistics."""

    spec: EncoderSpec

    def features(
        self, variables: Variables, images: Float[Array, "batch size size channel"]
    ) -> Float[Array, "batch dim"]:
        """Of views as the encoder sees them."""
        module = dataclasses.replace(self.spec, projector=()).module()
        wrapped = {name: {"encoder": part} for name, part in variables.items()}
        found: Any = module.apply(wrapped, images, train=False)
        return found["features"].astype(jnp.float32)


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
    waiting: collections.deque[Any] = collections.deque()
    parts: list[Any] = []

    def wait() -> None:
        here, found = waiting.popleft()
        parts.append(jax.tree.map(lambda x: np.array(x)[:here], found))

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
    """What is in the file, or what `make` gives, which then is there, whole: it is moved into place.

    The stage's folder names its encoder and its data, so nothing else is ever found there; what is no
    array of this shape, as a full disk may leave one, is made anew.

    Raises:
      ValueError: the features are not finite.
    """
    if path.exists():
        try:
            with path.open("rb") as file:
                found = np.load(file, allow_pickle=False)
        except (ValueError, EOFError):
            found = None
        if found is not None and (found.shape, found.dtype) == (shape, np.float32):
            return found
    made = make()
    if not np.isfinite(made).all():
        raise ValueError(
            f"{path}: the encoder gives features that are not finite; look at its training"
        )
    beside = path.parent / (path.name + ".tmp")
    with beside.open("wb") as file:
        np.save(file, made, allow_pickle=False)
    beside.replace(path)
    return made


def _share(context: Context, batch: int) -> int:
    """The next size that the devices of this process can share evenly."""
    here = context.parallel.devices // jax.process_count()
    if batch < 1:
        raise BadInput(f"config.stages.{context.name}.batch: {batch} is not positive")
    return -(-batch // here) * here


def _row(
    context: Context,
    what: str,
    scores: Float[np.ndarray, "n classes"],
    notes: str,
    costs: Mapping[str, Any],
) -> report.Row:
    """Of one way of using the features; nothing of it was timed."""
    return report.Row(
        stage=f"{context.name}/{what}",
        **costs,
        **measure.scored(context, scores),
        seeds=1,
        latency_ms_p50=None,
        latency_ms_p95=None,
        runtime=None,
        threads=None,
        batch=None,
        notes=notes,
    )


def _check_labels(
    context: Context, c: config.Evaluate, shown: Int[np.ndarray, " m"], path: str
) -> None:
    """Refuses what the labelled examples do not suffice for, before the encoder is asked."""
    dataset = context.splits.train
    if c.knn is not None and not 1 <= c.knn.k <= len(shown):
        raise BadInput(
            f"{path}.knn.k: {c.knn.k} of {len(shown)} labelled examples cannot vote; give 1 to "
            f"{len(shown)}, or more labels"
        )
    if c.knn is not None and c.knn.temperature <= 0:
        raise BadInput(f"{path}.knn.temperature: {c.knn.temperature} is not above zero")
    if c.linear is None:
        return
    if not c.linear.strengths or min(c.linear.strengths) <= 0:
        raise BadInput(f"{path}.linear.strengths: give at least one, each above zero")
    if not 0 < c.linear.validation < 1:
        raise BadInput(f"{path}.linear.validation: {c.linear.validation} is not in (0, 1)")
    counts = np.bincount(dataset.labels[shown], minlength=dataset.classes)
    few = int(counts.argmin())
    if not counts[few]:
        raise BadInput(f"{path}.linear: class {few} has no labelled example; give more labels")
    if counts[few] < 2 and len(c.linear.strengths) > 1:
        raise BadInput(
            f"{path}.linear.strengths: class {few} has one labelled example, so none to choose a "
            "strength by; give one strength, or more labels"
        )


def _drawn(context: Context, c: config.Pairs | None, path: str) -> Int[np.ndarray, " examples"]:
    """Rows of the test examples that pairs are drawn of."""
    if c is None:
        return np.arange(0)
    n = len(context.splits.test)
    if not 2 <= c.examples <= n:
        raise BadInput(
            f"{path}.pairs.examples: {c.examples} is not between 2 and the {n} test examples"
        )
    random = np.random.Philox(key=[context.seed, 1]).random_raw(n)
    return np.sort(np.argsort(random, kind="stable")[: c.examples])


def _pairs(
    context: Context,
    c: config.Evaluate,
    pairs: config.Pairs,
    encoder: Encoder,
    variables: Variables,
    drawn: Int[np.ndarray, " examples"],
) -> tuple[Float32[np.ndarray, "examples dim"], Float32[np.ndarray, "examples dim"]]:
    """Features of views 0 and 1 of test examples."""
    size = pairs.views.size or encoder.spec.size
    recipe = build.recipe(pairs.views, context.run.data, size=size)
    dataset: Dataset = context.splits.test

    def ask(held: tuple[Variables, Key[Array, ""]], batch: Mapping[str, Array]):
        variables, key = held
        stream = keys.stream(key, context.name)

        def view(number: int):
            numbers = jnp.full(len(batch["id"]), number, jnp.uint32)
            image = views.batch_views(recipe, stream, numbers, batch["id"], batch["image"])
            return encoder.features(variables, image)

        return view(0), view(1)

    def read(places: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        return {"id": dataset.ids[drawn[places]], "image": dataset.read(drawn[places])}

    spread = context.parallel.spread(ask, (variables, context.key))
    return over(spread, read, len(drawn), batch=_share(context, c.batch))
