"""BatchNorm statistics anew, for parameters that have changed since they were found."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from kdjax import tree
from kdjax.types import BadInput, Batch, PyTree, Variables


def recalibrate(
    forward: Callable[[Variables, Batch], PyTree], variables: Variables, batches: Iterable[Batch]
) -> Variables:
    """The variables with every running mean and variance found anew, parameters as they are.

    Pruning and quantization shift what a layer sees, while its running statistics remember the old
    weights. Here each batch goes through as in training, and its own statistic is read out of the
    running one, `momentum * old + (1 - momentum) * batch`, whatever the momentum of the layer is.
    Batches are combined by the law of total variance, weighted by their rows, in float64:
    `mean = E[mean_i]`, `var = E[var_i] + Var[mean_i]`. For a first layer that is the statistic of
    all rows at once; for a later one it is that of what the layer sees while those before it
    normalise each batch by itself, as they do in training. So give batches of the size of training;
    their order does not matter.

    A statistic is a pair `mean`, `var` in one node of `batch_stats`, as `nn.BatchNorm` keeps it.
    What the forward pass returns as it was given it (a layer that is not run, or that is run with
    its running statistics) is left alone, and so are leaves of other names.

    Args:
      forward: `(variables, batch) -> model_state` in training mode, such as
        `lambda v, batch: model.apply(v, batch["inputs"], train=True, mutable=["batch_stats"])[1]`.
        It is compiled here, on its own: the model's `axis_name` is None. Give it uncompiled, or
        what it leaves alone cannot be told.
      variables: `{"params": ..., "batch_stats": ...}`; without statistics they are returned as
        they are.
      batches: one or more, each with a leading axis of rows.

    Raises:
      BadInput: there is no batch, or a momentum is 1: no batch leaves a trace then.

    Reference: Wu and Johnson 2021, https://arxiv.org/abs/2105.07576, sec. 3, "PreciseBN".
    """
    if not _pairs(tree.named_leaves(variables.get("batch_stats", {}))):
        return variables
    read = jax.jit(lambda variables, batch: read_statistics(forward, variables, batch))

    def readings() -> Iterator[tuple[int, Readings]]:
        for batch in batches:
            yield len(jax.tree.leaves(batch)[0]), jax.device_get(read(variables, batch))

    return with_statistics(variables, readings())


Readings: TypeAlias = Mapping[str, tuple[Array | np.ndarray, Array | np.ndarray]]
"""By name, a statistic after a batch that was zero before it, and its slope in what was before."""


def read_statistics(
    forward: Callable[[Variables, Batch], PyTree], variables: Variables, batch: Batch
) -> Readings:
    """What a batch says of the statistics of `variables`: see `recalibrate`. To be compiled.

    From zeros a statistic becomes `(1 - momentum) * batch`; its slope in what was before is
    `momentum`. What `forward` hands through, which it is given uncompiled, is not among them.

    Args:
      forward: as for `recalibrate`, but for its `axis_name`, which may be that of a map around this.
      variables: with statistics, or there is nothing to read.
      batch: of that forward pass.
    """
    stats = variables.get("batch_stats", {})
    named, structure = tree.named_leaves(stats), jax.tree.structure(stats)

    def after(live: dict[str, Array]) -> dict[str, Array]:
        """The statistics after the batch that were `live` before it; the others are as they are."""
        given = jax.tree.unflatten(structure, [live.get(name, named[name]) for name in named])
        found = forward({**variables, "batch_stats": given}, batch)["batch_stats"]
        found = tree.named_leaves(found)
        return {name: found[name] for name in live}

    pairs = _run(after, {n: named[n] for pair in _pairs(named) for n in pair})
    live = {name: jnp.zeros_like(named[name]) for pair in pairs for name in pair}
    found, slopes = jax.jvp(after, (live,), (jax.tree.map(jnp.ones_like, live),))
    return {name: (found[name], slopes[name]) for name in live}


def with_statistics(
    variables: Variables, readings: Iterable[tuple[int, Readings]]
) -> dict[str, PyTree]:
    """`variables` with the statistics of all batches together, combined as `recalibrate` says.

    Args:
      variables: that were read.
      readings: rows and `read_statistics` of each batch, on the host.

    Raises:
      BadInput: as `recalibrate`.
    """
    stats = variables["batch_stats"]
    named, structure = tree.named_leaves(stats), jax.tree.structure(stats)
    rows, sums = 0, {}
    for n, read in readings:
        rows += n
        for pair in _pairs(read):
            first, second = sums.get(pair, (0.0, 0.0))
            mean, var = (
                read[name][0] / (1.0 - _momentum(name, np.asarray(read[name][1]))) for name in pair
            )
            sums[pair] = (first + n * mean, second + n * (var + mean**2))
    if not rows:
        raise BadInput("recalibrate.batches", "there is none", "give one or more")
    for (mean, var), (first, second) in sums.items():
        named[mean] = jax.device_put(np.asarray(first / rows, named[mean].dtype))
        spread = np.maximum(second / rows - (first / rows) ** 2, 0.0)
        named[var] = jax.device_put(np.asarray(spread, named[var].dtype))
    return {**variables, "batch_stats": jax.tree.unflatten(structure, [*named.values()])}


def _pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Names of the mean and of the variance that belong together."""
    nodes = [name.removesuffix("mean") for name in names if name.rpartition("/")[2] == "mean"]
    return [(f"{node}mean", f"{node}var") for node in nodes if f"{node}var" in names]


def _run(
    after: Callable[[dict[str, Array]], PyTree], live: dict[str, Array]
) -> list[tuple[str, str]]:
    """The pairs that a forward pass does not hand through."""
    jaxpr = jax.make_jaxpr(after)(live).jaxpr
    passed = {
        name for name, out in zip(sorted(live), jaxpr.outvars, strict=True) if out in jaxpr.invars
    }
    return [pair for pair in _pairs(live) if not passed.issuperset(pair)]


def _momentum(name: str, slope: np.ndarray) -> np.float64:
    """The momentum, as its shortest decimal: 0.99 is not in float32, and 1 - 0.99 amplifies that."""
    momentum = np.float64(str(np.float32(slope.flat[0])))
    if not (0 <= momentum < 1 and (slope == slope.flat[0]).all()):
        raise BadInput(
            "recalibrate.variables",
            f"{name!r} is not moved by a batch, as its momentum is {momentum}",
            "give its BatchNorm a momentum below 1, or forward uncompiled",
        )
    return momentum
