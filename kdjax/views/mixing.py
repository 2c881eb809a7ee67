"""Views of two examples in one: mixup and CutMix.

Each is `f(key, view_a, view_b, *, alpha) -> (mixed, weight)` on one example and its partner, as they
come out of a recipe. `weight` is what is left of `a`: the target is `weight * a + (1 - weight) * b`
too. `batch_mixed` runs one over a batch. The rules of `kdjax.views.fixed` hold: the same bytes in
every program. That rules out `jax.random.beta`, whose rejection loop compares rounded floats; the
weights come from a table of quantiles, by random bits.
"""

import functools
import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from etils import epy
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Key, UInt32

from kdjax import keys
from kdjax.types import BadInput, PyTree
from kdjax.views import fixed
from kdjax.views.geometry import Image

with epy.lazy_imports():  # slow to import, and few views are mixed
    from scipy import special

Mix: TypeAlias = Callable[..., tuple[Array, Array]]
"""`(key, view, view of the partner) -> (mixed, weight)`, hyper-parameters bound."""

# Folded into an example's key for what mixing draws. Recipes split that key, which is folding in
# 0, 1, 2, ...: a number far from those keeps mixing from drawing what a recipe has drawn.
MIX = keys.stream_id("mix")

_QUANTILES = 4096
# Boxes are drawn on a grid that does not depend on the size of the view: an axis has 2**14 places.
_PLACES = 2**14


