"""Small models, each with one way to join channels, or to spoil them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Residual(nn.Module):
    """A stream of 6 that two layers write to; 5 inside of the branch."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="stem")(x)
        x = x + nn.Dense(6, name="back")(nn.relu(nn.Dense(5, name="inner")(x)))
        return nn.Dense(3, name="head")(x)


class Depthwise(nn.Module):
    """A depthwise convolution with two outputs for each input, and BatchNorms."""

    @nn.compact
    def __call__(self, x):
        def norm(name):
            return nn.BatchNorm(use_running_average=True, name=name)

        x = nn.relu(norm("norm0")(nn.Conv(6, (1, 1), name="expand")(x)))
        x = nn.Conv(6, (3, 3), feature_group_count=6, use_bias=False, name="depthwise")(x)
        x = nn.relu(norm("norm1")(x))
        x = nn.Conv(4, (1, 1), use_bias=False, name="project")(x)
        return nn.Dense(3, name="head")(nn.relu(norm("norm2")(x)).mean((1, 2)))


class Multiplied(nn.Module):
    """A depthwise convolution that makes two channels of each."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(5, (3, 3), name="expand")(x))
        x = nn.Conv(10, (3, 3), feature_group_count=5, name="depthwise")(x)
        return nn.Dense(3, name="head")(nn.relu(x).mean((1, 2)))


class Excited(nn.Module):
    """Squeeze and excitation: the gates belong to the channels, the squeeze is its own group."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), name="stem")(x))
        gate = nn.relu(nn.Dense(4, name="reduce")(x.mean((1, 2))))
        gate = nn.sigmoid(nn.Dense(x.shape[-1], name="expand")(gate))
        return nn.Dense(3, name="head")((x * gate[:, None, None]).mean((1, 2)))


class Concatenated(nn.Module):
    """Two branches side by side, as of a DenseNet."""

    @nn.compact
    def __call__(self, x):
        a = nn.relu(nn.Conv(4, (3, 3), name="left")(x))
        b = nn.Conv(5, (1, 1), name="right")(x)
        x = jnp.concatenate([a, b, a], -1)
        x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        return nn.Dense(3, name="head")(nn.relu(nn.Conv(4, (3, 3), name="join")(x)).mean((1, 2)))


class Flattened(nn.Module):
    """Each channel is a run of the dense layer's inputs."""

    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(5, (3, 3), name="conv")(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(7, name="hidden")(x.reshape(x.shape[0], -1)))
        return nn.Dense(3, name="head")(x)


class Grouped(nn.Module):
    """A convolution of three groups of two channels each."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (1, 1), name="first")(x))
        x = nn.relu(nn.Conv(9, (3, 3), feature_group_count=3, name="grouped")(x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


class Gated(nn.Module):
    """GLU: one layer makes the values and their gates."""

    @nn.compact
    def __call__(self, x):
        value, gate = jnp.split(nn.Dense(10, name="both")(x), 2, axis=-1)
        return nn.Dense(3, name="head")(value * nn.sigmoid(gate))


class Attention(nn.Module):
    """Tokens of 8 in two heads of 4."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8, name="tokens")(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=4, name="attention")(nn.LayerNorm()(x))
        y = nn.gelu(nn.Dense(6, name="mlp_in")(nn.LayerNorm()(x)))
        x = x + nn.Dense(8, name="mlp_out")(y)
        return nn.Dense(3, name="head")(x.mean(1))


class WideTokens(nn.Module):
    """Attention with its outer width written down, and no norm: the width of the tokens is free."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(5, name="tokens")(x)
        attention = nn.MultiHeadDotProductAttention(
            num_heads=2, qkv_features=8, out_features=7, name="attention"
        )
        return nn.Dense(3, name="head")(nn.relu(attention(x)).mean(1))


class GroupNormed(nn.Module):
    """GroupNorm of three groups of two channels: units are whole groups."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.GroupNorm(num_groups=3, name="norm")(nn.Conv(6, (3, 3), name="conv")(x)))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


class InstanceNormed(nn.Module):
    """Each channel is normalised by itself."""

    @nn.compact
    def __call__(self, x):
        x = nn.InstanceNorm(name="norm")(nn.Conv(6, (3, 3), name="conv")(x))
        return nn.Dense(3, name="head")(nn.relu(x).mean((1, 2)))


