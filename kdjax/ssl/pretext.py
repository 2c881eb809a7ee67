"""Methods that solve a task made of the image itself: rotation prediction, MAE."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses, train, tree
from kdjax.models import PatchDecoder, ViT, capture, patches_of
from kdjax.ssl.method import Method, blank
from kdjax.views import quarter_turns


def rotation(model: nn.Module, *, width: int) -> Method:
    """Cross-entropy of the four quarter turns of `view_a`, the mean over them for each example.

    All four go through the model as one batch, as in the authors' code.

    Args:
      model: that is trained.
      width: of its projections, on which a linear layer tells the turns apart.
    """
    head = nn.Dense(4)

    def forward(params, state, batch, key):
        view, rows = batch["view_a"], tree.rows(batch["view_a"])

        def turned(quarter):
            turn = jax.vmap(lambda one: quarter_turns(one, quarter))
            return jax.tree.map(turn, view)

        turns = tree.together(*(turned(quarter) for quarter in range(4)))
        outputs, model_state = train.apply_model(model, params, state.model_state, turns, key)
        logits, model_state = train.apply_auxiliary(
            head, "turns", params, model_state, outputs["projections"]
        )
        by_turn = logits.reshape(4, rows, 4).swapaxes(0, 1)
        return {"turns": by_turn, "features": outputs["features"][:rows]}, model_state

    def _labels(logits):
        return jnp.broadcast_to(jnp.arange(4)[None, :], logits.shape[:2])

    def which(outputs, batch):
        return losses.cross_entropy(outputs["turns"], _labels(outputs["turns"])).mean(-1)

    def right(outputs, batch):
        found = outputs["turns"].argmax(-1) == _labels(outputs["turns"])
        return found.astype(jnp.float32).mean(-1)

    return Method(
        forward=forward,
        terms={"rotation": (1.0, which)},
        watched={"accuracy/rotation": right},
        auxiliary={"turns": lambda key: head.init(key, blank(width))},
    )


def mae(encoder: ViT, decoder: PatchDecoder, *, normalize: bool) -> Method:
    """Mean squared error of the patches of `view_a` that `kept` leaves out.

    The encoder sees the others alone; its features are the mean over those.

    Args:
      encoder: of the model that is trained.
      decoder: on its tokens.
      normalize: see `kdjax.losses.masked_patch_mse`.
    """

    def forward(params, state, batch, key):
        (image,) = jax.tree.leaves(batch["view_a"])
        shown = capture(
            encoder,
            {"params": params["encoder"]},
            image,
            train=True,
            kept=batch["kept"],
            paths=["norm"],
        )
        painted, model_state = train.apply_auxiliary(
            decoder, "decoder", params, state.model_state, shown.features["norm"], batch["kept"]
        )
        return {"painted": painted, "features": shown.outputs}, model_state

    def error(outputs, batch):
        (image,) = jax.tree.leaves(batch["view_a"])
        patches = patches_of(image, patch=encoder.patch)
        return losses.masked_patch_mse(
            outputs["painted"], patches, batch["hidden"], normalize=normalize
        )

    def made(key):
        tokens, kept = jnp.zeros((1, 1, encoder.width)), jnp.zeros((1, 1), jnp.int32)
        return decoder.init(key, tokens, kept)

    return Method(forward=forward, terms={"mae": (1.0, error)}, auxiliary={"decoder": made})
