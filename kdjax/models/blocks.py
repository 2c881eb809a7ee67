"""The convolution that every vision model is made of, and its normalisation."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.types import BadInput


@dataclasses.dataclass(frozen=True)
class Compute:
    """How a model is run; none of it changes what the model is.

    Attributes:
      dtype: of the activations. Parameters and batch statistics stay float32.
      axis_name: mapped axis over which batch statistics are synchronised, None in the global view.
      folded: the normalisations have been folded into their convolutions, see `kdjax.models.fold`.
    """

    dtype: Any = jnp.float32
    axis_name: str | None = None
    folded: bool = False

    @property
    def is_narrow(self) -> bool:
        """Activations of fewer bits than float32: a softmax is then computed in float32 all the same."""
        return jnp.finfo(self.dtype).bits < 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convention:
    """What networks that come from one library have in common, and trained parameters rely on.

    Attributes:
      epsilon: that each BatchNorm adds to the variance; 1e-5 in PyTorch's networks, 1e-3 in those that
        come from TensorFlow.
      momentum: of each BatchNorm: the part of its running statistics that a step keeps.
      padding: of a convolution: `symmetric`, half of the kernel on each side, as PyTorch has it; or
        `same`, as TensorFlow has it: with a stride no more than the last window needs, and the odd
        pixel of it behind.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    padding: Literal["symmetric", "same"] = "symmetric"


def heads_faults(
    width: int, heads: int, *, fields: str = "heads, width"
) -> Iterator[tuple[str, str, str]]:
    """Fields, fault and mend of heads of an attention that do not divide the width."""
    if width % heads:
        yield fields, f"{heads} do not divide the width of {width}", "take a divisor"


def require_positive(field: str, *values: float | int) -> None:
    """Refuses a width, a multiplier or a depth that is not above 0.

    Raises:
      BadInput: one of the values is 0 or less; the line names `field`.
    """
    for value in values:
        if value <= 0:
            raise BadInput(field, f"{value} is not positive", "give a value above 0")


def batch_norm(
    compute: Compute, *, train: bool, name: str, convention: Convention = Convention()
) -> nn.BatchNorm:
    """The BatchNorm of every model.

    It takes the batch's statistics when training, and the running ones otherwise.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=convention.momentum,
        epsilon=convention.epsilon,
        dtype=compute.dtype,
        axis_name=compute.axis_name,
        name=name,
    )


class ConvNorm(nn.Module):
    """A convolution without bias and its BatchNorm; one convolution with bias once folded.

    Kernels are drawn with He's fan-out variance, `2 / (kernel_size^2 * features)`, which for
    a depthwise convolution counts all of its output channels, as PyTorch does.

    Attributes:
      features: output channels.
      kernel_size: side of the square kernel.
      stride: of both spatial axes.
      groups: into which the channels are split; as many as `features` for a depthwise convolution.
      convention: of the padding and of the BatchNorm, see `Convention`.
      compute: see `Compute`.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    groups: int = 1
    convention: Convention = Convention()
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch out_height out_width features"]:
        """Normalises with the batch's statistics when training, with the running ones otherwise."""
        x = nn.Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            strides=self.stride,
            padding="SAME" if self.convention.padding == "same" else self.kernel_size // 2,
            feature_group_count=self.groups,
            use_bias=self.compute.folded,
            dtype=self.compute.dtype,
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
            name="conv",
        )(x)
        if self.compute.folded:
            return x
        norm = batch_norm(self.compute, train=train, name="norm", convention=self.convention)
        return norm(x)
