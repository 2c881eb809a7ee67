"""The networks of MLPerf Tiny for pictures and for spoken words: ResNet-8 and DS-CNN.

As their Keras code has them: padding is TensorFlow's "same", of which an odd pixel is behind the image,
and BatchNorm has an epsilon of 1e-3 and a momentum of 0.99. What makes no difference there is left out:
the biases of convolutions before a BatchNorm.

Reference: Banbury et al. 2021, https://arxiv.org/abs/2106.07597, table 1; the code is that of
https://github.com/mlcommons/tiny/tree/master/benchmark/training.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.models.blocks import Compute, require_positive


class SameConvNorm(nn.Module):
    """A convolution padded as in TensorFlow, and its BatchNorm; with a bias instead once folded.

    Attributes:
      features: output channels.
      kernel_size: height and width of the kernel.
      stride: of both spatial axes.
      groups: into which the channels are split; as many as `features` for a depthwise convolution.
      compute: see `Compute`.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    stride: int = 1
    groups: int = 1
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch out_height out_width features"]:
        """Normalises with the batch's statistics when training, with the running ones otherwise."""
        compute = self.compute
        x = nn.Conv(
            self.features,
            self.kernel_size,
            strides=self.stride,
            padding="SAME",
            feature_group_count=self.groups,
            use_bias=compute.folded,
            dtype=compute.dtype,
            kernel_init=nn.initializers.he_normal(),
            name="conv",
        )(x)
        if compute.folded:
            return x
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.99,
            epsilon=1e-3,
            dtype=compute.dtype,
            axis_name=compute.axis_name,
            name="norm",
        )(x)


class TinyBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which has a bias and no BatchNorm where it projects.

    Attributes:
      width: channels of both convolutions.
      stride: of the first.
      project: the shortcut is a 1x1 convolution.
      compute: see `Compute`.
    """

    width: int
    stride: int
    project: bool
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch out_height out_width channels"]:
        """ReLU of the sum of the two branches."""
        first = SameConvNorm(self.width, stride=self.stride, compute=self.compute, name="first")
        y = nn.relu(first(x, train=train))
        y = SameConvNorm(self.width, compute=self.compute, name="second")(y, train=train)
        if self.project:
            x = nn.Conv(
                self.width,
                (1, 1),
                strides=self.stride,
                padding="SAME",
                dtype=self.compute.dtype,
                kernel_init=nn.initializers.he_normal(),
                name="shortcut",
            )(x)
        return nn.relu(x + y)


class TinyResNet(nn.Module):
    """A 3x3 stem, a block of each width, the mean over space.

    Attributes:
      widths: channels of the stem and the first block, then of each block that halves the image.
      compute: see `Compute`.
    """

    widths: Sequence[int] = (16, 32, 64)
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch dim"]:
        """The features, float32, `dim = widths[-1]`."""
        stem = SameConvNorm(self.widths[0], compute=self.compute, name="stem")
        x = nn.relu(stem(image.astype(self.compute.dtype), train=train))
        for i, width in enumerate(self.widths):
            x = TinyBlock(
                width,
                stride=2 if i else 1,
                project=i > 0,
                compute=self.compute,
                name=f"stage{i}_block0",
            )(x, train=train)
        return x.mean(axis=(1, 2)).astype(jnp.float32)


class DSCNN(nn.Module):
    """A convolution that halves the image, depthwise separable ones, the mean over space.

    Attributes:
      width: channels throughout.
      blocks: depthwise separable convolutions.
      kernel_size: of the first convolution: a spectrogram's frames and bands.
      compute: see `Compute`.

    Reference: Zhang et al. 2017, https://arxiv.org/abs/1711.07128, sec. 4.
    """

    width: int = 64
    blocks: int = 4
    kernel_size: tuple[int, int] = (10, 4)
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch dim"]:
        """The features, float32, `dim = width`; no dropout."""
        stem = SameConvNorm(
            self.width, self.kernel_size, stride=2, compute=self.compute, name="stem"
        )
        x = nn.relu(stem(image.astype(self.compute.dtype), train=train))
        for i in range(self.blocks):
            channels = x.shape[-1]
            depthwise = SameConvNorm(
                channels, groups=channels, compute=self.compute, name=f"block{i}_depthwise"
            )
            x = nn.relu(depthwise(x, train=train))
            pointwise = SameConvNorm(
                self.width, (1, 1), compute=self.compute, name=f"block{i}_pointwise"
            )
            x = nn.relu(pointwise(x, train=train))
        return x.mean(axis=(1, 2)).astype(jnp.float32)


def mlperf_resnet8(*, width: int = 16, compute: Compute = Compute()) -> TinyResNet:
    """MLPerf Tiny's ResNet-8 of `width`, 2 and 4 times `width` channels, for images of 32 pixels.

    Raises:
      BadInput: the width is not positive.
    """
    require_positive("encoder.width", width)
    return TinyResNet(widths=(width, 2 * width, 4 * width), compute=compute)


def ds_cnn(*, width: int = 64, blocks: int = 4, compute: Compute = Compute()) -> DSCNN:
    """MLPerf Tiny's DS-CNN, for spectrograms of 49 frames with 10 coefficients each.

    Raises:
      BadInput: a number is not positive.
    """
    require_positive("encoder.width", width)
    require_positive("encoder.blocks", blocks)
    return DSCNN(width=width, blocks=blocks, compute=compute)
