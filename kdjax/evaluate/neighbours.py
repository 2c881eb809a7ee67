"""Classification by the nearest labelled neighbours, without training anything."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Integer

from kdjax.evaluate.classification import check_classes, logits_over
from kdjax.losses.rows import products, unit
from kdjax.types import BadInput


@functools.partial(jax.jit, static_argnames=("classes", "k"))
def _votes(
    queries: Float[Array, "batch dim"],
    features: Float[Array, "n dim"],
    label: Int[Array, " n"],
    temperature: Float[Array, ""],
    *,
    classes: int,
    k: int,
) -> Float[Array, "batch {classes}"]:
    cosine, nearest = jax.lax.top_k(products(unit(queries), features), k)
    # A softmax: the weights relative to their sum, which no temperature makes overflow.
    weight = jax.nn.softmax(cosine / temperature)

    def add_up(voter, weight):
        return jnp.zeros(classes).at[voter].add(weight)

    return jax.vmap(add_up)(label[nearest], weight)


def knn(
    features: Float[Array | np.ndarray, "n dim"],
    label: Integer[Array | np.ndarray, " n"],
    queries: Float[Array | np.ndarray, "queries dim"],
    *,
    classes: int,
    k: int = 200,
    temperature: float = 0.07,
    batch: int = 256,
) -> Float32[np.ndarray, "queries classes"]:
    """Shares of the weighted vote of the `k` nearest labelled examples; each row sums to 1.

    A neighbour counts `exp(cosine / temperature)` for its class. The prediction is the largest share;
    `np.log` of them are logits. Where two neighbours are equally near, the earlier one counts first.

    Args:
      features: of labelled examples, frozen, any scale: rows are normalised here, in float32.
      label: their classes, `0 <= label < classes`.
      queries: features of the examples to classify.
      classes: number of classes.
      k: how many neighbours vote, from 1 to `n`.
      temperature: divisor of the cosines, > 0.
      batch: how many queries are compared at a time: similarities take `4 * batch * n` bytes.

    Raises:
      BadInput: `k` is not one of 1 to `n`.
      ValueError: a label is out of range, the numbers of features and labels differ, or there are no
        queries.

    Reference: Wu et al. 2018, https://arxiv.org/abs/1805.01978, sec. 3.4.
    """
    check_classes("label", np.asarray(label), classes=classes)
    if len(features) != len(label):
        raise ValueError(f"{len(features)} features but {len(label)} labels")
    if not 1 <= k <= len(features):
        raise BadInput("k", f"{k} of {len(features)} examples cannot vote", "give 1 to all of them")
    bank, label = unit(jnp.asarray(features)), jnp.asarray(label, jnp.int32)

    def vote(some):
        return _votes(some, bank, label, jnp.float32(temperature), classes=classes, k=k)

    return logits_over(vote, np.asarray(queries), batch=batch)
