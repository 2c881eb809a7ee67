"""Log-mel spectra in an ONNX file: their constants are not in it, and are what the live ones are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.export import load_onnx, write_onnx
from kdjax.models import LogMel
from kdjax.types import Field, length_field

onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
pytest.importorskip("jax2onnx", reason="the extra export is not installed")

RATE, MOST = 8000, 2000
FIELDS = {"audio": Field((MOST,), "int16", ragged=True), "audio_length": length_field(MOST)}


def audio(samples):
    """Noise beside a constant, which Kaldi's frames are without, and a tone."""
    at = np.arange(samples) / RATE
    noise = np.random.default_rng(samples).normal(size=(2, samples)) * [[3000], [30]]
    return (noise + 2000 + 8000 * np.sin(2 * np.pi * 700 * at)).astype(np.int16)


@pytest.mark.parametrize("convention", ["librosa", "kaldi"])
@pytest.mark.parametrize("frame", [256, 200])
def test_a_file_has_what_makes_its_constants(convention, frame, tmp_path):
    front = LogMel(
        rate=RATE, frame=frame, hop=80, bands=24, low=100.0, high=3000.0, convention=convention
    )
    dense = np.random.default_rng(0).normal(size=(24, 24)).astype(np.float32)

    def predict(audio, length):
        return front.apply({}, audio) @ jnp.asarray(dense) + length[:, None, None]

    path = tmp_path / "spectra.onnx"
    if convention == "kaldi":  # a frame lies within the recording

        def whole(audio, length):
            return predict(jnp.pad(audio, ((0, 0), (0, frame - 1))), length)
    else:
        whole = predict
    write_onnx(whole, path, inputs=FIELDS)
    # A quarter of a megabyte is the kernel alone; what is stored beside is the matrix.
    assert path.stat().st_size - dense.nbytes < 11_000
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    assert any(np.array_equal(array, dense) for array in arrays.values())
    run = load_onnx(path, threads=1)
    for samples in (frame, 777, MOST):
        given = audio(samples), np.asarray([samples, 1], np.int32)
        live = np.asarray(jax.jit(whole)(*given))
        assert np.abs(run(*given) - live).max() <= 1e-5 * np.abs(live).max()


def test_what_depends_on_no_input_is_computed_when_the_file_is_loaded(tmp_path):
    import onnxruntime

    front = LogMel(rate=RATE, frame=200, hop=80, bands=20, convention="kaldi")
    path, seen = tmp_path / "spectra.onnx", tmp_path / "loaded.onnx"
    fields = {"audio": Field((MOST,), "int16")}
    write_onnx(lambda audio: front.apply({}, audio), path, inputs=fields)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(seen)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    before, after = (
        {node.op_type for node in onnx.load(model).graph.node} for model in (path, seen)
    )
    made = {"Gather", "Mod", "Range", "ReduceMean", "ScatterElements"}
    assert made <= before
    assert not made & after
