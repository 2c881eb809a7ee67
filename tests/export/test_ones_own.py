"""Shrunk networks of one's own: a file gives what the live one gives, or is not written."""

import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kdjax.export import (
    load_litert,
    load_onnx,
    load_stablehlo,
    write_litert,
    write_onnx,
    write_stablehlo,
)
from kdjax.shrink import Model, groups_of, take_away
from kdjax.types import BadInput, Field
from tests.shrink import nets
from tests.shrink.parity import kept_at_random, normal, variables_of

LITERT = all(importlib.util.find_spec(n) for n in ("litert_converter", "ai_edge_litert"))
FORMATS = {
    "onnx": (write_onnx, lambda path: load_onnx(path, threads=1)),
    "stablehlo": (write_stablehlo, load_stablehlo),
    **({"litert": (write_litert, lambda path: load_litert(path, threads=1))} if LITERT else {}),
}
SHAPES = ((2, 5, 6, 4), (2, 3, 4), (2, 4))
# What a runtime has no operator for, or whose code wants the number of its batch.
REFUSED = {
    "onnx": {"Covariance", "Half"},
    "stablehlo": {"Covariance"},
    "litert": {
        "Recurrent",
        "Looped",
        "Stacked",
        "Sorted",
        "TopK",
        "While",
        "Half",
        "InAndOutOfLoop",
        "WidthInLoop",
    },
}


def _names():
    return [
        name
        for name, net in vars(nets).items()
        if isinstance(net, type)
        and issubclass(net, nn.Module)
        and net.__module__ == nets.__name__
        and name != "Cell"
    ]


def _takes(net, shape):
    try:
        jax.eval_shape(lambda: net.init(jax.random.key(0), normal(0, *shape)))
    except (TypeError, ValueError, AssertionError, jax.errors.JAXTypeError):
        return False
    return True


def _shrunk(name):
    """A function of raw images, half of the units gone, and the shape of an image."""
    net = getattr(nets, name)()
    shape = next(shape for shape in SHAPES if _takes(net, shape))
    x = normal(0, *shape)
    variables = variables_of(net, x)
    groups = groups_of(Model(net), variables, x)
    small = take_away(Model(net), groups, kept_at_random(groups, 1), variables, x)

    def predict(images):
        x = images.astype(jnp.float32) / 128 - 1
        return small.module.apply(small.variables, x.reshape(images.shape[0], *shape[1:]))

    return predict, (1, *shape[1:])[-3:] if len(shape) == 4 else (1, *(1, *shape[1:])[-2:])


def _file_is_live(predict, image_shape, format, path):
    write, load = FORMATS[format]
    images = np.random.default_rng(5).integers(0, 256, (4, *image_shape), np.uint8)
    live = np.asarray(jax.jit(predict)(images))
    write(predict, path, inputs={"image": Field(image_shape, "uint8")})
    found = np.asarray(load(path)(images))
    np.testing.assert_allclose(found, live, rtol=0, atol=1e-5 * np.abs(live).max())


SHORT = ("GroupNormed", "Depthwise")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in SHORT else pytest.mark.thorough) for n in _names()]
)
def test_the_file_of_a_shrunk_network_is_the_network(name, format, tmp_path):
    predict, image_shape = _shrunk(name)
    if name in REFUSED[format]:
        with pytest.raises(BadInput, match=r"ONNX|StableHLO|LiteRT"):
            _file_is_live(predict, image_shape, format, tmp_path / "model")
        assert not (tmp_path / "model").exists()
    else:
        _file_is_live(predict, image_shape, format, tmp_path / "model")


CALLS = {
    "by position": lambda x: nn.max_pool(x, (2, 2), (2, 2)),
    "pairs": lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (0, 1))),
    "mean of pairs": lambda x: nn.avg_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)), False),
    "min": lambda x: nn.pooling.min_pool(x, (2, 2), (2, 2)),
    "window": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 3, 1), (1, 2, 1, 1), "SAME"),
    "no batch": jax.vmap(lambda x: nn.max_pool(x, (2, 2))),
}


@pytest.mark.parametrize("call", CALLS)
def test_pools_are_called_as_linen_lets_them(call, tmp_path):
    def predict(images):
        x = CALLS[call](images.astype(jnp.float32) / 128 - 1)
        return x.reshape(images.shape[0], -1)

    _file_is_live(predict, (6, 7, 2), "onnx", tmp_path / "model.onnx")


def test_a_file_that_would_be_wrong_is_not_written(tmp_path):
    """A tolerance that no file keeps stands for a converter that is wrong."""

    def predict(images):
        return jnp.tanh(images.astype(jnp.float32).mean((1, 2)) / 77) ** 3

    with pytest.raises(BadInput, match=r"differs by .* of the largest one from the live model's"):
        write_onnx(
            predict,
            tmp_path / "m.onnx",
            inputs={"image": Field((5, 5, 3), "uint8")},
            tolerance=-1.0,
        )
    assert not (tmp_path / "m.onnx").exists()


def test_a_batch_of_none_is_refused_with_a_line(tmp_path):
    write_onnx(
        lambda x: x.mean((1, 2)), tmp_path / "m.onnx", inputs={"image": Field((5, 5, 3), "uint8")}
    )
    with pytest.raises(BadInput, match="takes a batch of 1 or more examples, not of 0"):
        load_onnx(tmp_path / "m.onnx", threads=1)(np.zeros((0, 5, 5, 3), np.uint8))