class LayerNormed(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm(name="norm")(nn.Dense(6, name="stem")(x))
        return nn.Dense(3, name="head")(nn.relu(nn.Dense(5, name="inner")(x)))


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(5, name="stem")(x)
        x = nn.RNN(nn.OptimizedLSTMCell(6), name="rnn")(x)
        return nn.Dense(3, name="head")(x[:, -1])


class Embedded(nn.Module):
    """Words by number."""

    @nn.compact
    def __call__(self, x):
        x = nn.Embed(7, 6, name="words")((jnp.abs(x) * 3).astype(jnp.int32) % 7)
        return nn.Dense(3, name="head")(nn.relu(x).mean(-2))


class Tied(nn.Module):
    """The embedding is also what gives the logits."""

    @nn.compact
    def __call__(self, x):
        words = nn.Embed(7, 6, name="words")
        x = words((jnp.abs(x) * 3).astype(jnp.int32) % 7)
        x = x + nn.Dense(6, name="back")(nn.relu(nn.Dense(4, name="inner")(x)))
        return words.attend(x)


class Twice(nn.Module):
    """One layer used twice on its own stream."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="stem")(x)
        again = nn.Dense(6, name="again")
        x = nn.relu(again(nn.relu(again(x))))
        return nn.Dense(3, name="head")(x)


class TwiceApart(nn.Module):
    """One layer used on two streams, with a constant on each of them."""

    @nn.compact
    def __call__(self, x):
        a, b = nn.relu(nn.Dense(6, name="a")(x)), nn.tanh(nn.Dense(6, name="b")(x))
        shared = nn.Dense(4, name="shared")
        return nn.Dense(3, name="head")(nn.relu(shared(a)) + nn.relu(shared(b)))


class Autoencoder(nn.Module):
    """The decoder is the encoder, transposed."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], 6))
        return nn.relu(x @ kernel) @ kernel.T


class TransposedTwice(nn.Module):
    """A kernel and its transpose between two hidden layers."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(5, name="stem")(x))
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], 6))
        x = nn.relu(x @ kernel) @ kernel.T
        return nn.Dense(3, name="head")(nn.relu(x))


class Looped(nn.Module):
    """The same hidden layer at every step of a scan, linen's own."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="stem")(x)
        cells = nn.scan(Cell, variable_broadcast="params", split_rngs={"params": False}, length=3)
        x, _ = cells(name="cell")(x, None)
        return nn.Dense(3, name="head")(x)


class Cell(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.Dense(6, name="back")(nn.relu(nn.Dense(5, name="inner")(x))), None


class Stacked(nn.Module):
    """Layers of their own at each step of a scan, the parameters stacked."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="stem")(x)
        cells = nn.scan(Cell, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = cells(name="cell")(x, None)
        return nn.Dense(3, name="head")(x)


# What is hostile from here on.


class FixedHeads(nn.Module):
    """Attention written out: four heads, whatever is left of the width."""

    @nn.compact
    def __call__(self, x):
        b, t, _ = x.shape
        q, k, v = (nn.Dense(8, name=n)(x).reshape(b, t, 4, -1) for n in ("q", "k", "v"))
        weights = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2.0)
        x = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(b, t, -1)
        return nn.Dense(3, name="head")(nn.relu(x))


class FixedWidth(nn.Module):
    """Heads by their width, with a temperature that is read off the shape."""

    @nn.compact
    def __call__(self, x):
        b, t, _ = x.shape
        q, k, v = (nn.Dense(8, name=n)(x).reshape(b, t, -1, 2) for n in ("q", "k", "v"))
        weights = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5)
        x = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(b, t, -1)
        return nn.Dense(3, name="head")(nn.relu(x))


class ByWidth(nn.Module):
    """A shortcut where the widths happen to differ."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="stem")(x)
        y = nn.Dense(6, name="branch")(nn.relu(nn.Dense(6, name="inner")(x)))
        if x.shape[-1] != 6:
            x = nn.Dense(6, name="shortcut")(x)
        return nn.Dense(3, name="head")(nn.relu(x + y))


class ScaledByWidth(nn.Module):
    """Divided by the number of channels, as it was."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        return nn.Dense(3, name="head")(x / x.shape[-1] ** 0.5)


class MeanOverChannels(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        gate = nn.sigmoid(x.mean(-1, keepdims=True))
        return nn.Dense(3, name="head")(nn.relu(nn.Dense(5, name="inner")(x * gate)))


class MaxOverChannels(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="stem")(x)
        return nn.Dense(3, name="head")(x - x.max(-1, keepdims=True))


class SoftmaxOverChannels(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.softmax(nn.Dense(6, name="stem")(x))
        return nn.Dense(3, name="head")(x)


class FirstChannels(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        return nn.Dense(3, name="head")(x[..., :4])


class Reversed(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        return nn.Dense(3, name="head")(x[..., ::-1])


class ReversedAndKept(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        return nn.Dense(3, name="head")(x + x[..., ::-1])


class OneChannel(nn.Module):
    """One channel gates the others."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        return nn.Dense(3, name="head")(x * x[..., 2:3])


class Unequal(nn.Module):
    @nn.compact
    def __call__(self, x):
        a, b = jnp.split(nn.Dense(7, name="stem")(x), [4], axis=-1)
        return nn.Dense(3, name="head")(nn.relu(a)) + nn.Dense(3, name="other")(nn.tanh(b))


class SplitApart(nn.Module):
    """Halves of equal length that go different ways."""

    @nn.compact
    def __call__(self, x):
        a, b = jnp.split(nn.Dense(8, name="stem")(x), 2, axis=-1)
        return nn.Dense(3, name="head")(nn.relu(a)) + nn.Dense(3, name="other")(nn.tanh(b))


class SplitBySlices(nn.Module):
    """GLU written with slices."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8, name="both")(x)
        half = x.shape[-1] // 2
        return nn.Dense(3, name="head")(x[..., :half] * nn.sigmoid(x[..., half:]))


class Shuffled(nn.Module):
    """A channel shuffle between grouped convolutions."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (1, 1), feature_group_count=1, name="first")(x))
        x = x.reshape(*x.shape[:-1], 2, -1).swapaxes(-1, -2).reshape(x.shape)
        x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=2, name="grouped")(x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


class ToSpace(nn.Module):
    """Depth to space: a channel in four becomes a pixel."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), name="conv")(x))
        b, h, w, _ = x.shape
        x = x.reshape(b, h, w, 2, 2, -1).swapaxes(2, 3).reshape(b, 2 * h, 2 * w, -1)
        return nn.Dense(3, name="head")(nn.Conv(4, (3, 3), name="after")(x).mean((1, 2)))


class Written(nn.Module):
    """A constant written for six channels."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        return nn.Dense(3, name="head")(x * jnp.linspace(0.5, 1.5, 6)[None])


class Counted(nn.Module):
    """Weights made from the width."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        return nn.Dense(3, name="head")(x * jnp.arange(x.shape[-1])[None])


class Ones(nn.Module):
    """A sum over channels as a product with ones, of the width that is there."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        return nn.Dense(3, name="head")(x) + (x @ jnp.ones([x.shape[-1], 1]))


class Cumulated(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        return nn.Dense(3, name="head")(lax.cumsum(x, axis=x.ndim - 1))


class Sorted(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        return nn.Dense(3, name="head")(jnp.sort(x, -1))


class TopK(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        return nn.Dense(3, name="head")(lax.top_k(x, 4)[0])


class ArgMax(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="stem")(x)
        best = nn.one_hot(x.argmax(-1), 3)
        return nn.Dense(3, name="head")(nn.relu(nn.Dense(4, name="inner")(x))) + best


class Covariance(nn.Module):
    """Channels times channels."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(5, name="stem")(x)
        return nn.Dense(3, name="head")(jnp.einsum("btc,btd->bcd", x, x).reshape(len(x), -1))


class Gram(nn.Module):
    """Tokens times tokens: a sum over channels between two activations."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(5, name="stem")(x)
        return nn.Dense(3, name="head")(jnp.einsum("btc,bsc->bts", x, x))


class Pooled(nn.Module):
    """Maxout: the largest of each two channels."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8, name="stem")(x)
        return nn.Dense(3, name="head")(x.reshape(*x.shape[:-1], -1, 2).max(-1))


class Rolled(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        return nn.Dense(3, name="head")(x + jnp.roll(x, 1, -1))


class PaddedChannels(nn.Module):
    """The shortcut of the CIFAR ResNets: channels of zeros are added."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(4, name="stem")(x))
        y = nn.Dense(6, name="branch")(x)
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 1)])
        return nn.Dense(3, name="head")(nn.relu(x + y))


class Untouched(nn.Module):
    """Moved by its code between widths: an assertion on what comes in."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        if x.shape[-1] != 6:
            raise ValueError("six channels\nare what is wanted")
        return nn.Dense(3, name="head")(x)


class Chunks(nn.Module):
    """As many chunks as the width gives."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        parts = [x[..., i : i + 2].sum(-1) for i in range(0, x.shape[-1], 2)]
        return nn.Dense(3, name="head")(jnp.stack(parts, -1))


class Normalised(nn.Module):
    """Divided by its length over the channels."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="stem")(x)
        return nn.Dense(3, name="head")(x / jnp.linalg.norm(x, axis=-1, keepdims=True))


class Branching(nn.Module):
    """One of two layers, by what comes in."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="stem")(x)
        a, b = nn.Dense(6, name="a")(x), nn.Dense(6, name="b")(x)
        x = lax.cond(x.sum() > 0, lambda: nn.relu(a), lambda: nn.tanh(b))
        return nn.Dense(3, name="head")(x)


class While(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="stem")(x)
        x = lax.while_loop(lambda x: x.sum() > 1e4, lambda x: x / 2, x)
        return nn.Dense(3, name="head")(nn.relu(nn.Dense(4, name="inner")(x)))


class Outer(nn.Module):
    """All pairs of two layers' units, flattened."""

    @nn.compact
    def __call__(self, x):
        a, b = nn.Dense(3, name="a")(x), nn.relu(nn.Dense(4, name="b")(x))
        pairs = a[..., :, None] * b[..., None, :]
        return nn.Dense(3, name="head")(pairs.reshape(*x.shape[:-1], -1))


class Repeated(nn.Module):
    """Each channel twice in a row, then all of them twice."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(4, name="stem")(x))
        x = jnp.concatenate([jnp.repeat(x, 2, -1), jnp.tile(x, 2)], -1)
        return nn.Dense(3, name="head")(x)


class Transposed(nn.Module):
    """A convolution whose result is larger, with a bias behind its holes."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (1, 1), name="first")(x)
        x = nn.ConvTranspose(5, (2, 2), (2, 2), name="larger")(x)
        return nn.Dense(3, name="head")(nn.relu(x).mean((1, 2)))


class GeneralDense(nn.Module):
    """Two axes at once."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.DenseGeneral((3, 4), name="two")(x))
        return nn.DenseGeneral(3, axis=(-2, -1), name="head")(x)


class WeightNormed(nn.Module):
    """A kernel that is divided by its own norm, over what comes in."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], 5))
        x = nn.relu(x @ (kernel / jnp.linalg.norm(kernel, axis=0, keepdims=True)))
        return nn.Dense(3, name="head")(x)


class Standardised(nn.Module):
    """A kernel scaled by a mean over all of it: every unit hangs on every other."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], 5))
        x = nn.relu(x @ (kernel / jnp.abs(kernel).mean()))
        return nn.Dense(3, name="head")(x)


class Gates(nn.Module):
    """A parameter without a product: layer scale, tied to both streams."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="stem")(x)
        gate = self.param("gate", nn.initializers.ones, (x.shape[-1],))
        return nn.Dense(3, name="head")(
            nn.relu(x) * jnp.exp(gate).reshape([1] * (x.ndim - 1) + [-1])
        )


class Half(nn.Module):
    """bfloat16 inside."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem", dtype=jnp.bfloat16)(x))
        return nn.Dense(3, name="head")(x)


class Remembered(nn.Module):
    """remat and jit inside of the model."""

    @nn.compact
    def __call__(self, x):
        x = nn.remat(nn.Dense)(6, name="stem")(x)
        x = jax.jit(nn.relu)(x)
        return nn.remat(nn.Dense)(3, name="head")(x)


class Positive(nn.Module):
    """Kernels that are exponentials: a zero in the parameter is a one in the product."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (6, 4))
        x = nn.relu(nn.Dense(5, name="inner")(x @ jnp.exp(kernel)))
        return nn.Dense(3, name="head")(x)


class LogScaled(nn.Module):
    """Rows of a kernel scaled by the exponential of a parameter, which comes first."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], 3))
        return x @ (jnp.exp(scale)[:, None] * kernel)


class Scaled(nn.Module):
    """Rows of a kernel scaled by a parameter: zeros of either are zeros of the product."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], 3))
        return x @ (kernel * scale[:, None])


class JoinedKernels(nn.Module):
    """Two kernels in one product."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        a = self.param("a", nn.initializers.lecun_normal(), (x.shape[-1], 2))
        b = self.param("b", nn.initializers.lecun_normal(), (x.shape[-1], 3))
        return nn.Dense(3, name="head")(nn.relu(x @ jnp.concatenate([a, b], 1)))


class LowRank(nn.Module):
    """A product of two parameters, added to a third."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        n = x.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (n, 4))
        down = self.param("down", nn.initializers.lecun_normal(), (n, 2))
        up = self.param("up", nn.initializers.lecun_normal(), (2, 4))
        return nn.Dense(3, name="head")(nn.relu(x @ (kernel + down @ up)))


class InAndOutOfLoop(nn.Module):
    """One kernel, used once before a loop and then in it."""

    @nn.compact
    def __call__(self, x):
        a = nn.Dense(6, name="stem")(x)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (a.shape[-1], 5))
        y = nn.relu(a) @ kernel
        y, _ = lax.scan(lambda y, _: (y + jnp.exp(a) @ kernel, None), y, None, length=2)
        return nn.Dense(3, name="head")(nn.relu(y))


class Filled(nn.Module):
    """The width as a number in an array."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        y = nn.Dense(3, name="head")(x)
        return y / jnp.full([1, 3], x.shape[-1], x.dtype)


class Clipped(nn.Module):
    """The width as an argument of a jitted function."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        return jnp.clip(nn.Dense(3, name="head")(x), -x.shape[-1] / 6, x.shape[-1] / 6)


class Chosen(nn.Module):
    """What is taken of two results depends on a width."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        both = [nn.Dense(3, name="a")(x), nn.Dense(3, name="b")(x)]
        return both[x.shape[-1] == 6]


class WidthInLoop(nn.Module):
    """The width as a number in a loop of unknown length."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        y = nn.Dense(3, name="head")(x)
        return lax.while_loop(lambda y: (y > 0.01).any(), lambda y: y / x.shape[-1], y)


class MoreByWidth(nn.Module):
    """An operation more at another width."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        y = nn.Dense(3, name="head")(x)
        return y if x.shape[-1] == 6 else jnp.sin(y)


class OtherByWidth(nn.Module):
    """Another operation at another width."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        return (jnp.sin if x.shape[-1] == 6 else jnp.cos)(nn.Dense(3, name="head")(x))


class TableByWidth(nn.Module):
    """An array that is read off the width."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        return nn.Dense(3, name="head")(x) * np.linspace(1, x.shape[-1], 3, dtype=np.float32)[None]


class SwappedByWidth(nn.Module):
    """Its operands change places with the width."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        a, b = nn.Dense(3, name="a")(x), nn.Dense(3, name="b")(x)
        return a - b if x.shape[-1] == 6 else b - a


class Symmetric(nn.Module):
    """A kernel and its transpose in one sum: a row of zeros is none in the sum."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (6, 6))
        return nn.Dense(3, name="head")(nn.relu(x @ (kernel + kernel.T)))


class Rounded(nn.Module):
    """A kernel that is rounded going forward, as in training for quantization."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="stem")(x))
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], 3))
        rounded = kernel + lax.stop_gradient(jnp.round(8 * kernel) / 8 - kernel)
        return nn.Dense(3, name="head")(nn.relu(x @ rounded))


class ClassToken(nn.Module):
    """A token of its own, and positions: what is left of a unit differs from token to token."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="tokens")(x)
        first = self.param("first", nn.initializers.normal(0.5), (1, 1, x.shape[-1]))
        x = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, x.shape[-1])), x], 1)
        position = self.param("position", nn.initializers.normal(0.5), (1, *x.shape[1:]))
        x = nn.relu(nn.Dense(4, name="inner")(x + position))
        return nn.Dense(3, name="head")(x[:, 0])
