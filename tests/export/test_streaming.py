"""Files that are given an example in pieces: what they answer is what the whole would be answered."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import tasks
from kdjax.artifacts import streaming
from kdjax.artifacts.model import Spec
from kdjax.config.encoders.cnn import CNN
from kdjax.config.encoders.log_mel import LogMel
from kdjax.config.encoders.lstm import LSTM
from kdjax.export import ONNX
from kdjax.export.onnx_call import onnx_call, onnx_seconds
from kdjax.export.onnx_stream import write_stream
from kdjax.inputs import Inputs
from kdjax.quant import Rule
from kdjax.types import BadInput, Field, length_field

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")
pytest.importorskip("jax2onnx", reason="the extra export is not installed")

RATE, MOST = 1000, 1500
AUDIO = {"audio": Field((MOST,), "int16", ragged=True), "audio_length": length_field(MOST)}
PAGE = Path(__file__).parents[2] / "kdjax" / "export" / "README.md"


def encoder(convention="librosa", **net):
    return LogMel(
        name="log_mel",
        rate=RATE,
        window=64.0,
        hop=25.0,
        bands=8,
        low=20.0,
        range=None,
        running=True,
        convention=convention,
        net=LSTM(name="lstm", **{"widths": (12, 8), "pool": "none", **net}),
    )


def made(spec):
    """Weights that are neither all alike nor small."""
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=leaf.shape, scale=0.4), jnp.float32),
        spec.abstract(),
    )


def sound(rows=2):
    """Silence, then noise that swells, in recordings of several lengths."""
    random, lengths = np.random.default_rng(1), np.asarray([MOST, 801, 40][:rows], np.int32)
    audio = random.normal(size=(rows, MOST)) * 4000 * np.linspace(-0.2, 1, MOST).clip(0) ** 2
    audio[np.arange(MOST) >= lengths[:, None]] = 0
    return audio.astype(np.int16), lengths


def in_pieces(monkeypatch, folder, audio, cuts):
    """Runs what the page shows."""
    (code,) = re.findall(r"<!-- pieces -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    session = onnxruntime.InferenceSession("student.onnx")
    said = json.loads(session.get_modelmeta().custom_metadata_map["kdjax.stream"])
    whole = np.pad(audio, ((0, 0), (0, said["behind"])))
    pieces = np.split(whole, cuts, axis=1)
    assert min(piece.shape[1] for piece in pieces) >= said["least"]
    names = {"onnxruntime": onnxruntime, "json": json, "numpy": np, "pieces": pieces}
    exec(code, names)
    return np.concatenate(names["answers"], axis=1)


_KALDI = pytest.param("kaldi", marks=pytest.mark.thorough)


@pytest.fixture(scope="module", params=["librosa", _KALDI])
def transcriber(request, tmp_path_factory):
    """A CTC student, and the folder of its file."""
    task = tasks.CTC(alphabet=("a", "b", "c"))
    spec = Spec(encoder=encoder(request.param), inputs=Inputs.of(AUDIO), task=task)
    variables, folder = made(spec), tmp_path_factory.mktemp(request.param)
    write_stream(streaming.stream_of(spec, variables), folder / "student.onnx", output="logits")
    return spec, variables, folder


def test_however_an_example_is_cut_the_answers_are_those_of_the_whole(transcriber, monkeypatch):
    spec, variables, folder = transcriber
    audio, _ = sound(1)
    live = np.asarray(
        jax.jit(spec.predict)(variables, {"audio": audio, "audio_length": np.asarray([MOST])})
    )
    frames = 61 if spec.encoder.convention == "librosa" else 58
    for cuts in ([], [700], [64, 128, 201, 340, 1313], range(100, 1401, 100)):
        found = in_pieces(monkeypatch, folder, audio, cuts)[:, :frames]
        assert found.shape == (1, frames, 4)
        assert np.abs(found - live[:, :frames]).max() <= 1e-5 * np.abs(live).max()


def test_it_answers_recordings_of_their_own_lengths_as_the_model_does(transcriber):
    spec, variables, folder = transcriber
    audio, lengths = sound(3)
    live = jax.jit(spec.predict)(variables, {"audio": audio, "audio_length": lengths})
    run = ONNX(streaming=True).load(folder / "student.onnx", threads=1)
    found = run(audio, lengths)
    np.testing.assert_allclose(found, live, atol=1e-5 * np.abs(live).max())
    with pytest.raises(BadInput, match=r"student.onnx: takes a batch of 1 or more examples, not"):
        run(audio[:0], lengths[:0])


def test_a_piece_is_timed_beside_what_is_kept_and_not_beside_as_much_again(
    transcriber, monkeypatch
):
    """`--length` is that of a piece: what is kept of the pieces before has the length that it has."""
    spec, variables, folder = transcriber
    path, framing = folder / "student.onnx", streaming.stream_of(spec, variables).framing
    given = {}

    class Seen(onnxruntime.InferenceSession):
        def run(self, names, feeds):
            given.update({name: array.shape for name, array in feeds.items()})
            return super().run(names, feeds)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Seen)
    onnx_call(path, threads=1, batch=2, length=500)
    assert given["audio"] == (2, 500)
    assert given["audio_kept"] == (2, framing.before)
    assert onnx_seconds(path, length=500) in (None, 500 / RATE)
    with pytest.raises(BadInput, match=f"takes {framing.least} positions or more, and not 9"):
        onnx_call(path, threads=1, batch=2, length=9)
    onnx_call(path, threads=1, batch=1)
    assert given["audio_kept"] == (1, framing.before)


def test_integers_agree_as_far_as_a_scale_of_a_piece_is_that_of_the_whole(tmp_path):
    task = tasks.CTC(alphabet=("a", "b", "c"))
    spec = Spec(encoder=encoder(), inputs=Inputs.of(AUDIO), task=task)
    variables = made(spec)
    rules = {
        f"encoder/net/lstm{i}/{name}": Rule(activations="dynamic")
        for i in range(2)
        for name in ("kernel", "recurrent")
    }
    quantized = dataclasses.replace(spec, rules=rules)
    path = tmp_path / "student.onnx"
    write_stream(streaming.stream_of(quantized, variables), path, output="logits")
    audio, lengths = sound(3)
    found = ONNX(streaming=True).load(path, threads=1)(audio, lengths)
    given = {"audio": audio, "audio_length": lengths}
    live = np.asarray(jax.jit(quantized.predict)(variables, given))
    exact = np.asarray(jax.jit(spec.predict)(variables, given))
    assert (found.argmax(-1) == live.argmax(-1)).mean() > 0.97
    assert 1e-4 < np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("pool", ["mean", pytest.param("last", marks=pytest.mark.thorough)])
def test_one_answer_is_that_to_all_that_has_come(pool, tmp_path):
    fields = {"audio": Field((MOST,), "int16")}
    spec = Spec(
        encoder=encoder(pool=pool, widths=(8,)),
        inputs=Inputs.of(fields),
        task=tasks.Classification(classes=3),
    )
    variables, path = made(spec), tmp_path / "student.onnx"
    write_stream(streaming.stream_of(spec, variables), path, output="logits")
    audio, _ = sound(1)
    live = jax.jit(spec.predict)(variables, {"audio": audio})
    found = ONNX(streaming=True).load(path, threads=1)(audio)
    np.testing.assert_allclose(found, live, atol=1e-5 * np.abs(live).max())


@pytest.mark.thorough
def test_rows_that_are_no_sound_go_in_as_they_are(tmp_path):
    fields = {"rows": Field((40, 5), "float32")}
    task = tasks.CTC(alphabet=("a", "b"))
    net = LSTM(name="lstm", widths=(8,), pool="none")
    spec = Spec(encoder=net, inputs=Inputs.of(fields), task=task)
    variables, path = made(spec), tmp_path / "student.onnx"
    write_stream(streaming.stream_of(spec, variables), path, output="logits")
    rows = fields["rows"].made_up(2)
    live = jax.jit(spec.predict)(variables, {"rows": rows})
    found = ONNX(streaming=True).load(path, threads=1)(rows)
    np.testing.assert_allclose(found, live, atol=1e-5 * np.abs(live).max())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"range": 50.0}, r"student's encoder.range: 50 dB below .*; train it so: give None"),
        ({"running": False}, r"student's encoder.running: False: the mean is that of the whole"),
        ({"hop": 70.0}, r"student's encoder.hop, window: 70 and 64 ms: samples between two frames"),
        ({"convention": "whisper"}, r"student's encoder.convention: whisper's"),
        (
            {"net": CNN(name="cnn", widths=(4,))},
            r"student's encoder.net: cnn.* all of an example at",
        ),
        (
            {"net": LSTM(name="lstm", bidirectional=True)},
            r"student's encoder.net.bidirectional: True, and the end is not known",
        ),
    ],
)
def test_what_cannot_be_cut(changed, said):
    spec = Spec(
        encoder=dataclasses.replace(encoder(), **changed),
        inputs=Inputs.of({"audio": Field((MOST,), "int16")}),
        task=tasks.Classification(classes=3),
    )
    with pytest.raises(BadInput, match=said):
        streaming.check(spec, model="student")
