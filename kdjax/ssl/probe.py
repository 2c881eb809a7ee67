"""A linear classifier that learns on frozen features while they are learned."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from kdjax import train
from kdjax.losses import cross_entropy
from kdjax.ssl.method import Method, blank

_NAME = "probe"

APART = f"{train.BESIDE}/{_NAME}/.*"
"""Its parameters by name: their gradients must not count where those of the encoder are clipped."""


def with_probe(method: Method, *, features: int, classes: int) -> Method:
    """`method`, and cross-entropy of a linear layer on the features of its first view.

    Nothing of it reaches the encoder. Rows whose `label` is negative are left out.

    Args:
      method: any.
      features: width of them.
      classes: of the labels.
    """
    head = nn.Dense(classes)

    def forward(params, state, batch, key):
        outputs, model_state = method.forward(params, state, batch, key)
        logits, model_state = train.apply_auxiliary(
            head, _NAME, params, model_state, lax.stop_gradient(outputs["features"])
        )
        return {**outputs, "probe": logits}, model_state

    def ce(outputs, batch):
        return cross_entropy(outputs["probe"], batch["label"]), batch["label"] >= 0

    def accuracy(outputs, batch):
        right = outputs["probe"].argmax(-1) == batch["label"]
        return right.astype(jnp.float32), batch["label"] >= 0

    return dataclasses.replace(
        method,
        forward=forward,
        terms={**method.terms, _NAME: (1.0, ce)},
        watched={**method.watched, f"accuracy/{_NAME}": accuracy},
        auxiliary={**method.auxiliary, _NAME: lambda key: head.init(key, blank(features))},
    )
