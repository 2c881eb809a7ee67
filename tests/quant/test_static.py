import dataclasses
import functools
import logging
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import optax
import pytest
from onnx import numpy_helper

from kdjax import config, data, prune, tree
from kdjax.export import load_onnx, write_onnx
from kdjax.quant import quantize_onnx
from kdjax.stages import finetune
from kdjax.stages.model import Spec
from kdjax.train import TrainState, make_train_step
from kdjax.types import BadInput

SPEC = Spec(
    encoder=config.CNN(name="cnn", widths=(32, 64, 128)),
    classes=10,
    image_shape=(8, 8, 1),
    size=8,
    mean=(0.3,),
    std=(0.37,),
)
SPARSITY = 0.7


@functools.cache
def fitted():
    """A network that knows its digits after a few steps."""
    dataset, tx = data.digits("train"), optax.adam(3e-3)
    step = jax.jit(make_train_step(finetune.objective(SPEC.module()), tx))
    state = TrainState.start(SPEC.init(jax.random.key(0)), tx)
    seen, labels = SPEC.preprocess(jnp.asarray(dataset.images())), jnp.asarray(dataset.labels)
    for i in range(30):
        rows = slice(128 * (i % 11), 128 * (i % 11 + 1))
        batch = {"image": seen[rows], "label": labels[rows]}
        state, _ = step(state, batch, jax.random.key(0))
    return dict(state.variables)


def pruned():
    """The same with most of its kernels' weights at zero."""

    def zeroed(chosen, leaf):
        if not chosen:
            return leaf
        return jnp.where(prune.masks.topk_mask(jnp.abs(leaf), SPARSITY), leaf, 0.0)

    params = fitted()["params"]
    kernels = tree.match(params, ".*/kernel")
    return {**fitted(), "params": jax.tree.map(zeroed, kernels, params)}


class Files:
    """A float file and its int8 one."""

    def __init__(self, folder, variables):
        self.variables = variables
        self.float, self.int8 = folder / "float.onnx", folder / "int8.onnx"
        write_onnx(SPEC.deployed(variables), self.float, image_shape=SPEC.image_shape)
        quantize_onnx(self.float, self.int8, calibration=data.digits("train").images()[:200])


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("dense"), fitted())


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("sparse"), pruned())


def test_the_file_is_much_smaller(dense):
    assert tree.size(dense.variables["params"]) > 60_000
    assert dense.int8.stat().st_size < 0.3 * dense.float.stat().st_size


def test_the_labels_are_those_of_the_float_file(dense):
    test = data.digits("test")
    float_logits, logits = (
        load_onnx(path, threads=1)(test.images()) for path in (dense.float, dense.int8)
    )
    assert (float_logits.argmax(-1) == test.labels).mean() > 0.9
    assert (logits.argmax(-1) == float_logits.argmax(-1)).mean() > 0.98
    assert 0 < np.abs(logits - float_logits).max() < 0.1 * np.abs(float_logits).max()


def constants(path):
    model = onnx.load(path)
    return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}, model.graph.node


def weights(path):
    """The int8 weights: `(values, scale, zero point, axis of the scale)` of each layer."""
    values, nodes = constants(path)
    found = []
    for node in nodes:
        if node.op_type != "DequantizeLinear":
            continue
        value, scale, zero = (values.get(name) for name in node.input)
        if value is not None and value.ndim > 1:
            (axis,) = (a.i for a in node.attribute if a.name == "axis")
            found.append((value, scale, zero, axis))
    return sorted(found, key=lambda layer: layer[0].shape)


def test_weights_are_int8_with_a_scale_for_each_output_channel(dense):
    shapes = [(32, 1, 3, 3), (64, 32, 3, 3), (128, 10), (128, 64, 3, 3)]
    layers = weights(dense.int8)
    assert [value.shape for value, *_ in layers] == shapes
    for (value, scale, zero, axis), channels in zip(layers, (32, 64, 10, 128), strict=True):
        assert (value.dtype, zero.dtype, scale.dtype) == (np.int8, np.int8, np.float32)
        assert scale.shape == zero.shape == (channels,) == (value.shape[axis],)
        assert not zero.any()
        assert len(np.unique(scale)) > 1
        # Each channel uses the whole range.
        others = tuple(i for i in range(value.ndim) if i != axis)
        assert (np.abs(value.astype(int)).max(axis=others) >= 126).all()


def test_weights_are_the_nearest_multiples_of_their_scale(dense):
    folded, _ = constants(dense.float)
    layers = [value for value in folded.values() if value.ndim > 1]
    for value, scale, _, axis in weights(dense.int8):
        scale = np.expand_dims(scale, [i for i in range(value.ndim) if i != axis])
        error = [
            np.abs(layer - value * scale).max() for layer in layers if layer.shape == value.shape
        ]
        assert min(error) <= 0.5001 * scale.max()


