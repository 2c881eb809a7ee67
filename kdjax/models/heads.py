"""What sits on an encoder: a linear classifier, the projector of a method, its prototypes."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kdjax.models.blocks import Compute, batch_norm
from kdjax.models.streaming import State
from kdjax.types import BadInput

_OF_CALL = ("train", "state", "hidden")
"""Arguments of encoders that are no inputs."""


def called(module: nn.Module, inputs: Any, **kwargs: Any) -> Any:
    """`module` on its inputs: one as it is, several by their names.

    Args:
      module: an encoder, whose `__call__` names its inputs where there are several.
      inputs: arrays by name, or the one that there is.
      **kwargs: of the call, as `train`.

    Raises:
      BadInput: the encoder has not these inputs.
    """
    if not isinstance(inputs, Mapping):
        return module(inputs, **kwargs)
    signature = inspect.signature(module.__call__)
    taken = signature.parameters
    if len(inputs) == 1:
        try:
            signature.bind(*inputs.values(), **kwargs)
        except TypeError as error:
            raise BadInput(
                "encoder",
                f"{type(module).__name__} takes ({', '.join(taken)}): {error}",
                f"write its `__call__` as (self, {', '.join(inputs)}, *, {', '.join(kwargs)})",
            ) from None
        return module(*inputs.values(), **kwargs)
    if all(each.kind is not each.VAR_KEYWORD for each in taken.values()):
        missing = [name for name in (*inputs, *kwargs) if name not in taken]
        wanted = [
            name
            for name, each in taken.items()
            if each.default is each.empty and name not in {**inputs, **kwargs}
        ]
        if missing or wanted:
            raise BadInput(
                "encoder",
                f"{type(module).__name__} takes {', '.join(n for n in taken if n not in _OF_CALL)}, "
                f"and an example has {', '.join(inputs)}",
                f"give its `__call__` an argument for each, and {', '.join(kwargs)}",
            )
    return module(**inputs, **kwargs)


def _given(state: State | None) -> dict[str, State]:
    """An encoder that keeps nothing has no such argument."""
    return {} if state is None else {"state": state}


class Projector(nn.Module):
    """MLP with BatchNorm and ReLU between its layers, none after the last.

    Attributes:
      widths: output sizes of the layers; none leaves the features as they are.
      compute: see `Compute`.

    Reference: Chen et al. 2020, https://arxiv.org/abs/2002.05709, sec. 4.2.
    """

    widths: Sequence[int]
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch dim"], *, train: bool
    ) -> Float[Array, "batch out"]:
        """The projections, float32."""
        if not self.widths:
            return features.astype(jnp.float32)
        x = features.astype(self.compute.dtype)
        for i, width in enumerate(self.widths[:-1]):
            x = nn.Dense(width, use_bias=False, dtype=self.compute.dtype, name=f"dense{i}")(x)
            x = nn.relu(batch_norm(self.compute, train=train, name=f"norm{i}")(x))
        x = nn.Dense(
            self.widths[-1], dtype=self.compute.dtype, name=f"dense{len(self.widths) - 1}"
        )(x)
        return x.astype(jnp.float32)


class Classifier(nn.Module):
    """An encoder and a linear layer. Gives `features` [batch, dim] and `logits` [batch, classes].

    Attributes:
      encoder: gives the features; see `called` for its inputs.
      classes: of the logits.
    """

    encoder: nn.Module
    classes: int

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool, state: State | None = None):
        """A dict of named outputs, float32; `inputs` by name, or the one that there is.

        With `state`, see `kdjax.models.streaming`, those of each step: [batch, step, ...].
        """
        features = called(self.encoder, inputs, train=train, **_given(state))
        logits = nn.Dense(self.classes, name="classifier")(features)
        return {"features": features, "logits": logits}


class Linear(nn.Module):
    """An encoder and a linear layer. Gives `features` [batch, ..., dim], an answer [batch, ..., width].

    Attributes:
      encoder: gives the features, or `(features, mask)`, where the mask [batch, ...] is True at positions
        that are no padding: it is an output, too. See `called` for its inputs.
      width: of the answer.
      output: its name.
      behind: the answer where the mask is False; the linear layer's own where this is empty.
    """

    encoder: nn.Module
    width: int
    output: str
    behind: Sequence[float] = ()

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool, state: State | None = None):
        """A dict of named outputs, float32; `inputs` by name, or the one that there is.

        With `state`, see `kdjax.models.streaming`, those of each step: [batch, step, ...].
        """
        found = called(self.encoder, inputs, train=train, **_given(state))
        features, mask = found if isinstance(found, tuple) else (found, None)
        answer = nn.Dense(self.width, name="head")(features)
        if mask is not None and self.behind:
            padding = jnp.broadcast_to(jnp.asarray(self.behind, answer.dtype), answer.shape)
            answer = jnp.where(mask[..., None], answer, padding)
        outputs = {"features": features, self.output: answer}
        return outputs if mask is None else {**outputs, "mask": mask}


class EncoderProjector(nn.Module):
    """An encoder and a projector. Gives `features` and `projections`, [batch, dim] each.

    Attributes:
      encoder: gives the features; see `called` for its inputs.
      projector: on the features.
    """

    encoder: nn.Module
    projector: nn.Module

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool):
        """A dict of named outputs, float32; `inputs` by name, or the one that there is."""
        features = called(self.encoder, inputs, train=train)
        return {"features": features, "projections": self.projector(features, train=train)}


class Prototypes(nn.Module):
    """Cosines of rows with prototypes: the products of unit rows and unit columns, without a bias.

    Attributes:
      count: of the prototypes.

    Reference: Caron et al. 2020, https://arxiv.org/abs/2006.09882, sec. 3.1.
    """

    count: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch dim"]) -> Float[Array, "batch {self.count}"]:
        """The scores, float32, in [-1, 1]; a row of zeros has none but zeros."""

        def unit(x, axis):
            x = x.astype(jnp.float32)
            squared = (x * x).sum(axis, keepdims=True)
            # Not `1 / sqrt`: what is all zero must not send a gradient that is not finite.
            return jnp.where(squared > 0, x * lax.rsqrt(jnp.maximum(squared, 1e-24)), 0.0)

        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.count))
        return jnp.matmul(unit(x, -1), unit(kernel, 0), precision=lax.Precision.HIGHEST)


class ClusterHead(nn.Module):
    """Logits of clusters at each frame: cosines of a linear map with an embedding of each, divided.

    Attributes:
      width: of the linear map, and of an embedding.
      clusters: how many there are.
      temperature: the divisor, > 0.

    Reference: Hsu et al. 2021, https://arxiv.org/abs/2106.07447, sec. II (HuBERT).
    """

    width: int
    clusters: int
    temperature: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch frames dim"]
    ) -> Float[Array, "batch frames {self.clusters}"]:
        """The logits, float32."""
        rows = nn.Dense(self.width, name="projection")(x).reshape(-1, self.width)
        cosines = Prototypes(self.clusters, name="embedding")(rows)
        return cosines.reshape(*x.shape[:2], self.clusters) / self.temperature
