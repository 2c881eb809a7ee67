"""Views of text: some of its tokens are hidden, left out, or cut off at both ends.

Each position draws from a key of its own, so that padding changes nothing about the others.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from kdjax.types import BadInput
from kdjax.views import fixed


def token_view(
    key: Key[Array, ""],
    tokens: Int[Array, " token"],
    length: Int[Array, ""],
    second: Int[Array, ""] | None = None,
    *,
    hide: float = 0.0,
    drop: float = 0.0,
    crop: tuple[float, float] | None = None,
    mask: int | None = None,
    frame: tuple[int, ...] = (),
) -> tuple[Int[Array, " token"], Int[Array, ""], Int[Array, ""] | None]:
    """`(tokens, length, second)` of a view: cropped, then tokens left out, then tokens hidden.

    Of each text at least one token stays that is not of the frame, where it has any. Each of the three is
    drawn by a key of its own, so that one that is left out changes no other.

    Args:
      key: of this view.
      tokens: of one text, or of a pair, with its padding.
      length: without it.
      second: where the second text of a pair begins; None where there is one text.
      hide: probability that a token is replaced by `mask`.
      drop: probability that it is left out, and what is behind it moves up.
      crop: range of the share of each text that is kept, in one piece; None for all.
      mask: the token that stands for a hidden one.
      frame: tokens that stay in any case, such as those that begin and end a text.

    Raises:
      BadInput: a probability or a share is out of range, or there is no `mask` to hide by.

    References: Gao et al. 2021, https://arxiv.org/abs/2104.08821, sec. 3 (deletion and cropping as
    views); Devlin et al. 2018, https://arxiv.org/abs/1810.04805, sec. 3.1 (hidden tokens).
    """
    _check(hide, drop, crop, mask)
    drops, hides, crops = jax.random.split(key, 3)
    places = jnp.arange(tokens.shape[0])
    real = places < length
    own = real
    if frame:
        own &= ~jnp.isin(tokens, jnp.asarray(frame, tokens.dtype))
    first = jnp.full(tokens.shape, True) if second is None else places < second
    kept = jnp.full(tokens.shape, False)
    for i, text in enumerate((own & first, own & ~first)[: 1 if second is None else 2]):
        stays = text
        if crop is not None:
            stays = _piece(jax.random.fold_in(crops, i), stays, crop)
        if drop:
            stays = _some(_by_place(drops, places), stays, drop)
        kept |= stays
    if hide:
        chosen = own & (_by_place(hides, places) < hide)
        tokens = jnp.where(chosen, jnp.asarray(mask, tokens.dtype), tokens)
    kept |= real & ~own
    order = jnp.argsort(~kept, stable=True)
    count = kept.sum().astype(length.dtype)
    moved = jnp.where(places < count, tokens[order], 0).astype(tokens.dtype)
    return moved, count, None if second is None else (kept & first).sum().astype(second.dtype)


def _check(hide: float, drop: float, crop: tuple[float, float] | None, mask: int | None) -> None:
    for name, share in (("hide", hide), ("drop", drop)):
        if not 0.0 <= share < 1.0:
            raise BadInput(name, f"{share} is not in [0, 1)")
    if crop is not None and not 0.0 < crop[0] <= crop[1] <= 1.0:
        raise BadInput("crop", f"{crop} is not 0 < low <= high <= 1")
    if hide and mask is None:
        raise BadInput("hide", f"{hide}, and no token stands for a hidden one", "take drop")


def _by_place(key: Key[Array, ""], places: Int[Array, " token"]) -> Float[Array, " token"]:
    """Uniform in [0, 1), each by a key of its position."""
    return jax.vmap(lambda place: jax.random.uniform(jax.random.fold_in(key, place)))(places)


def _piece(
    key: Key[Array, ""], text: Bool[Array, " token"], crop: tuple[float, float]
) -> Bool[Array, " token"]:
    """A piece of the tokens of a text, of a share of them, wherever it is."""
    share, at = jax.random.uniform(key, (2,))
    n = text.sum()
    wanted = jnp.round(fixed.product(fixed.between(share, *crop), n.astype(jnp.float32)))
    size = jnp.clip(wanted.astype(jnp.int32), 1, jnp.maximum(n, 1))
    begin = fixed.below(at, jnp.maximum(n - size + 1, 1))
    rank = jnp.cumsum(text) - 1
    return text & (rank >= begin) & (rank < begin + size)


def _some(
    drawn: Float[Array, " token"], text: Bool[Array, " token"], drop: float
) -> Bool[Array, " token"]:
    """Those whose draw is no less than `drop`; the one with the largest where there is none."""
    most = jnp.where(text, drawn, -1.0)
    least = jnp.minimum(most.max(), drop)
    return text & (drawn >= least)
