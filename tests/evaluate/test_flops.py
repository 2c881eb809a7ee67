import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kdjax.evaluate import flops


def _shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


class _Block(nn.Module):
    channels: int
    stride: int

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(nn.Conv, self.channels, use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        y = nn.relu(norm()(conv((3, 3), self.stride)(x)))
        y = norm()(conv((3, 3))(y))
        if y.shape != x.shape:
            x = norm()(conv((1, 1), self.stride)(x))
        return nn.relu(x + y)


class _ResNet18(nn.Module):
    """With the stem of CIFAR: 3x3, stride 1, no max-pool."""

    width: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(self.width, (3, 3), use_bias=False)(x))
        for stage in range(4):
            for block in range(2):
                stride = 2 if stage and not block else 1
                x = _Block(self.width * 2**stage, stride)(x)
        return nn.Dense(10)(x.mean(axis=(1, 2)))


@pytest.mark.parametrize(("width", "macs"), [(64, 555_422_720), (16, 35_046_656)])
def test_resnet18_on_cifar_costs_what_is_published(width, macs):
    model, image = _ResNet18(width), _shape(1, 32, 32, 3)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    assert flops(model.apply, variables, image) == 2 * macs
    assert flops(jax.jit(model.apply), variables, _shape(8, 32, 32, 3)) == 8 * 2 * macs


# An independent count: with ones for inputs, each multiply-accumulate adds exactly 1 to the sum of
# the outputs, and what falls into a hole adds 0.
def _macs_by_running(fn, *shapes):
    return int(np.asarray(fn(*(jnp.ones(s.shape, s.dtype) for s in shapes)), np.float64).sum())


_conv = functools.partial(lax.conv_general_dilated, window_strides=(1, 1), padding="VALID")

_PRODUCTS = {
    "plain": (_conv, [_shape(2, 3, 8, 9), _shape(5, 3, 3, 2)]),
    "strides": (
        functools.partial(_conv, window_strides=(2, 3)),
        [_shape(2, 3, 8, 9), _shape(5, 3, 3, 2)],
    ),
    "dilated kernel": (
        functools.partial(_conv, rhs_dilation=(2, 1)),
        [_shape(2, 3, 8, 9), _shape(5, 3, 3, 2)],
    ),
    "holes in the input": (
        functools.partial(
            _conv, lhs_dilation=(2, 3), rhs_dilation=(1, 2), padding=((0, 0), (0, 0))
        ),
        [_shape(2, 3, 5, 4), _shape(5, 3, 3, 2)],
    ),
    "cropped, with holes": (
        functools.partial(_conv, lhs_dilation=(2, 3), padding=((-1, 0), (-2, -1))),
        [_shape(2, 3, 5, 4), _shape(5, 3, 3, 2)],
    ),
    "stride over holes": (
        functools.partial(
            _conv, window_strides=(2, 3), lhs_dilation=(2, 2), padding=((-1, -1), (-3, 0))
        ),
        [_shape(2, 3, 7, 8), _shape(5, 3, 3, 2)],
    ),
    "groups": (
        functools.partial(_conv, feature_group_count=3),
        [_shape(2, 6, 8, 9), _shape(9, 2, 3, 2)],
    ),
    "depthwise": (
        functools.partial(_conv, feature_group_count=6),
        [_shape(2, 6, 8, 9), _shape(6, 1, 3, 2)],
    ),
    "batch groups": (
        functools.partial(_conv, batch_group_count=2),
        [_shape(6, 3, 8, 9), _shape(4, 3, 3, 2)],
    ),
    "channels last": (
        functools.partial(_conv, dimension_numbers=("NHWC", "HWIO", "NHWC")),
        [_shape(2, 8, 9, 3), _shape(3, 2, 3, 5)],
    ),
    "odd axis orders": (
        functools.partial(_conv, dimension_numbers=("HNCW", "IWOH", "CWNH")),
        [_shape(8, 2, 3, 9), _shape(3, 2, 5, 3)],
    ),
    "one axis": (
        functools.partial(lax.conv_general_dilated, window_strides=(2,), padding="VALID"),
        [_shape(2, 3, 11), _shape(4, 3, 5)],
    ),
    "matrices": (jnp.matmul, [_shape(3, 4), _shape(4, 5)]),
    "batched": (functools.partial(jnp.einsum, "bqhd,bkhd->bhqk"), [_shape(2, 3, 4, 5)] * 2),
    "two axes": (functools.partial(jnp.tensordot, axes=2), [_shape(2, 3, 4), _shape(3, 4, 5)]),
    "vectors": (jnp.dot, [_shape(7), _shape(7)]),
    "integers": (jnp.matmul, [_shape(3, 4, dtype=jnp.int32), _shape(4, 5, dtype=jnp.int32)]),
    "jit": (jax.jit(jax.jit(jnp.matmul)), [_shape(3, 4), _shape(4, 5)]),
    "remat": (jax.checkpoint(jnp.matmul), [_shape(3, 4), _shape(4, 5)]),
    "vmap": (jax.vmap(jnp.matmul), [_shape(6, 3, 4), _shape(6, 4, 5)]),
    "custom_jvp": (jax.custom_jvp(jnp.matmul), [_shape(3, 4), _shape(4, 5)]),
    "custom_vjp": (jax.custom_vjp(jnp.matmul), [_shape(3, 4), _shape(4, 5)]),
}


