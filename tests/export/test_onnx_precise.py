"""Products of integers are exact on every x86 processor, in whatever session kdjax opens."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import kdjax
from kdjax.export import load_onnx
from kdjax.export.onnx_memory import PRECISE
from kdjax.export.onnx_session import open_session

_PLACES = ("onnx_memory", "onnx_session")


@pytest.fixture
def largest(tmp_path):
    """A convolution in integers whose products are as large as they get: 255 times 127, 64 of them."""
    keep = {
        "scale": np.float32(1.0),
        "zero": np.uint8(0),
        "weights": np.full((4, 16, 2, 2), 127, np.int8),
        "of_weights": np.float32(1.0),
        "none": np.int8(0),
        "wide": np.float32(2.0**14),
    }
    keep["weights"][1::2] = -127

    def nodes():
        yield helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"])
        yield helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"])
        yield helper.make_node("DequantizeLinear", ["weights", "of_weights", "none"], ["w"])
        yield helper.make_node("Conv", ["d", "w"], ["c"])
        yield helper.make_node("QuantizeLinear", ["c", "wide", "zero"], ["r"])
        yield helper.make_node("DequantizeLinear", ["r", "wide", "zero"], ["y"])

    graph = helper.make_graph(
        list(nodes()),
        "largest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 4, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in keep.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "largest.onnx")
    return tmp_path / "largest.onnx"


def test_the_largest_sums_are_not_cut(largest):
    x = np.full((3, 16, 5, 5), 255.0, np.float32)
    expected = np.rint(64 * 255 * 127 / 2.0**14) * 2.0**14
    for found in (
        load_onnx(largest, threads=1)(x),
        open_session(str(largest), threads=1).run(None, {"x": x})[0],
    ):
        np.testing.assert_array_equal(found[:, ::2], expected)
        np.testing.assert_array_equal(found[:, 1::2], 0.0)


def test_every_session_has_the_setting():
    package = Path(kdjax.__file__).parent
    opened = {}
    for path in package.rglob("*.py"):
        text = path.read_text("utf-8")
        sessions = len(re.findall(r"onnxruntime\.InferenceSession\(", text))
        if sessions:
            precise = text.count("add_session_config_entry(")
            opened[path.relative_to(package).as_posix()] = (sessions, precise)
    places = {"commands/compress.py", *(f"export/{name}.py" for name in _PLACES)}
    assert opened.keys() == places  # who opens one elsewhere calls `open_session`
    assert all(sessions == precise for sessions, precise in opened.values()), opened


def test_pages_and_notebooks_say_it_as_it_is():
    root = Path(kdjax.__file__).parents[1]
    said = [root / "kdjax/export/README.md", *sorted((root / "colabs").glob("*.ipynb"))]
    texts = {path.name: path.read_text("utf-8").replace('\\"', '"') for path in said}
    entry = "add_session_config_entry({})".format(", ".join(f'"{part}"' for part in PRECISE))
    assert entry in texts["README.md"]
    for name, text in texts.items():
        if "InferenceSession(" in text:
            assert entry in text, name
