"""What a user may bring: a loss, an encoder, a recipe of views and a self-supervised method."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses, ssl

SLOPE = 1.0


def hinge(gap, margin):
    """How far a gap falls short of a margin."""
    return SLOPE * jnp.maximum(margin - gap, 0.0)


def rank_hinge(outputs, batch, *, margin: float = 0.1):
    """The teacher's first class above its second, by a margin."""
    _, first_two = jax.lax.top_k(batch["teacher_logits"], 2)
    chosen = jnp.take_along_axis(outputs["logits"], first_two, axis=-1)
    return hinge(chosen[:, 0] - chosen[:, 1], margin)


class TinyNet(nn.Module):
    """Convolutions and BatchNorms as linen has them, which know nothing of kdjax."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, image, *, train):
        """Features [batch, dim]."""
        x = image
        for width in self.widths:
            x = nn.Conv(width, (3, 3), strides=2, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return x.mean(axis=(1, 2))


def speckled(key, image, *, size: tuple[int, int], amount: float = 0.1):
    """The image with noise."""
    noise = amount * jax.random.normal(key, (*size, image.shape[-1]))
    return jnp.clip(jax.image.resize(image, noise.shape, "linear") + noise, 0.0, 1.0)


def aligned(trained, *, temperature: float = 0.5):
    """SimCLR, and how near the two views are."""
    axis_name = trained.compute.axis_name

    def contrast(outputs, batch):
        return losses.nt_xent(
            outputs["za"], outputs["zb"], temperature=temperature, axis_name=axis_name
        )

    def near(outputs, batch):
        return losses.negative_cosine(outputs["za"], outputs["zb"])

    return ssl.Method(
        forward=ssl.both_views(trained.model),
        terms={"contrast": (1.0, contrast)},
        watched={"near": near},
    )
