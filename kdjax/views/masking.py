"""Which patches of an image a model is shown."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from kdjax.types import BadInput


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
