"""How the embeddings of unlabelled examples lie on the unit sphere.

Both are means of what they are given, to be compared at one size of the set.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.rows import products, unit

# Pairs are looked at for so many rows at a time: the memory is this times the rows, not their square.
_ROWS = 256


def alignment(
    za: Float[Array, "n dim"], zb: Float[Array, "n dim"], *, alpha: float = 2.0
) -> Float[Array, ""]:
    """Mean of `|za - zb|^alpha` over pairs of views, in [0, 2^alpha]; 0 where all pairs agree.

    Args:
      za: embeddings of view a, any scale: rows are normalised here, in float32.
      zb: embeddings of view b of the same examples.
      alpha: exponent of the distance, > 0.

    Reference: Wang & Isola 2020, https://arxiv.org/abs/2005.10242, sec. 4.1.
    """
    squared = jnp.square(unit(za) - unit(zb)).sum(-1)
    return (squared ** (0.5 * alpha)).mean()


def uniformity(z: Float[Array, "n dim"], *, t: float = 2.0) -> Float[Array, ""]:
    """Log of the mean of `exp(-t |z_i - z_j|^2)` over pairs of examples; lower is more even.

    Between `-4 t` and 0, which is where all embeddings are one point; `-2 t` where all are at right
    angles. Pairs are counted once and no example with itself, as in the authors' code.

    Args:
      z: embeddings, any scale: rows are normalised here, in float32.
      t: of the Gaussian kernel, > 0.

    Raises:
      ValueError: there are fewer than two examples, so no pair.

    Reference: Wang & Isola 2020, https://arxiv.org/abs/2005.10242, sec. 4.1.
    """
    n = len(z)
    if n < 2:
        raise ValueError(f"{n} examples make no pair")
    z = unit(z)
    length = jnp.square(z).sum(-1)  # 1, or 0 for a row of zeros

    def log_sum(i):
        squared = length[i] + length - 2.0 * products(z[i][None, :], z)[0]
        return jax.nn.logsumexp(jnp.where(jnp.arange(n) == i, -jnp.inf, -t * squared))

    each = jax.lax.map(log_sum, jnp.arange(n), batch_size=_ROWS)
    # Each pair twice, over n (n - 1); the logarithms apart, as the product may not fit an int32.
    return jax.nn.logsumexp(each) - jnp.log(float(n)) - jnp.log(float(n - 1))
