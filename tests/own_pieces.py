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


def apart(student, teacher, *, where, power: float = 2.0):
    """How far features are apart, of positions those that are no padding."""
    far = sum((jnp.abs(x - y) ** power).mean(-1) for x, y in zip(student, teacher, strict=True))
    if far.ndim == 1 or where is None:
        return far.reshape(far.shape[0], -1).mean(-1)
    return (far * where).sum(-1) / where.sum(-1)


def hidden(key, example, *, share: float = 0.5):
    """Tokens made zero, each by a key of its own, so that padding changes none of them."""
    tokens = example["tokens"]

    def kept(place):
        return jax.random.bernoulli(jax.random.fold_in(key, place), 1 - share)

    return {"tokens": jnp.where(jax.vmap(kept)(jnp.arange(len(tokens))), tokens, 0)}
