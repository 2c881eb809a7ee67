"""Learned layers that bring a student's features to the shape of a teacher's, for distillation.

They are trained with the student and left behind. All are called as `(features, train=...)`; the
functions read what a connector needs to know off the shapes of the features, `[batch, height, width,
channel]` or `[batch, dim]`.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kdjax.models.blocks import Compute, ConvNorm, batch_norm
from kdjax.types import BadInput


class Pointwise(nn.Module):
    """Linear layers over the channels of each position, with ReLU between them.

    One width makes a linear layer; on a map that is a 1x1 convolution. Several make an MLP. One with
    BatchNorm is `Projector`.

    Attributes:
      widths: output sizes of the layers.
      use_bias: of all of them.
      compute: see `Compute`.
    """

    widths: Sequence[int]
    use_bias: bool = True
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch *space channel"], *, train: bool
    ) -> Float[Array, "batch *space out"]:
        """Of the last width, float32. Training and evaluation are the same."""
        x = features.astype(self.compute.dtype)
        for i, width in enumerate(self.widths):
            dense = nn.Dense(
                width, use_bias=self.use_bias, dtype=self.compute.dtype, name=f"dense{i}"
            )
            x = dense(nn.relu(x) if i else x)
        return x.astype(jnp.float32)


def pointwise_to(
    teacher_shape: Sequence[int], *, hidden: Sequence[int] = (), compute: Compute = Compute()
) -> Pointwise:
    """A `Pointwise` to the channels of the teacher: linear, or an MLP with `hidden` widths."""
    return Pointwise((*hidden, teacher_shape[-1]), compute=compute)


class Regressor(nn.Module):
    """A convolution, BatchNorm and ReLU: the regressor of FitNets. Made by `regressor`.

    Attributes:
      features: output channels.
      kernel_size: of the convolution.
      stride: of the convolution; of its output, if it is transposed.
      padding: of both sides of both spatial axes.
      transposed: the convolution makes the map larger.
      compute: see `Compute`.
    """

    features: int
    kernel_size: tuple[int, int]
    stride: int = 1
    padding: int = 0
    transposed: bool = False
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch out_height out_width features"]:
        """Never negative, float32."""
        conv = nn.ConvTranspose if self.transposed else nn.Conv
        x = conv(
            self.features,
            self.kernel_size,
            strides=(self.stride, self.stride),
            padding=((self.padding, self.padding),) * 2,
            use_bias=False,
            dtype=self.compute.dtype,
            name="conv",
        )(features.astype(self.compute.dtype))
        x = batch_norm(self.compute, train=train, name="norm")(x)
        return nn.relu(x).astype(jnp.float32)


def regressor(
    student_shape: Sequence[int], teacher_shape: Sequence[int], *, compute: Compute = Compute()
) -> Regressor:
    """The regressor of FitNets as mdistiller and RepDistiller build it, for maps.

    3x3 with stride 2 where the student's map is twice as high, 4x4 transposed with stride 2 where it
    is half as high, and otherwise without padding, of the size that gives the teacher's map: 1x1
    where they are of one size. Those repositories' convolutions have a bias too, which BatchNorm
    makes redundant. The paper's regressor is that convolution and ReLU, without BatchNorm.

    Args:
      student_shape: of the student's map, `[batch, height, width, channel]`.
      teacher_shape: of the teacher's.
      compute: see `Compute`.

    Raises:
      BadInput: the student's map is smaller than the teacher's, and not half of it.

    Reference: Romero et al. 2014, https://arxiv.org/abs/1412.6550, sec. 2.2.
    """
    (student_height, student_width), (height, width) = student_shape[1:3], teacher_shape[1:3]
    features = teacher_shape[-1]
    if (student_height, student_width) == (2 * height, 2 * width):
        return Regressor(features, (3, 3), stride=2, padding=1, compute=compute)
    if (2 * student_height, 2 * student_width) == (height, width):
        # What torch calls a padding of 1: it counts from a full overlap inwards.
        return Regressor(features, (4, 4), stride=2, padding=2, transposed=True, compute=compute)
    if student_height >= height and student_width >= width:
        kernel_size = (1 + student_height - height, 1 + student_width - width)
        return Regressor(features, kernel_size, compute=compute)
    raise BadInput(
        "student_shape",
        f"a map of {student_height} x {student_width} is neither half of the teacher's {height} x "
        f"{width} nor as large",
        "tap another layer",
    )


class VariationalRegressor(nn.Module):
    """The mean of the teacher's features given the student's, and the scale around it, for `vid`.

    Three bias-free layers over the channels of each position, on a map 1x1 convolutions, with ReLU
    between them; and one learned scale a channel.

    Attributes:
      features: channels of the teacher.
      hidden: width of the two layers before the last; the authors' code has that of the teacher.
      variance: what the scale stands for at first.
      compute: see `Compute`.

    Reference: Ahn et al. 2019, https://arxiv.org/abs/1904.05835, sec. 2.
    """

    features: int
    hidden: int
    variance: float = 5.0
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch *space channel"], *, train: bool
    ) -> tuple[Float[Array, "batch *space features"], Float[Array, " features"]]:
        """`(mean, log_scale)`, float32."""
        mean = Pointwise(
            (self.hidden, self.hidden, self.features),
            use_bias=False,
            compute=self.compute,
            name="mean",
        )(features, train=train)
        # softplus(log_scale) + 1e-5 is the variance in `vid`.
        initial = nn.initializers.constant(math.log(math.expm1(self.variance - 1e-5)))
        return mean, self.param("log_scale", initial, (self.features,))


def ofd_connector(teacher_shape: Sequence[int], *, compute: Compute = Compute()) -> ConvNorm:
    """The connector of `ofd`: a 1x1 convolution to the teacher's channels, and BatchNorm.

    Reference: Heo et al. 2019, https://arxiv.org/abs/1904.01866, sec. 3.
    """
    return ConvNorm(teacher_shape[-1], kernel_size=1, compute=compute)


def _resized(
    maps: Float[Array, "batch height width channel"], size: tuple[int, int]
) -> Float[Array, "batch out_height out_width channel"]:
    """Nearest neighbour as torch has it: element `i` is the one at `floor(i * side / to)`."""
    for axis, to in enumerate(size, start=1):
        side = maps.shape[axis]
        if side != to:
            maps = jnp.take(maps, np.arange(to) * side // to, axis=axis)
    return maps


class AttentionFusion(nn.Module):
    """The attention-based fusion (ABF) of a level with the fused level below it.

    Attributes:
      width: channels in which levels are fused.
      features: output channels: those of the teacher.
      compute: see `Compute`.

    Reference: Chen et al. 2021, https://arxiv.org/abs/2104.09044, fig. 4.
    """

    width: int
    features: int
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        level: Float[Array, "batch height width channel"],
        deeper: Float[Array, "batch deeper_height deeper_width fused"] | None,
        *,
        size: tuple[int, int],
        train: bool,
    ) -> tuple[
        Float[Array, "batch out_height out_width features"],
        Float[Array, "batch out_height out_width fused"],
    ]:
        """`(output, fused)`, both of `size`; the output is float32.

        The level comes to `width` channels, `deeper` to the size of the level, and each position of
        the two is weighed by a gate that sees both. The deepest level has no `deeper`, and no gates.
        """
        x = ConvNorm(self.width, kernel_size=1, compute=self.compute, name="enter")(
            level.astype(self.compute.dtype), train=train
        )
        if deeper is not None:
            deeper = _resized(deeper, (x.shape[1], x.shape[2]))
            gates = nn.Conv(2, (1, 1), dtype=self.compute.dtype, name="gates")
            gate = nn.sigmoid(gates(jnp.concatenate([x, deeper], axis=-1)))
            x = x * gate[..., :1] + deeper * gate[..., 1:]
        x = _resized(x, size)
        y = ConvNorm(self.features, compute=self.compute, name="leave")(x, train=train)
        return y.astype(jnp.float32), x


class Review(nn.Module):
    """A fusion for each level, the deepest first: the connector of `review_hcl`. Made by `review`.

    Attributes:
      width: see `AttentionFusion`.
      features: channels of the teacher's levels, the shallowest first.
      sizes: heights and widths of the teacher's levels.
      compute: see `Compute`.
    """

    width: int
    features: Sequence[int]
    sizes: Sequence[tuple[int, int]]
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, levels: Sequence[Float[Array, "batch _ _ _"]], *, train: bool
    ) -> list[Float[Array, "batch _ _ _"]]:
        """A map for each of the teacher's levels, float32. Levels come the shallowest first."""
        outputs, fused = [], None
        for i in reversed(range(len(self.features))):
            fusion = AttentionFusion(
                self.width, self.features[i], compute=self.compute, name=f"level{i}"
            )
            output, fused = fusion(levels[i], fused, size=self.sizes[i], train=train)
            outputs.insert(0, output)
        return outputs


def review(
    student_shapes: Sequence[Sequence[int]],
    teacher_shapes: Sequence[Sequence[int]],
    *,
    compute: Compute = Compute(),
) -> Review:
    """A `Review` from the student's levels to the teacher's, the shallowest first.

    Levels are fused in as many channels as the student's deepest has, at most 512, as in the
    authors' code. The last level there is the pooled feature: `[batch, 1, 1, dim]`.

    Args:
      student_shapes: of the student's maps, `[batch, height, width, channel]`.
      teacher_shapes: of as many maps of the teacher.
      compute: see `Compute`.

    Raises:
      BadInput: there are not as many levels on both sides, or none.
    """
    if not student_shapes or len(student_shapes) != len(teacher_shapes):
        raise BadInput(
            "student_shapes",
            f"{len(student_shapes)} for {len(teacher_shapes)} of the teacher",
            "give one for each, and at least one",
        )
    return Review(
        width=min(512, student_shapes[-1][-1]),
        features=tuple(shape[-1] for shape in teacher_shapes),
        sizes=tuple((shape[1], shape[2]) for shape in teacher_shapes),
        compute=compute,
    )