@pytest.mark.parametrize(("fn", "shapes"), _PRODUCTS.values(), ids=_PRODUCTS.keys())
def test_each_product_counts_two(fn, shapes):
    if isinstance(fn, jax.custom_jvp):
        fn.defjvp(lambda primals, tangents: (jnp.matmul(*primals), jnp.matmul(*tangents)))
    if isinstance(fn, jax.custom_vjp):
        fn.defvjp(lambda a, b: (a @ b, (a, b)), lambda ab, g: (g @ ab[1].T, ab[0].T @ g))
    expected = _macs_by_running(fn, *shapes)
    assert expected > 0
    assert flops(fn, *shapes) == 2 * expected


def test_padding_counts_as_full():
    kernel = _shape(5, 3, 3, 3)
    same = functools.partial(_conv, padding="SAME")
    assert flops(same, _shape(2, 3, 8, 8), kernel) == 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)
    assert flops(same, _shape(2, 3, 8, 8), kernel) == flops(_conv, _shape(2, 3, 10, 10), kernel)


def test_a_transposed_convolution_costs_its_input_times_its_kernel():
    deconv = nn.ConvTranspose(5, (4, 4), strides=(2, 2), use_bias=False)
    image = _shape(1, 16, 16, 3)
    variables = jax.eval_shape(deconv.init, jax.random.key(0), image)
    assert flops(deconv.apply, variables, image) == 2 * (16 * 16 * 3) * (4 * 4 * 5)


def test_both_gradients_of_a_product_cost_it_twice_more():
    def loss(a, b):
        return jnp.sum(a @ b)

    a, b = _shape(3, 4), _shape(4, 5)
    once = 2 * 3 * 4 * 5
    assert flops(loss, a, b) == once
    assert flops(jax.value_and_grad(loss, argnums=(0, 1)), a, b) == 3 * once


def test_a_scan_counts_its_length_and_nests():
    def power(a):
        def outer(x, _):
            return lax.fori_loop(0, 3, lambda _, y: y @ a, x), None

        return lax.scan(outer, a, length=7)[0]

    assert flops(power, _shape(4, 4)) == 7 * 3 * 2 * 4**3


def test_a_cond_counts_its_most_expensive_branch():
    def choose(i, a):
        return lax.switch(i, [lambda x: x, lambda x: x @ x, lambda x: x @ x @ x], a)

    assert flops(choose, _shape(dtype=jnp.int32), _shape(4, 4)) == 2 * 2 * 4**3


def test_what_is_no_product_costs_nothing():
    assert flops(lambda x: jax.nn.softmax(nn.max_pool(x + 1, (2, 2))), _shape(1, 8, 8, 3)) == 0


def test_a_while_is_refused_only_with_products_inside():
    def repeat(body):
        return lambda x: lax.while_loop(lambda y: y.sum() < 9, body, x)

    assert flops(repeat(lambda x: x + 1), _shape(4, 4)) == 0
    with pytest.raises(ValueError, match="'while' with products inside"):
        flops(repeat(lambda x: x @ x), _shape(4, 4))
    with pytest.raises(ValueError, match="'while'"):
        flops(
            jax.jit(lambda x: lax.while_loop(lambda y: (y @ y).sum() < 9, lambda y: y, x)),
            _shape(4, 4),
        )


def test_what_cannot_be_seen_is_refused():
    exported = jax.export.export(jax.jit(lambda x: x @ x))(_shape(4, 4))
    with pytest.raises(ValueError, match="call_exported"):
        flops(exported.call, _shape(4, 4))
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    spec = jax.sharding.PartitionSpec("data")
    sharded = jax.shard_map(lambda x: x @ x.T, mesh=mesh, in_specs=spec, out_specs=spec)
    with pytest.raises(ValueError, match="shard_map"):
        flops(sharded, _shape(8, 4))
    with pytest.raises(ValueError, match="ragged_dot"):
        flops(lax.ragged_dot, _shape(4, 3), _shape(2, 3, 5), _shape(2, dtype=jnp.int32))