def test_activations_are_uint8_with_one_scale(dense):
    values, nodes = constants(dense.int8)
    activations = [node for node in nodes if node.op_type == "QuantizeLinear"]
    assert len(activations) >= 4  # what goes into each convolution and into the dense layer
    for node in activations:
        _, scale, zero = node.input
        assert values[zero].dtype == np.uint8
        assert values[scale].size == 1
        assert values[scale] > 0


def test_both_branches_of_a_residual_block_are_quantized(tmp_path):
    spec = dataclasses.replace(SPEC, encoder=config.CifarResNet(name="cifar_resnet", depth=8))
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.float32(random.uniform(-0.1, 0.2, leaf.shape)), spec.abstract()
    )
    variables["batch_stats"] = jax.tree.map(jnp.ones_like, variables["batch_stats"])
    write_onnx(spec.deployed(variables), tmp_path / "f.onnx", image_shape=(8, 8, 1))
    images = data.digits("train").images()[:100]
    quantize_onnx(tmp_path / "f.onnx", tmp_path / "q.onnx", calibration=images)
    nodes = onnx.load(tmp_path / "q.onnx").graph.node
    made_by = {name: node.op_type for node in nodes for name in node.output}
    sums = [node for node in nodes if node.op_type == "Add"]
    assert len(sums) == 3
    for node in sums:
        assert [made_by[name] for name in node.input] == ["DequantizeLinear"] * 2
    expected, found = (
        load_onnx(tmp_path / name, threads=1)(images) for name in ("f.onnx", "q.onnx")
    )
    assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_the_first_and_last_value_stay_as_they_were(dense):
    float_graph, graph = onnx.load(dense.float).graph, onnx.load(dense.int8).graph
    for mine, others in ((graph.input, float_graph.input), (graph.output, float_graph.output)):
        assert [v.name for v in mine] == [v.name for v in others]
        assert [v.type.tensor_type.elem_type for v in mine] == [
            v.type.tensor_type.elem_type for v in others
        ]
    onnx.checker.check_model(onnx.load(dense.int8), full_check=True)


def test_pruned_weights_stay_exact_zeros(sparse):
    params = tree.named_leaves(sparse.variables["params"])
    kernels = [np.asarray(leaf) for name, leaf in params.items() if name.endswith("kernel")]
    by_shape = {}
    for kernel in kernels:
        kernel = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel
        by_shape[kernel.shape] = kernel
    layers = weights(sparse.int8)
    assert len(layers) == len(by_shape) == len(kernels)
    for value, *_ in layers:
        zeros = by_shape[value.shape] == 0
        assert zeros.mean() == pytest.approx(SPARSITY, abs=0.01)
        assert not value[zeros].any()
        assert value[~zeros].any()


@pytest.mark.parametrize("batch", [1, 33, 1000])
def test_the_passes_of_calibration_do_not_matter(dense, tmp_path, batch):
    calibration = data.digits("train").images()[:200]
    quantize_onnx(dense.float, tmp_path / "q.onnx", calibration=calibration, batch=batch)
    found, _ = constants(tmp_path / "q.onnx")
    expected, _ = constants(dense.int8)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_other_images_calibrate_otherwise(dense, tmp_path):
    dark = np.zeros((4, 8, 8, 1), np.uint8)
    quantize_onnx(dense.float, tmp_path / "q.onnx", calibration=dark)
    found, _ = constants(tmp_path / "q.onnx")
    expected, _ = constants(dense.int8)
    assert any(not np.array_equal(found[name], value) for name, value in expected.items())


def test_without_images_nothing_is_written(dense, tmp_path):
    none = np.zeros((0, 8, 8, 1), np.uint8)
    with pytest.raises(BadInput, match=r"calibration_examples: .* at least one image, found 0"):
        quantize_onnx(dense.float, tmp_path / "q.onnx", calibration=none)
    assert not (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize("module", ["onnx", "onnxruntime"])
def test_without_the_extra_there_is_one_line(dense, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)  # how Python marks a module as absent
    with pytest.raises(BadInput, match=r"int8 needs ONNX Runtime: pip install 'kdjax\[export\]'"):
        quantize_onnx(
            dense.float, tmp_path / "q.onnx", calibration=np.zeros((1, 8, 8, 1), np.uint8)
        )


def test_logging_is_left_as_it_was(dense, tmp_path, caplog):
    root, before = logging.getLogger("root"), list(logging.getLogger("root").filters)
    quantize_onnx(dense.float, tmp_path / "q.onnx", calibration=np.ones((1, 8, 8, 1), np.uint8))
    assert root.filters == before
    assert not [record for record in caplog.records if "pre-processing" in record.getMessage()]
