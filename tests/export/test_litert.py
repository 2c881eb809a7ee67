import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kdjax.export import load_litert, write_litert
from kdjax.types import BadInput, Field

pytest.importorskip("litert_converter", reason="needs the extra: pip install 'kdjax[litert]'")
interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the extra `litert`")


@pytest.fixture(scope="module")
def path(deployed, tmp_path_factory):
    path = tmp_path_factory.mktemp("litert") / "model.tflite"
    write_litert(deployed.predict, path, inputs=deployed.spec.inputs.fields)
    return path


def operators(path):
    """Names of the file's operators, with the dtype of the first input of each."""
    file = interpreter.Interpreter(
        str(path),
        experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    dtypes = {tensor["index"]: tensor["dtype"] for tensor in file.get_tensor_details()}
    return [(op["op_name"], dtypes[op["inputs"][0]]) for op in file._get_ops_details()]


def test_the_file_gives_the_logits_of_the_live_model(deployed, path):
    reloaded = load_litert(path, threads=1)
    for batch in (1, 3, 64, 0):
        images = deployed.images(batch)
        found = reloaded(images)
        assert (found.shape, found.dtype) == ((batch, 10), np.float32)
        if batch:
            live = deployed.live(images)
            np.testing.assert_allclose(found, live, rtol=0, atol=1e-5 * np.abs(live).max())


def test_every_family_gives_the_logits_of_the_live_model(every_family, tmp_path):
    path = tmp_path / "model.tflite"
    write_litert(every_family.predict, path, inputs=every_family.spec.inputs.fields)
    images = every_family.images(3)
    live = every_family.live(images)
    found = load_litert(path, threads=1)(images)
    np.testing.assert_allclose(found, live, rtol=0, atol=1e-5 * np.abs(live).max())


def test_the_file_says_what_it_takes(path):
    file = interpreter.Interpreter(str(path))
    assert file.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["logits"]}
    }
    (image,), (logits,) = file.get_input_details(), file.get_output_details()
    assert (image["shape"].tolist(), image["dtype"]) == ([1, 12, 12, 3], np.uint8)
    assert (logits["shape"].tolist(), logits["dtype"]) == ([1, 10], np.float32)


def test_preprocessing_is_inside_and_the_file_has_no_custom_operators(path):
    names = {name for name, _ in operators(path)}
    assert operators(path)[0] == ("CAST", np.uint8)
    assert "CONV_2D" in names
    assert not any("CUSTOM" in name or "STABLEHLO" in name or "Flex" in name for name in names)


def test_a_view_of_another_size_is_right_to_a_level(deployed, tmp_path):
    """Where a resized pixel lies between two levels, programs may round it to either."""
    path = tmp_path / "view.tflite"
    (image,) = deployed.spec.inputs.images
    see = jax.vmap(image.see)
    write_litert(see, path, inputs={"image": Field((20, 17, 3), "uint8")})
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 17, 3), np.uint8)
    live = np.asarray(jax.jit(see)(images))
    found = load_litert(path, threads=1)(images)
    np.testing.assert_allclose(found, live, rtol=0, atol=1.01 / 4080 / min(image.std))


@pytest.mark.parametrize(
    ("bits", "dtype", "named"),
    [
        # Rounding to fewer bits must not be left out as the views' is.
        (3, jnp.float32, r"stablehlo\.reduce_precision$"),
        (22, jnp.uint32, r".*failed to legalize operation 'tfl\.sum'"),
    ],
)
def test_what_litert_cannot_do_is_named(tmp_path, bits, dtype, named):
    def predict(images):
        mean = images.sum((1, 2), dtype=dtype) / 7.0
        return lax.reduce_precision(mean, exponent_bits=8, mantissa_bits=bits)

    with pytest.raises(BadInput, match=f"^LiteRT cannot run this model.*: {named}") as caught:
        write_litert(predict, tmp_path / "m.tflite", inputs={"image": Field((4, 4, 3), "uint8")})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m.tflite").exists()


def test_images_of_another_shape_or_type_are_refused(path):
    reloaded = load_litert(path, threads=1)
    for wrong in (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 12, 12, 3), np.float32)):
        with pytest.raises(ValueError, match=r"Dimension mismatch|type"):
            reloaded(wrong)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_the_runtime_has_the_threads_asked_for(deployed, path):
    tasks = Path("/proc/self/task")
    for threads in (1, 3):
        before = len(list(tasks.iterdir()))
        reloaded = load_litert(path, threads=threads)
        assert len(list(tasks.iterdir())) == before + threads - 1  # the caller is one of them
        assert reloaded(deployed.images(2)).shape == (2, 10)
        del reloaded


