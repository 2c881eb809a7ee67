"""Masked language modelling."""

import jax
import jax.numpy as jnp

from kdjax import losses, train
from kdjax.models import BERT, MaskedHead, ModernBERT, capture
from kdjax.ssl.method import Method


def masked_lm(encoder: BERT | ModernBERT) -> Method:
    """Cross-entropy of the tokens that are `hidden` in `view_a`, in nats a token; see `MaskedHead`.

    Its mean is over all hidden tokens of the whole batch.

    Args:
      encoder: of the model that is trained.

    Reference: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, sec. 3.1.
    """
    head, last = MaskedHead(encoder.epsilon, encoder.compute, encoder.biased), encoder.last

    def forward(params, state, batch, key):
        inside = params["encoder"]
        seen = capture(
            encoder,
            {"params": inside},
            paths=[last],
            train=True,
            rngs={"dropout": key},
            **batch["view_a"],
        )
        table = inside["word"]["embedding"]
        logits, model_state = train.apply_auxiliary(
            head, "masked_lm", params, state.model_state, seen.features[last], table
        )
        return {"logits": logits, "features": seen.outputs}, model_state

    def said(outputs, batch):
        return losses.cross_entropy(outputs["logits"], batch["whole"]), batch["hidden"]

    def right(outputs, batch):
        found = outputs["logits"].argmax(-1) == batch["whole"]
        return found.astype(jnp.float32), batch["hidden"]

    def made(key: jax.Array):
        table = jnp.zeros((encoder.vocab, encoder.embedding_size or encoder.width))
        return head.init(key, jnp.zeros((1, 1, encoder.width)), table)

    return Method(
        forward=forward,
        terms={"masked_lm": (1.0, said)},
        watched={"accuracy/masked": right},
        auxiliary={"masked_lm": made},
    )
