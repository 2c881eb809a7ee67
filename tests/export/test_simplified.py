"""Files in fewer operators: none for shapes, channels first throughout, the same numbers."""

from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdjax.export import load_onnx, write_onnx
from kdjax.export.simplified import simplify
from kdjax.models.blocks import Compute
from kdjax.models.inverted_residual import Squeeze, SqueezeExcitation
from kdjax.models.shufflenet import shuffle
from kdjax.types import Field
from tests.quant.quantized import lively

SHAPE = (6, 5, 3)
FOR_SHAPES = {"Shape", "Gather", "Concat", "Expand", "Reshape"}


def _written(function, path):
    """The operators of the file of a function of images between 0 and 1, and its largest difference."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, images):
            mean = np.reshape(np.float32([0.4, 0.5, 0.6]), (1, 1, 1, 3))
            return function((images.astype(jnp.float32) / 255 - mean) / 0.3)

    images = np.random.default_rng(1).integers(0, 256, (3, *SHAPE), np.uint8)
    variables = lively(Net(), images)
    inputs = {"image": Field(SHAPE, "uint8")}
    write_onnx(lambda images: Net().apply(variables, images), path, inputs=inputs)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    for batch in (1, 3):
        live = np.asarray(jax.jit(Net().apply)(variables, images[:batch]))
        found = load_onnx(path, threads=1)(images[:batch])
        np.testing.assert_allclose(found, live, rtol=0, atol=2e-6 * np.abs(live).max())
    return Counter(node.op_type for node in model.graph.node)


def _conv(x, name, features=8):
    return nn.Conv(features, (3, 3), name=name)(x)


def _excited(x):
    squeeze = Squeeze(width=4, activation=nn.relu, gate=jax.nn.hard_sigmoid)
    return SqueezeExcitation(squeeze, Compute(), name="excite")(x)


def test_squeeze_and_excitation_between_hard_swishes(tmp_path):
    def net(x):
        x = _excited(jax.nn.hard_swish(_conv(x, "a")))
        x = jax.nn.hard_swish(_conv(x, "b")) + x
        return nn.Dense(4, name="head")(x.mean((1, 2)))

    kinds = _written(net, tmp_path / "m.onnx")
    assert not kinds.keys() & {*FOR_SHAPES, "ReduceSum", "Unsqueeze", "Max"}
    # The image is moved before anything else, as bytes.
    assert kinds["Transpose"] == 1
    assert (kinds["Conv"], kinds["Gemm"], kinds["GlobalAveragePool"]) == (4, 1, 2)
    first = onnx.load(tmp_path / "m.onnx").graph.node[0]
    assert (first.op_type, list(first.input)) == ("Transpose", ["image"])


def test_halves_that_are_joined_and_shuffled(tmp_path):
    """As of ShuffleNet; and what is joined, split or shuffled otherwise is right, too."""

    def net(x):
        x = nn.relu(_conv(x, "a"))
        left, right = jnp.split(x, 2, axis=-1)
        x = shuffle(jnp.concatenate([left, nn.relu(_conv(right, "b", 4))], axis=-1), 2)
        left, right = jnp.split(x, 2, axis=-1)
        x = shuffle(jnp.concatenate([left, nn.relu(_conv(right, "c", 4)), right], axis=-1), 4)
        return nn.Dense(4, name="head")(_conv(x, "d").mean((1, 2)))

    kinds = _written(net, tmp_path / "m.onnx")
    assert not kinds.keys() & {"Shape", "Gather", "Expand", "Unsqueeze"}
    # Of the image, and one within each shuffle.
    assert (kinds["Transpose"], kinds["Reshape"], kinds["Concat"], kinds["Split"]) == (3, 4, 2, 2)

    def other(x):
        x = nn.relu(_conv(x, "a"))
        above, below = jnp.split(x, 2, axis=1)
        x = _conv(jnp.concatenate([below, above], axis=1), "b")
        apart = x.reshape(*x.shape[:-1], 2, 4)
        x = jnp.concatenate([apart[..., ::-1, :].reshape(x.shape), x], axis=-1)
        left, right = jnp.split(x, [6], axis=-1)
        return nn.Dense(4, name="head")(
            _conv(right, "d").mean((1, 2)) + left.mean((1, 2, 3))[:, None]
        )

    _written(other, tmp_path / "other.onnx")


def test_gates_that_are_no_simple_ones(tmp_path):
    """Swish inside, as of EfficientNet; a gate of one channel for all."""

    def net(x):
        x = nn.relu(_conv(x, "a"))
        gate = nn.silu(nn.Dense(4, name="reduce")(x.mean((1, 2))))
        x = x * nn.sigmoid(nn.Dense(8, name="expand")(gate))[:, None, None]
        x = x * nn.sigmoid(nn.Dense(1, name="one")(x.mean((1, 2))))[:, None, None]
        return nn.Dense(4, name="head")(_conv(x, "b").mean((1, 2)))

    kinds = _written(net, tmp_path / "m.onnx")
    assert not kinds.keys() & {*FOR_SHAPES, "ReduceSum"}
    assert kinds["Transpose"] == 1


@pytest.mark.parametrize(
    "end",
    [
        lambda x: x.reshape(x.shape[0], -1)[:, :4],  # channels last, entry for entry
        lambda x: jnp.concatenate([x.max((1, 2)), x.sum((1, 2)), x.min((1, 2))], 1),
        lambda x: (x - x.mean((1, 2), keepdims=True)).max((1, 2)),
        lambda x: x.mean((1, 2)) * x.max((1, 2, 3), keepdims=True)[:, 0, 0],
        lambda x: x.mean((2, 3)),  # over channels: not of space
        lambda x: (x * jnp.arange(8.0)[None, None, None]).sum((1, 2)) / 7,
        lambda x: (x + jnp.arange(30.0).reshape(1, 6, 5, 1)).mean((1, 2)),
    ],
)
def test_what_reads_an_image_reads_the_same(end, tmp_path):
    _written(lambda x: end(jnp.tanh(_conv(x, "a")) * 2.0), tmp_path / "m.onnx")


def test_both_orders_of_one_value(tmp_path):
    def net(x):
        x = nn.relu(_conv(x, "a"))
        return x.reshape(x.shape[0], -1)[:, 3:5] + _conv(x, "b").mean((1, 2))[:, :2]

    assert _written(net, tmp_path / "m.onnx")["Transpose"] == 2


def test_numbers_that_are_not_those_of_a_rectification_or_a_mean_stay(tmp_path):
    def net(x):
        x = jnp.maximum(_conv(x, "a"), 0.1)
        return (x.sum((1, 2)) / 29.0) * 1.5

    kinds = _written(net, tmp_path / "m.onnx")
    assert kinds["Max"] == kinds["ReduceSum"] == kinds["Mul"] == 1
    assert not kinds["Relu"] + kinds["GlobalAveragePool"]


def test_a_bias_of_a_layer_that_is_halved_stays_an_addition(tmp_path):
    """As of the queries of heads of four numbers: rounding is looked for behind the bias."""
    random = np.random.default_rng(0)
    kernel, bias = (random.normal(size=size).astype(np.float32) for size in ((3, 4), (4,)))
    path, x = tmp_path / "model.onnx", random.normal(size=(5, 3)).astype(np.float32)
    write_onnx(
        lambda x: (x @ kernel + bias[None]) / 2.0, path, inputs={"x": Field((3,), "float32")}
    )
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert not kinds["Mean"]
    found = load_onnx(path, threads=1)(x)
    np.testing.assert_allclose(found, (x.astype(float) @ kernel + bias) / 2, rtol=1e-5, atol=1e-6)


def test_graphs_inside_of_operators_are_left_alone():
    """What they read is no operand of the operator, and would be taken for what nothing reads."""
    one = numpy_helper.from_array(np.float32(1), "one")
    branches = [
        helper.make_graph(
            [helper.make_node(kind, ["twice", "x"], [f"{kind}.y"])],
            kind,
            [],
            [helper.make_tensor_value_info(f"{kind}.y", TensorProto.FLOAT, [2])],
        )
        for kind in ("Add", "Sub")
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "one"], ["same"]),
            helper.make_node("Add", ["same", "same"], ["twice"]),
            helper.make_node(
                "If", ["yes"], ["y"], then_branch=branches[0], else_branch=branches[1]
            ),
        ],
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("yes", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [one],
    )
    opset = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    simplify(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    given = {"x": np.float32([1, 2]), "yes": np.asarray(True)}
    np.testing.assert_array_equal(session.run(["y"], given)[0], [3, 6])
