"""Masked prediction of frames: which cluster each hidden frame of a recording is of."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kdjax import losses, train
from kdjax.models import ClusterHead, OnLogMel
from kdjax.models.sequences import mask_of, mean_of
from kdjax.ssl.method import Method
from kdjax.types import BadInput, Batch, Variables


@flax.struct.dataclass
class Clusters:
    """What frames are asked for, frozen: clusters of what a module gives of them.

    Attributes:
      centroids: of each cluster [clusters, dim], of features after the two below.
      shift: what is subtracted of each dimension of the features.
      scale: what it is then divided by.
      variables: of the module.
      module: an encoder that answers at each frame, or one whose spectra are looked at.
      of_spectra: the features are its spectra.
    """

    centroids: Any
    shift: Any
    scale: Any
    variables: Any
    module: OnLogMel = flax.struct.field(pytree_node=False)
    of_spectra: bool = flax.struct.field(pytree_node=False)

    def features(
        self, view: Batch
    ) -> tuple[Float[Array, "batch frames dim"], Bool[Array, "batch frames"]]:
        """Of each frame of recordings, and which of them are no padding."""
        return frames_of(self.module, self.variables, view, of_spectra=self.of_spectra)

    def assigned(self, view: Batch) -> Int[Array, "batch frames"]:
        """The nearest cluster of each frame."""
        features, _ = self.features(view)
        x = (features - jnp.expand_dims(self.shift, (0, 1))) / jnp.expand_dims(self.scale, (0, 1))
        # The squared distance, but for what is of the frame alone.
        norms = (self.centroids**2).sum(-1)
        products = jnp.matmul(x, self.centroids.T, precision=jax.lax.Precision.HIGHEST)
        return (jnp.expand_dims(norms, (0, 1)) - 2.0 * products).argmin(-1)


def frames_of(
    module: OnLogMel, variables: Variables, view: Batch, *, of_spectra: bool
) -> tuple[Float[Array, "batch frames dim"], Bool[Array, "batch frames"]]:
    """What a module gives of each frame, or its spectra, and which frames are no padding."""
    if of_spectra:
        found: Any = module.apply(variables, **view, method=OnLogMel.spectra)
        x, frames = found
        return x, mask_of(x, frames)
    return _with_mask(module.apply(variables, **view, train=False))


def _with_mask(found: Any) -> tuple[Array, Array]:
    return found if isinstance(found, tuple) else (found, mask_of(found, None))


def at_frames(encoder: OnLogMel) -> OnLogMel:
    """The same encoder, of the same parameters, which answers at each frame and pools nothing.

    Raises:
      BadInput: its network gives nothing of single frames.
    """
    net: Any = encoder.net
    if getattr(net, "pool", None) is None:
        raise BadInput(
            "encoder.net", f"{type(net).__name__} gives nothing of single frames", "take conformer"
        )
    return encoder.clone(net=net.clone(pool="none"))


def masked_frames(encoder: nn.Module, *, clusters: int, width: int, temperature: float) -> Method:
    """Cross-entropy of the clusters of the frames that are `hidden` in `view_a`, in nats a frame.

    The spectra of hidden frames are zeros, as SpecAugment's: the mean of normalised ones. The paper puts
    a learned vector there. A frame of the encoder that joins several spectra is asked for where all of
    them are hidden, for the cluster of the first. The mean is over all frames of the batch that are
    asked.

    Args:
      encoder: of the model that is trained; an `OnLogMel` whose network pools frames.
      clusters: how many there are.
      width: of what is compared with an embedding of each cluster.
      temperature: divisor of the cosine between the two.

    Reference: Hsu et al. 2021, https://arxiv.org/abs/2106.07447, sec. II (HuBERT).
    """
    assert isinstance(encoder, OnLogMel)
    frames = at_frames(encoder)
    head = ClusterHead(width, clusters, temperature)

    def forward(params, state, batch, key):
        found = frames.apply(
            {"params": params["encoder"]},
            **batch["view_a"],
            hidden=batch["hidden"],
            train=True,
            rngs={"dropout": key},
        )
        features, mask = _with_mask(found)
        logits, model_state = train.apply_auxiliary(
            head, "masked_frames", params, state.model_state, features
        )
        asked = _joined(batch["hidden"], features.shape[1]) & mask
        targets = _thinned(batch["targets"], features.shape[1])
        pooled = mean_of(features, mask)
        return {"logits": logits, "features": pooled, "asked": asked, "whole": targets}, model_state

    def said(outputs, batch):
        return losses.cross_entropy(outputs["logits"], outputs["whole"]), outputs["asked"]

    def right(outputs, batch):
        found = outputs["logits"].argmax(-1) == outputs["whole"]
        return found.astype(jnp.float32), outputs["asked"]

    def made(key: jax.Array):
        return head.init(key, jnp.zeros((1, 1, _width(encoder))))

    return Method(
        forward=forward,
        terms={"masked_frames": (1.0, said)},
        watched={"accuracy/masked": right},
        auxiliary={"masked_frames": made},
    )


def _width(encoder: OnLogMel) -> int:
    audio = jnp.zeros((1, 4 * encoder.front.frame), jnp.int16)
    found = jax.eval_shape(
        lambda: encoder.init_with_output(jax.random.key(0), audio, train=False)[0]
    )
    return found.shape[-1]


def _joined(hidden: Bool[Array, "batch frames"], steps: int) -> Bool[Array, "batch steps"]:
    """Whether all frames that a step joins are hidden."""
    each = -(-hidden.shape[1] // steps)
    padded = jnp.pad(hidden, ((0, 0), (0, each * steps - hidden.shape[1])), constant_values=True)
    return padded.reshape(len(hidden), steps, each).all(-1)


def _thinned(targets: Int[Array, "batch frames"], steps: int) -> Int[Array, "batch steps"]:
    """Those of the first frame that each step joins."""
    found = targets[:, :: -(-targets.shape[1] // steps)]
    if found.shape[1] != steps:
        raise BadInput(
            "method.of",
            f"clusters are of {targets.shape[1]} frames, and the encoder answers at {steps}",
            "give an encoder of as many frames, or one that joins a whole number of them",
        )
    return found
