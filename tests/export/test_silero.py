"""A published LSTM, of Silero's voice activity detector: its own ONNX file is at hand."""

import importlib.util
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.export import load_onnx, write_onnx
from kdjax.recurrence import State, lstm
from kdjax.types import Field

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def folder():
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("silero-vad is not installed: pip install --no-deps silero-vad")
    return pathlib.Path(spec.submodule_search_locations[0]) / "data"


def test_a_layer_is_what_its_own_file_has(folder, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
    import onnxruntime

    model = onnx.load(folder / "silero_vad_16k_sequence.onnx")
    (node,) = (node for node in model.graph.node if node.op_type == "LSTM")
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    # Gates are in the order input, output, forget, cell there, and each product has a bias.
    ours = np.asarray([0, 2, 3, 1])
    kernel, recurrent = (
        jnp.asarray(arrays[name].reshape(4, 128, 128)[ours].transpose(2, 0, 1))
        for name in node.input[1:3]
    )
    bias = jnp.asarray(arrays[node.input[3]].reshape(2, 4, 128).sum(0)[ours])
    for name in (node.input[0], node.output[0]):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    random = np.random.default_rng(0)
    shapes = {
        given.name: [n if isinstance(n, int) else 8 for n in given.shape]
        for given in session.get_inputs()
    }
    given = {
        name: random.normal(size=shape).astype(np.float32) * 0.3 for name, shape in shapes.items()
    }
    names = [output.name for output in session.get_outputs()]
    theirs = dict(zip(names, session.run(None, given), strict=True))
    steps, every = theirs[node.input[0]], theirs[node.output[0]]

    x = jnp.asarray(steps.swapaxes(0, 1))
    state = State(*(jnp.asarray(given[name].reshape(-1, 128)) for name in ("h", "c")))
    found, after = lstm(x, kernel, recurrent, bias, state=state)
    assert np.abs(every).max() > 0.1
    np.testing.assert_allclose(found, every[:, 0].swapaxes(0, 1), atol=1e-5)
    np.testing.assert_allclose(after.hidden, theirs["hn"].reshape(-1, 128), atol=1e-5)
    np.testing.assert_allclose(after.cell, theirs["cn"].reshape(-1, 128), atol=1e-5)

    def predict(x, hidden, cell):
        return lstm(x, kernel, recurrent, bias, state=State(hidden, cell))[0]

    path, row = tmp_path / "lstm.onnx", Field((128,), "float32")
    write_onnx(predict, path, inputs={"x": Field(x.shape[1:], "float32"), "h": row, "c": row})
    again = load_onnx(path, threads=1)(*map(np.asarray, (x, *state)))
    np.testing.assert_allclose(again, every[:, 0].swapaxes(0, 1), atol=1e-5)