def fake_quant(x, *, scale, zero_point, axis=None, narrow_range=False):
    """`x` rounded to int8 and back, as a composite that the converter knows."""
    scale = np.asarray(scale, np.float32).reshape(-1)
    zero_point = np.full(scale.shape, zero_point)
    attributes = {"scale": scale, "zero_point": zero_point, "dtype": "i8"}
    attributes["narrow_range"] = narrow_range
    shape = [1] * x.ndim
    if axis is not None:
        attributes["quantization_dimension"] = axis
        shape[axis] = -1
    step, zero = scale.reshape(shape), np.float32(zero_point).reshape(shape)

    @functools.partial(lax.composite, name="quant.fake_quant")
    def quantized(x, **attributes):
        level = jnp.clip(jnp.round(x / step) + zero, -127 if narrow_range else -128, 127)
        return (level - zero) * step

    return quantized(x, **attributes)


class Convolution:
    """A convolution and a ReLU, with int8 weights, input and output or in float."""

    image_shape = (12, 12, 32)

    def __init__(self):
        random = np.random.default_rng(0)
        spread = np.exp(random.normal(size=64))  # channels that one scale would not do for
        self.kernel = np.float32(random.normal(size=(3, 3, 32, 64), scale=0.1) * spread)
        self.bias = np.float32(random.normal(size=64))
        self.images = random.integers(0, 256, (4, *self.image_shape), np.uint8)
        self.step = float(np.max(self.float(self.images))) / 255

    def float(self, images):
        return self._convolution(images / jnp.float32(255), jnp.asarray(self.kernel))

    def int8(self, images):
        x = fake_quant(images / jnp.float32(255), scale=1 / 255, zero_point=-128)
        scale = np.abs(self.kernel).max((0, 1, 2)) / 127
        kernel = jnp.asarray(self.kernel)
        kernel = fake_quant(kernel, scale=scale, zero_point=0, axis=3, narrow_range=True)
        return fake_quant(self._convolution(x, kernel), scale=self.step, zero_point=-128)

    def _convolution(self, x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        return jax.nn.relu(y + self.bias.reshape(1, 1, 1, -1))


def test_a_fake_quantized_convolution_becomes_an_int8_one(tmp_path):
    model = Convolution()
    paths = {name: tmp_path / f"{name}.tflite" for name in ("float", "int8")}
    write_litert(model.float, paths["float"], inputs={"image": Field(model.image_shape, "uint8")})
    write_litert(model.int8, paths["int8"], inputs={"image": Field(model.image_shape, "uint8")})

    assert ("CONV_2D", np.float32) in operators(paths["float"])
    int8 = operators(paths["int8"])
    assert [op for op in int8 if op[0] == "CONV_2D"] == [("CONV_2D", np.int8)]
    assert not any("COMPOSITE" in name for name, _ in int8)
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    assert 0.25 < sizes["int8"] / sizes["float"] < 0.3

    found = load_litert(paths["int8"], threads=1)(model.images)
    simulated = np.asarray(jax.jit(model.int8)(model.images))
    np.testing.assert_allclose(found, simulated, rtol=0, atol=1.001 * model.step)
    assert np.mean(np.abs(found - simulated) > 0.5 * model.step) < 0.01
    # The tolerance is one that float arithmetic, or one scale for all channels, would not keep.
    unquantized = np.asarray(jax.jit(model.float)(model.images))
    assert np.abs(unquantized - simulated).max() > 1.5 * model.step


def test_without_the_converter_there_is_one_line(deployed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_converter", None)  # how Python marks one as absent
    path = tmp_path / "m.tflite"
    with pytest.raises(BadInput, match=r"LiteRT needs its extra: pip install 'kdjax\[litert\]'$"):
        write_litert(deployed.predict, path, inputs=deployed.spec.inputs.fields)
    assert not path.exists()


def test_without_the_runtime_there_is_one_line(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(BadInput, match=r"LiteRT needs its extra: pip install 'kdjax\[litert\]'$"):
        load_litert(path, threads=1)
