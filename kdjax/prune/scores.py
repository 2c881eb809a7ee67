"""Scores: what a mask ranks the entries of one tensor by; higher is kept.

Each is float32, of the shape of the tensor. Map them over a tree with `jax.tree.map`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def magnitude(w: Float[Array, "..."]) -> Float[Array, "..."]:
    """`|w|`. Summed over a channel or a block it is the L1 norm.

    Reference: Han et al. 2015, https://arxiv.org/abs/1506.02626, sec. 3; Li et al. 2016,
    https://arxiv.org/abs/1608.08710, sec. 3.1, for filters.
    """
    return jnp.abs(w.astype(jnp.float32))


def squared(w: Float[Array, "..."]) -> Float[Array, "..."]:
    """`w^2`. It ranks single weights as `magnitude` does, and sums of them by their L2 norm.

    Magnitudes below about 1e-19 have a square of zero in float32, where they tie.
    """
    return jnp.square(w.astype(jnp.float32))


def saliency(w: Float[Array, "..."], g: Float[Array, "..."]) -> Float[Array, "..."]:
    """`|w g|`: how far the loss moves when `w` becomes zero, to first order.

    Args:
      w: weights.
      g: gradient of the loss in `w`, averaged over examples before it comes here. SNIP divides by
        the sum over the whole network, which changes no ranking.

    Reference: Lee et al. 2018, https://arxiv.org/abs/1810.02340, sec. 4.1.
    """
    return jnp.abs(w.astype(jnp.float32) * g.astype(jnp.float32))


def taylor(w: Float[Array, "..."], g: Float[Array, "..."]) -> Float[Array, "..."]:
    """`(w g)^2`: the square of `saliency`, which it ranks single weights as.

    Sums over a channel differ: this is the paper's sum over the channel of single contributions,
    not the square of their sum. The paper averages the score over the batches of an epoch; average
    what this returns, batch by batch, rather than the gradients.

    Args:
      w: weights.
      g: gradient of the loss in `w`.

    Reference: Molchanov et al. 2019, https://arxiv.org/abs/1906.10771, eq. 8.
    """
    return jnp.square(w.astype(jnp.float32) * g.astype(jnp.float32))


def random(key: Key[Array, ""], w: Float[Array, "..."]) -> Float[Array, "..."]:
    """Uniform in [0, 1), whatever `w` is: the yardstick of every other score.

    One key gives two tensors of a shape the same scores: fold a number of the tensor into it.
    """
    return jax.random.uniform(key, w.shape, jnp.float32)


def normalized(score: Float[Array, "..."]) -> Float[Array, "..."]:
    """`score / (|score|_2 + 1e-8)`: makes the tensors of one global ranking comparable.

    The norm is that of the whole tensor, as jaxpruner divides the magnitudes of each layer.
    """
    score = score.astype(jnp.float32)
    return score / (jnp.sqrt(jnp.sum(jnp.square(score))) + 1e-8)