@functools.cache
def _quantiles(alpha: float) -> Float32[np.ndarray, "4096"]:
    """The quantiles of Beta(alpha, alpha) at the 4096 midpoints, in multiples of 1 / 8192.

    Twice as fine as the midpoints, since at `alpha = 1` they are the quantiles: on a grid of 1 / 4096
    each would be a tie, and its rounding up to the last bit of scipy.
    """
    low = special.betaincinv(alpha, alpha, (np.arange(_QUANTILES // 2) + 0.5) / _QUANTILES)
    low = np.round(2 * _QUANTILES * low) / (2 * _QUANTILES)
    return np.concatenate([low, 1.0 - low[::-1]]).astype(np.float32)


@functools.cache
def _half_sides(alpha: float) -> Int32[np.ndarray, "4096"]:
    """Half the side of a box of area `1 - quantile`, in places."""
    area = 1.0 - _quantiles(alpha).astype(np.float64)
    return np.round(np.sqrt(area) * (_PLACES // 2)).astype(np.int32)


def _check_alpha(alpha: float):
    if not 0.0 < alpha < math.inf:
        raise BadInput("alpha", f"{alpha} is not a positive number")


def _row(bits: UInt32[Array, ""]) -> UInt32[Array, ""]:
    """A uniform row of a table of `_QUANTILES`."""
    return bits // (2**32 // _QUANTILES)


def _share(count: Int[Array, ""], total: int) -> Float[Array, ""]:
    """`count / total`, rounded down to a multiple of 2**-24, where `total` is below 2**23.

    A long division in whole numbers: of a float division by a constant, XLA makes a product with the
    reciprocal, which gives 121 / 121 < 1.
    """
    quotient, rest = count // total, count % total
    for _ in range(3):
        quotient = 256 * quotient + 256 * rest // total
        rest = 256 * rest % total
    return quotient.astype(jnp.float32) * 2.0**-24


def mixup(
    key: Key[Array, ""], view_a: Image, view_b: Image, *, alpha: float
) -> tuple[Image, Float[Array, ""]]:
    """`weight * view_a + (1 - weight) * view_b`, weight ~ Beta(alpha, alpha).

    Mixing is linear, so that mixing normalised views is mixing before normalisation. The weight is one
    of 4096 equally likely quantiles, and as often below a half as above.

    Args:
      key: key of this pair.
      view_a: a view, normalised or not.
      view_b: a view of another example, of the same shape.
      alpha: both parameters of the Beta distribution, > 0; 1 is uniform, and near 0 hardly mixes.

    Raises:
      BadInput: `alpha` is not positive.

    Reference: Zhang et al. 2017, https://arxiv.org/abs/1710.09412, eq. 1.
    """
    _check_alpha(alpha)
    weight = jnp.asarray(_quantiles(alpha))[_row(jax.random.bits(key, dtype=jnp.uint32))]
    # Rounded first, or XLA turns `view / std * weight` into `view * (weight / std)`.
    view_a, view_b = fixed.product(view_a, 1.0), fixed.product(view_b, 1.0)
    return fixed.product(weight, view_a) + fixed.product(1.0 - weight, view_b), weight


def _span(
    centre: Int[Array, ""], half: Int[Array, ""], *, size: int
) -> tuple[Bool[Array, "{size}"], Int[Array, ""]]:
    """Which pixels of an axis lie within `half` places of the `centre`, and how many these are."""
    low, high = (
        (jnp.clip(edge, 0, _PLACES) * size + _PLACES // 2) // _PLACES
        for edge in (centre - half, centre + half)
    )
    pixel = jnp.arange(size)
    return (pixel >= low) & (pixel < high), high - low


def cutmix(
    key: Key[Array, ""], view_a: Image, view_b: Image, *, alpha: float
) -> tuple[Image, Float[Array, ""]]:
    """A box of `view_b` pasted into `view_a`; the weight is the share of the pixels that stay a's.

    The box has the picture's shape and, before it is clipped at the border, the area `1 - lambda` with
    lambda ~ Beta(alpha, alpha) from the quantiles of `mixup`; its centre is uniform. The pixels are
    counted after clipping. All draws are in parts of the picture: views of another size get the same
    box, up to the rounding of its edges to pixels, which the weight follows.

    Args:
      key: key of this pair.
      view_a: a view, normalised or not.
      view_b: a view of another example, of the same shape.
      alpha: both parameters of the Beta distribution, > 0; 1, the paper's, is uniform.

    Raises:
      BadInput: `alpha` is not positive, or a side of the view is above 2048 pixels.

    Reference: Yun et al. 2019, https://arxiv.org/abs/1905.04899, section 3.1.
    """
    _check_alpha(alpha)
    height, width, _ = view_a.shape
    if max(height, width) > 2048:
        raise BadInput("view_a", f"{height} x {width} pixels", "CutMix counts up to 2048 x 2048")
    bits = jax.random.bits(key, (3,), jnp.uint32)
    half = jnp.asarray(_half_sides(alpha))[_row(bits[0])]
    # Odd places: the middles of a grid half as fine, so that both halves of the picture are alike.
    centre = 2 * (bits[1:] // (2**33 // _PLACES)).astype(jnp.int32) + 1
    rows, box_height = _span(centre[0], half, size=height)
    columns, box_width = _span(centre[1], half, size=width)
    mixed = jnp.where((rows[:, None] & columns[None, :])[..., None], view_b, view_a)
    return mixed, _share(height * width - box_height * box_width, height * width)


def batch_mixed(
    mix: Callable[..., tuple[PyTree, Array]],
    stream_key: Key[Array, ""],
    view: UInt32[Array, " batch"],
    id: UInt32[Array, " batch"],
    view_a: PyTree,
    view_b: PyTree,
) -> tuple[PyTree, Float[Array, " batch"]]:
    """`view_a[i]` mixed with `view_b[i]` as view `view[i]` of example `id[i]` asks, and the weights.

    Args:
      mix: `mix(key, view_a, view_b)` of one pair, `alpha` bound by `functools.partial`.
      stream_key: from `kdjax.keys.stream`; that of `batch_views` may be used again.
      view: number of the view of each example.
      id: stable id of each example of `view_a`.
      view_a: views of these examples, arrays [batch, ...].
      view_b: views of their partners (`kdjax.data.Partners`), in the same order.
    """

    def one(view, id, view_a, view_b):
        key = jax.random.fold_in(keys.example(stream_key, view, id), MIX)
        return mix(key, view_a, view_b)

    return jax.vmap(one)(view, id, view_a, view_b)
