"""At how many positions a model answers of each example, held against what its label asks for."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from kdjax.artifacts.model import Spec
from kdjax.config.views import Views
from kdjax.contexts.context import Context
from kdjax.data import Dataset
from kdjax.types import BadInput, length_of

_BATCH = 32
"""Examples of which positions are counted at once; changes none."""


def check_labels_fit(context: Context, spec: Spec, dataset: Dataset, views: Views) -> None:
    """Refuses a label that the model has too few positions for, as a transcript longer than the frames.

    Args:
      context: of the stage.
      spec: of the model.
      dataset: that it learns from; only labels that are shown count.
      views: that it sees of it, of which some may be shorter than their examples.

    Raises:
      BadInput: that is so, the line names the first such example; or examples differ in length, and the
        encoder does not say which positions are no padding.
    """
    rows = np.flatnonzero(dataset.shown)
    least = spec.task.least_positions(dataset.labels[rows])
    if least is None or not len(rows):
        return
    field = f"{context.path}.encoder"
    if dataset.lengths and not _has_mask(spec.text()):
        raise BadInput(
            field,
            f"{spec.encoder.title} gives no mask, and {', '.join(dataset.lengths)} of {dataset.name} "
            "differ in length",
            "give (features, mask), or examples of one length",
        )
    seen = {**views.shortest(dataset.lengths, spec.inputs)}
    have = positions(spec, dataset, seen)[rows]
    short = np.flatnonzero(least > have)
    if short.size:
        at = short[0]
        more = f", and {len(short) - 1} more are so" if len(short) > 1 else ""
        whole = all(seen[name][rows[at]] == own[rows[at]] for name, own in dataset.lengths.items())
        view = "it" if whole else "its shortest view"
        raise BadInput(
            field,
            f"example {rows[at]} of {dataset.name} (id {dataset.ids[rows[at]]}) has a label "
            f"{spec.task.label_text(dataset.labels[rows[at]])} that takes {least[at]} positions, and the "
            f"model answers at {have[at]} of {view}{more}",
            "give an encoder of shorter steps, or leave the example out"
            + ("" if whole else f", or set the speed of {views.recipe} nearer to 1"),
        )


def positions(
    spec: Spec, dataset: Dataset, lengths: Mapping[str, Int[np.ndarray, " n"]]
) -> Int[np.ndarray, " n"]:
    """At how many positions a model answers of each example: those of its mask, or else all of them.

    Examples of one length are asked about once. The mask is found from lengths alone: nothing is read.

    Args:
      spec: of the model.
      dataset: the examples.
      lengths: that they have as the model sees them, by ragged field.
    """
    if not lengths or not _has_mask(spec.text()):
        return np.full(len(dataset), spec.positions)
    names = [*lengths]
    every = np.stack([lengths[name] for name in names], axis=1)
    alike, which = np.unique(every, axis=0, return_inverse=True)
    short = -len(alike) % _BATCH
    whole = np.concatenate([alike, np.repeat(alike[:1], short, axis=0)])
    count = _count(spec.text(), tuple(names))
    found = [np.asarray(count(part)) for part in whole.reshape(-1, _BATCH, len(names))]
    return np.concatenate(found)[which.reshape(-1)]


@functools.lru_cache(maxsize=64)
def _has_mask(text: str) -> bool:
    """Of the model of a text: students that differ in their losses alone are asked once."""
    spec = Spec.described(text)
    outputs = jax.eval_shape(
        lambda variables: spec.module().apply(variables, spec.blank(), train=False), spec.abstract()
    )
    return "mask" in outputs


@functools.lru_cache(maxsize=64)
def _count(text: str, names: tuple[str, ...]) -> Callable[[Int[np.ndarray, "b fields"]], Array]:
    """From the lengths of the fields of these names, likewise."""
    spec = Spec.described(text)
    return jax.jit(lambda lengths: _mask(spec, names, lengths).sum(-1))


def _mask(spec: Spec, names: Sequence[str], lengths: Int[Array, "b fields"]) -> Array:
    """Which positions are no padding; all else that the model computes is for nothing, and left out."""
    batch = {}
    for name, field in spec.inputs.fields.items():
        batch[name] = jnp.ones((len(lengths), *field.shape), field.dtype)
    for i, name in enumerate(names):
        inside = jnp.arange(batch[name].shape[1])[None] < lengths[:, i, None]
        inside = inside.reshape(*inside.shape, *(1,) * (batch[name].ndim - 2))
        batch[name] = batch[name] * inside.astype(batch[name].dtype)
        batch[length_of(name)] = lengths[:, i].astype(batch[length_of(name)].dtype)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), spec.abstract())
    outputs: Any = spec.module().apply(zeros, spec.inputs.see_all(batch), train=False)
    return outputs["mask"]
