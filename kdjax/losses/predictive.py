"""Losses that predict a target from another view of an example, or from what is left of it."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from kdjax.losses.rows import centred, cosine


def byol(
    prediction: Float[Array, "*batch dim"], target: Float[Array, "*batch dim"]
) -> Float[Array, "*batch"]:
    """Per-example `2 - 2 cos(prediction, target)`, in [0, 4]: the squared distance of unit rows.

    One of the method's two directions: it adds `byol(prediction_a, target_b)` and
    `byol(prediction_b, target_a)`, and so does the authors' code. No gradient reaches the target. With
    a row of zeros the loss is 2, as in PyTorch; the authors' code says 1. lightly's is
    `negative_cosine`, with half the gradient.

    Args:
      prediction: of the online network's predictor, at any scale: rows are normalised here, in
        float32. A row of zeros stays zero, with a finite gradient.
      target: projection of the target network for the other view of the same example.

    Reference: Grill et al. 2020, https://arxiv.org/abs/2006.07733, eq. 2.
    """
    return 2.0 - 2.0 * cosine(prediction, target)


def negative_cosine(
    prediction: Float[Array, "*batch dim"], target: Float[Array, "*batch dim"]
) -> Float[Array, "*batch"]:
    """Per-example `-cos(prediction, target)`, in [-1, 1], the loss of SimSiam.

    One of the method's two directions, which the paper averages: eq. 2 has a half before each. No
    gradient reaches the target.

    Args:
      prediction: of the predictor, at any scale: rows are normalised here, in float32. A row of zeros
        stays zero: its loss is 0 and its gradient finite.
      target: projection of the other view of the same example.

    Reference: Chen & He 2020, https://arxiv.org/abs/2011.10566, eq. 1.
    """
    return -cosine(prediction, target)


def masked_patch_mse(
    prediction: Float[Array, "*batch patches dim"],
    patches: Float[Array, "*batch patches dim"],
    hidden: Bool[Array, "*batch patches"],
    *,
    normalize: bool,
) -> Float[Array, "*batch"]:
    """Per-example mean squared error of the pixels of the hidden patches (MAE).

    Averaged over the pixels of a patch, then over the example's hidden patches. The authors' code
    averages over all hidden patches of a batch: the mean of this where each example hides as many.

    Args:
      prediction: a decoder's patches, float32 inside. What it says of visible patches is ignored.
      patches: the image's own, in the same layout. No gradient reaches them.
      hidden: True where the encoder did not see the patch. An example that hides none costs 0.
      normalize: the target is each patch less its mean, over the root of its variance (unbiased, plus
        1e-6): the paper's better variant. Needs two values a patch or more.

    Reference: He et al. 2021, https://arxiv.org/abs/2111.06377, sec. 3, "Reconstruction target".
    """
    target = lax.stop_gradient(patches.astype(jnp.float32))
    if normalize:
        target = centred(target, axis=-1)
        variance = (target * target).sum(-1, keepdims=True) / (target.shape[-1] - 1)
        target = target * lax.rsqrt(variance + 1e-6)
    error = jnp.square(prediction.astype(jnp.float32) - target).mean(-1)
    return jnp.where(hidden, error, 0.0).sum(-1) / jnp.maximum(hidden.sum(-1), 1)
