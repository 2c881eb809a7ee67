import functools
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from jax import lax

from kdjax.export import load_onnx, write_onnx
from kdjax.export.onnx_file import OPSET
from kdjax.types import BadInput, Field


@pytest.fixture(scope="module")
def path(deployed, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(deployed.predict, path, inputs=deployed.spec.inputs.fields)
    return path


def test_the_file_gives_the_logits_of_the_live_model(deployed, path):
    reloaded = load_onnx(path, threads=1)
    for batch in (1, 3, 64):
        images = deployed.images(batch)
        live = deployed.live(images)
        found = reloaded(images)
        assert (found.shape, found.dtype) == ((batch, 10), np.float32)
        np.testing.assert_allclose(found, live, rtol=0, atol=1e-5 * np.abs(live).max())


def test_every_family_gives_the_logits_of_the_live_model(every_family, tmp_path):
    write_onnx(every_family.predict, tmp_path / "m.onnx", inputs=every_family.spec.inputs.fields)
    images = every_family.images(3)
    live = every_family.live(images)
    found = load_onnx(tmp_path / "m.onnx", threads=1)(images)
    np.testing.assert_allclose(found, live, rtol=0, atol=1e-5 * np.abs(live).max())


def test_the_file_is_valid_and_says_what_it_takes(path):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [OPSET]
    (image,), (logits,) = model.graph.input, model.graph.output
    assert (image.name, logits.name) == ("image", "logits")
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    first, *rest = image.type.tensor_type.shape.dim
    assert first.dim_param
    assert [dim.dim_value for dim in rest] == [12, 12, 3]


def test_normalisations_are_folded(path):
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not operators & {"BatchNormalization", "Log", "Pow"}


def test_rounding_for_the_compiler_is_left_out_of_the_file(tmp_path):
    """That of the views, which is one of 22 bits; any other is the model's own."""

    def predict(images, bits):
        mean = images.astype(jnp.float32).mean((1, 2)) / 3
        return lax.reduce_precision(mean, exponent_bits=8, mantissa_bits=bits)

    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), np.uint8)
    for bits, rounds in ((22, False), (4, True)):
        path = tmp_path / f"{bits}.onnx"
        write_onnx(
            functools.partial(predict, bits=bits), path, inputs={"image": Field((5, 5, 3), "uint8")}
        )
        assert ({"Log", "Pow"} <= {n.op_type for n in onnx.load(path).graph.node}) == rounds
        live = predict(images, bits)
        np.testing.assert_allclose(load_onnx(path, threads=1)(images), live, rtol=3e-7)
    assert lax.reduce_precision(jnp.float32(1 + 2**-8), 8, 4) == 1


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_the_runtime_has_the_threads_asked_for(deployed, path):
    tasks = Path("/proc/self/task")
    for threads in (1, 3):
        before = len(list(tasks.iterdir()))
        reloaded = load_onnx(path, threads=threads)
        assert len(list(tasks.iterdir())) == before + threads - 1  # the caller is one of them
        assert reloaded(deployed.images(2)).shape == (2, 10)
        del reloaded


@pytest.mark.parametrize("module", ["jax2onnx", "onnx"])
def test_without_the_extra_there_is_one_line(deployed, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)  # how Python marks a module as absent
    with pytest.raises(BadInput, match=r"ONNX needs its extra: pip install 'kdjax\[export\]'"):
        write_onnx(deployed.predict, tmp_path / "m.onnx", inputs=deployed.spec.inputs.fields)
    assert not (tmp_path / "m.onnx").exists()


def test_without_the_runtime_there_is_one_line(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BadInput, match=r"ONNX needs its extra: pip install 'kdjax\[export\]'"):
        load_onnx(path, threads=1)
