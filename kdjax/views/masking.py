"""Which patches of an image a model is shown, which tokens of a text, which frames of a recording."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from kdjax.types import BadInput


def masked_tokens(
    key: Key[Array, ""],
    tokens: Int[Array, " token"],
    length: Int[Array, ""],
    *,
    share: float,
    mask: int,
    frame: tuple[int, ...],
    below: int,
) -> tuple[Int[Array, " token"], Bool[Array, " token"]]:
    """`(tokens, hidden)`: a text some of whose tokens are replaced, and True for each that is to be said.

    Each token is to be said with the probability `share`. Of those 8 in 10 are replaced by `mask`, 1 in
    10 by any token, and the others stay. Each position draws from a key of its own, so that padding
    changes nothing about the others.

    Args:
      key: of this view.
      tokens: of one text, with its padding.
      length: without it.
      share: see above; 0.15 in the paper.
      mask: the token that stands for a hidden one.
      frame: tokens that are never to be said.
      below: one more than the largest token.

    Reference: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, sec. 3.1.
    """
    places = jnp.arange(tokens.shape[0])

    def drawn(place: Array) -> tuple[Array, Array, Array]:
        chosen, kind, other = jax.random.split(jax.random.fold_in(key, place), 3)
        return (
            jax.random.uniform(chosen),
            jax.random.uniform(kind),
            jax.random.randint(other, (), 0, below, tokens.dtype),
        )

    chosen, kind, other = jax.vmap(drawn)(places)
    hidden = (chosen < share) & (places < length)
    if frame:
        hidden &= ~jnp.isin(tokens, jnp.asarray(frame, tokens.dtype))
    replaced = jnp.where(kind < 0.8, mask, jnp.where(kind < 0.9, other, tokens))
    return jnp.where(hidden, replaced, tokens).astype(tokens.dtype), hidden


def frame_spans(
    key: Key[Array, ""], length: Int[Array, ""], *, frames: int, share: float, span: int
) -> Bool[Array, "{frames}"]:
    """True for each frame of a recording that is hidden: spans that may lie on each other.

    Each frame begins a span with the probability `share`. It draws from a key of its own, so that padding
    changes nothing about the others; what is behind the end is hidden, too.

    Args:
      key: of this view.
      length: frames of the recording.
      frames: as many, and its padding.
      share: see above; 0.08 in the paper.
      span: frames of a span; 10 in the paper.

    Reference: Hsu et al. 2021, https://arxiv.org/abs/2106.07447, sec. IV-B (HuBERT); Baevski et al. 2020,
    https://arxiv.org/abs/2006.11477, sec. 3.1, whose spans these are.
    """
    places = jnp.arange(frames)
    drawn = jax.vmap(lambda place: jax.random.uniform(jax.random.fold_in(key, place)))(places)
    begun = jnp.cumsum((drawn < share) & (places < length))
    before = jnp.pad(begun, (span, 0))[:frames]
    return (begun > before) | (places >= length)


def random_patch_mask(
    key: Key[Array, ""], *, patches: int, share: float
) -> tuple[Int[Array, " kept"], Bool[Array, "{patches}"]]:
    """`(kept, hidden)`: the patches to show, in rising order, and True for each of the others.

    `round(share * patches)` are hidden, the same number in every example, so that what an encoder is
    shown (`tokens[kept]`) has one shape; every choice of that many is equally likely. The decoder
    puts its tokens back with `blank.at[kept].set(tokens)`. The authors' code shows
    `int(patches * (1 - share))`, which can be one patch fewer.

    Args:
      key: key of this view.
      patches: number of patches of the image.
      share: of them to hide; 0.75 in the paper.

    Raises:
      BadInput: no patch would be hidden, or none shown.

    Reference: He et al. 2021, https://arxiv.org/abs/2111.06377, sec. 3.
    """
    count = round(share * patches)
    if not 0 < count < patches:
        raise BadInput(
            "share", f"{share} hides {count} of {patches} patches", "hide some and show some"
        )
    hidden = jax.random.permutation(key, patches) < count
    return jnp.flatnonzero(~hidden, size=patches - count), hidden
