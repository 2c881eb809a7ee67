"""What rules do with tensors: other orders of axes, heads apart or together, biases absorbed."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from kdjax.weights.rules import Rule, Shape, Transform, one

same = one(lambda x: x, lambda x: x)
"""As it is: biases, scales, statistics."""

conv = one(lambda x: _moved(x, (2, 3, 1, 0)), lambda x: _moved(x, (3, 2, 0, 1)))
"""Kernels of convolutions, also depthwise and grouped: [out, in, h, w] to [h, w, in, out]."""

dense = one(lambda x: _moved(x, (1, 0)), lambda x: _moved(x, (1, 0)))
"""Kernels of dense layers: [out, in] to [in, out]."""

dense_of_conv = one(
    lambda x: _moved(_pointwise(x), (1, 0)), lambda x: _moved(x, (1, 0))[:, :, None, None]
)
"""A 1x1 convolution that is a dense layer here: [out, in, 1, 1] to [in, out]."""


def _moved(x: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    if x.ndim != len(axes):
        raise ValueError(f"{x.ndim} axes")
    return np.transpose(x, axes)


def _pointwise(x: np.ndarray) -> np.ndarray:
    if x.shape[2:] != (1, 1):
        raise ValueError("no 1x1 convolution")
    return x[:, :, 0, 0]


def reshaped(ours: Sequence[int], theirs: Sequence[int]) -> Transform:
    """The same numbers in the same order in other shapes, of which one side may be -1.

    Args:
      ours: `[-1]` of a class token that is [1, 1, dim] there, say.
      theirs: `[1, 1, -1]`.
    """
    return one(lambda x: x.reshape(ours), lambda x: x.reshape(theirs))


def heads_in() -> Transform:
    """Kernels of queries, keys or values: [heads * dim, in] to [in, heads, dim]."""

    def into(found: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        return [_moved(found[0], (1, 0)).reshape(-1, *shapes[0][1:])]

    return Transform(into, lambda found: [_moved(found[0].reshape(found[0].shape[0], -1), (1, 0))])


def heads_in_bias() -> Transform:
    """Their biases: [heads * dim] to [heads, dim]."""
    return Transform(
        lambda found, shapes: [found[0].reshape(shapes[0])], lambda found: [found[0].reshape(-1)]
    )


def heads_out() -> Transform:
    """Kernels of what comes after the heads: [out, heads * dim] to [heads, dim, out]."""

    def into(found: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        return [_moved(found[0], (1, 0)).reshape(*shapes[0][:-1], found[0].shape[0])]

    return Transform(into, lambda found: [_moved(found[0].reshape(-1, found[0].shape[-1]), (1, 0))])


def fused(how: Transform) -> Transform:
    """One tensor that has several after one another along its first axis, each of which is `how`.

    Queries, keys and values in one: `Rule("attn.qkv.weight", (query, key, value), fused(heads_in()))`.
    Each has as many rows as its variable has numbers there.
    """

    def into(found: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        rows = [how.out([_hollow(shape)])[0].shape[0] for shape in shapes]
        if sum(rows) != found[0].shape[0]:
            raise ValueError(f"{found[0].shape[0]} rows for {rows}")
        ends = np.cumsum(rows)[:-1]
        parts = np.split(found[0], ends)
        return [how.into([part], [shape])[0] for part, shape in zip(parts, shapes, strict=True)]

    def out(found: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.concatenate([how.out([one])[0] for one in found])]

    return Transform(into, out)


def _hollow(shape: Shape) -> np.ndarray:
    """An array of this shape that takes no memory, for its shape alone."""
    return np.broadcast_to(np.float32(0), shape)


def without_bias() -> Transform:
    """A convolution's bias that the running mean of the BatchNorm behind it takes up.

    BatchNorm subtracts the batch's mean, bias and all: in training the bias is nothing, and in
    evaluation `mean - bias` in the place of the mean gives the same. Of the tensors `(bias, mean)` the
    variable is the difference; what is written has a bias of zero.
    """
    return Transform(
        lambda found, shapes: [found[1] - found[0]],
        lambda found: [np.zeros_like(found[0]), found[0]],
    )


def low_rank() -> Transform:
    """A table [rows, width] as the nearest product of two, [rows, rank] and [rank, width].

    It is the truncated singular value decomposition. The rows of the second one are orthonormal. What is
    written is the product.

    Reference: Eckart and Young 1936, https://doi.org/10.1007/BF02288367.
    """

    def into(found: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        table, rank = found[0], shapes[0][-1]
        if table.ndim != 2 or not 0 < rank <= table.shape[1] or rank != shapes[1][0]:
            raise ValueError(f"{list(table.shape)} in rank {rank}")
        if not any(table.strides):  # asked for its shape alone
            return [_hollow((len(table), rank)), _hollow((rank, table.shape[1]))]
        whole = table.astype(np.float64)
        _, vectors = np.linalg.eigh(whole.T @ whole)
        second = vectors[:, ::-1][:, :rank].T
        return [(whole @ second.T).astype(table.dtype), second.astype(table.dtype)]

    return Transform(into, lambda found: [found[0] @ found[1]])


def principal(
    table: Float[np.ndarray, "rows wide"], width: int
) -> Float[np.ndarray, "rows {width}"]:
    """The rows in their first `width` principal components, about their mean.

    Reference: Pearson 1901, https://doi.org/10.1080/14786440109462720; of embeddings that a smaller model
    begins with, Tulkens and van Dongen 2024, https://github.com/MinishLab/model2vec.
    """
    centred = table.astype(np.float64) - table.mean(0, dtype=np.float64)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return (centred @ vectors[:, ::-1][:, :width]).astype(table.dtype)


def norm(theirs: str, ours: str) -> tuple[Rule, ...]:
    """The rules of a BatchNorm.

    Args:
      theirs: its name: `layer{s+1}.{b}.bn1`.
      ours: its path below the collection: `stage{s}_block{b}/first/norm`.
    """
    return (
        Rule(f"{theirs}.weight", f"params/{ours}/scale", same),
        Rule(f"{theirs}.bias", f"params/{ours}/bias", same),
        Rule(f"{theirs}.running_mean", f"batch_stats/{ours}/mean", same),
        Rule(f"{theirs}.running_var", f"batch_stats/{ours}/var", same),
    )


def layer_norm(theirs: str, ours: str) -> tuple[Rule, ...]:
    """The rules of a LayerNorm; see `norm`."""
    return (
        Rule(f"{theirs}.weight", f"params/{ours}/scale", same),
        Rule(f"{theirs}.bias", f"params/{ours}/bias", same),
    )


def linear(theirs: str, ours: str, how: Transform = dense) -> tuple[Rule, ...]:
    """The rules of a dense layer with its bias; of a convolution with `how=conv`."""
    return (
        Rule(f"{theirs}.weight", f"params/{ours}/kernel", how),
        Rule(f"{theirs}.bias", f"params/{ours}/bias", same),
    )


def conv_norm(their_conv: str, their_norm: str, ours: str) -> tuple[Rule, ...]:
    """The rules of a `kdjax.models.ConvNorm`: a convolution without bias and its BatchNorm."""
    return (
        Rule(f"{their_conv}.weight", f"params/{ours}/conv/kernel", conv),
        *norm(their_norm, f"{ours}/norm"),
    )


def head(theirs: str) -> tuple[Rule, ...]:
    """The rules of a linear classifier."""
    return Rule(f"{theirs}.weight", "kernel", dense), Rule(f"{theirs}.bias", "bias", same)
