"""Files of inputs that differ in length: one file for all of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from kdjax import models
from kdjax.export import (
    ONNX,
    Model,
    described,
    load_onnx,
    load_stablehlo,
    onnx_call,
    write_onnx,
    write_stablehlo,
)
from kdjax.export.shapes import made_up, open_shapes, shortest_of
from kdjax.inputs import Inputs
from kdjax.models import LogMel
from kdjax.types import BadInput, Field, length_field
from tests.own_inputs import Reader
from tests.some import some

MOST = 16
TOKENS = {"tokens": Field((MOST,), "int32", 20, ragged=True), "tokens_length": length_field(MOST)}
SOUND = {
    "sound": Field((MOST, 6), "float32", ragged=True),
    "sound_length": length_field(MOST),
    "level": Field((3,), "float32"),
}


class Places(nn.Module):
    """A parameter for each position, as a BERT has."""

    @nn.compact
    def __call__(self, tokens, tokens_length, *, train):
        places = self.param("places", nn.initializers.normal(), (MOST, 8))
        x = nn.Embed(20, 8)(tokens) + places[None, : tokens.shape[1]]
        shown = jnp.arange(tokens.shape[1])[None, :] < tokens_length[:, None]
        x = nn.gelu(nn.Dense(8)(x)) * shown[..., None]
        return x.sum(1) / tokens_length[:, None]


class Frames(nn.Module):
    """Convolutions over time, half as many frames, and another input beside them."""

    @nn.compact
    def __call__(self, sound, sound_length, level, *, train):
        shown = jnp.arange(sound.shape[1])[None, :] < sound_length[:, None]
        x = nn.relu(nn.Conv(8, (3,))(sound * shown[..., None]))
        x = nn.Conv(8, (3,), strides=2, padding=((1, 1),))(x * shown[..., None])
        shown = jnp.arange(x.shape[1])[None, :] < ((sound_length + 1) // 2)[:, None]
        heads = nn.DenseGeneral((2, 4))(x)
        x = nn.DenseGeneral(8, axis=(-2, -1))(nn.relu(heads))
        return jnp.where(shown[..., None], x, -1e9).max(1) + nn.Dense(8)(level)


class Rotations(nn.Module):
    """A ModernBERT: positions are angles, and what is far away is not seen."""

    @nn.compact
    def __call__(self, tokens, tokens_length, *, train):
        sizes = {"vocab": 20, "width": 8, "depth": 2, "heads": 2, "mlp": 8, "positions": MOST}
        net = models.modern_bert(**sizes, window=4, pool="mean")
        return net(jnp.asarray(tokens), jnp.asarray(tokens_length), train=train)


CASES = {
    "attention": (Reader(8), TOKENS),
    "places": (Places(), TOKENS),
    "frames": (Frames(), SOUND),
    "rotations": (Rotations(), TOKENS),
}


@pytest.fixture(
    scope="module",
    params=some(CASES, "rotations"),
)
def case(request):
    module, fields = CASES[request.param]
    inputs = made_up(fields, batch=3)
    variables = jax.jit(lambda key: module.init(key, **inputs, train=False))(jax.random.key(0))

    def predict(*arrays):
        return module.apply(variables, **dict(zip(fields, arrays, strict=True)), train=False)

    return predict, fields


@pytest.mark.parametrize("format", ["onnx", "stablehlo"])
def test_one_file_takes_any_length(case, format, tmp_path):
    predict, fields = case
    path = tmp_path / f"model.{format}"
    if format == "onnx":
        write_onnx(predict, path, inputs=fields)
        run = load_onnx(path, threads=1)
        # What has stored weights is one product: runtimes have no kernel of integers for another.
        model = onnx.load(path)
        stored = {tensor.name for tensor in model.graph.initializer}
        einsums = [node for node in model.graph.node if node.op_type == "Einsum"]
        assert not any(stored & set(node.input) for node in einsums)
    else:
        write_stablehlo(predict, path, inputs=fields)
        run = load_stablehlo(path)
    for share in (1.0, 0.7, 0.4, 0.0):
        for batch in (1, 5):
            some = list(made_up(fields, batch=batch, share=share).values())
            live = np.asarray(predict(*some))
            np.testing.assert_allclose(run(*some), live, rtol=0, atol=1e-5 * np.abs(live).max())


def test_examples_that_are_made_up_are_zeros_behind_their_end():
    for share, length in ((1.0, 16), (0.5, 8), (0.0, 1)):
        found = made_up(SOUND, batch=50, share=share)
        assert found["sound"].shape == (50, length, 6)
        assert found["sound_length"].min() == 1
        assert found["sound_length"].max() == length
        behind = np.arange(length) >= found["sound_length"][:, None]
        assert not found["sound"][behind].any()
        assert found["sound"][~behind].any(-1).all()
        assert found["level"].shape == (50, 3)


def test_symbols_are_shared_by_no_two_inputs():
    fields = {**TOKENS, **SOUND}
    shapes = dict(zip(fields, open_shapes(fields), strict=True))
    assert str(shapes["tokens"].shape) == "(batch, tokens_positions)"
    assert str(shapes["sound"].shape) == "(batch, sound_positions, 6)"
    assert str(shapes["level"].shape) == "(batch, 3)"


def test_a_file_says_which_lengths_it_takes_and_is_timed_at_the_longest(tmp_path):
    module, fields = CASES["places"]
    inputs = made_up(fields, batch=1)
    variables = module.init(jax.random.key(0), **inputs, train=False)
    path = tmp_path / "model.onnx"

    def predict(*arrays):
        return module.apply(variables, *arrays, train=False)

    write_onnx(predict, path, inputs=fields)
    model = Model(
        predict=predict,
        inputs=Inputs.of(fields),
        output="logits",
        forward=lambda variables, inputs: predict(*inputs.values()),
        variables=variables,
    )
    said = described(ONNX(), path, model)
    assert said["accepts"].startswith("tokens: int32 [1 to 16], tokens_length: int32 []; any of")
    for how, length in (({}, MOST), ({"length": 5}, 5)):
        call = onnx_call(path, threads=1, batch=2, **how)
        assert np.asarray(call()[0]).shape == (2, 8)
        memory = ONNX().memory(path, threads=1, batch=2, **how)
        assert memory is None or memory > 0, length
    # It has a parameter for each position, and none for a 17th.
    wrong = "does not run with 17 positions, and says that it takes up to 16; ask for 16 or less"
    with pytest.raises(BadInput, match=wrong):
        onnx_call(path, threads=1, batch=2, length=MOST + 1)
    with pytest.raises(BadInput, match="length: must be at least 1, not 0"):
        onnx_call(path, threads=1, batch=2, length=0)


def test_a_model_that_refuses_what_is_too_short_is_not_asked_it(tmp_path):
    """Frames of Kaldi lie within a recording."""
    front = LogMel(rate=1000, frame=64, hop=32, bands=8, convention="kaldi")
    fields = {"audio": Field((500,), "int16", ragged=True), "audio_length": length_field(500)}

    def predict(audio, length):
        return front.apply({}, audio).mean(1) + length[:, None]

    assert shortest_of(predict, fields) == 64
    assert shortest_of(lambda audio, length: audio[:, 0] + length, fields) == 1
    inputs = Inputs.of(fields).from_length(64)
    assert inputs == Inputs.of(inputs.fields)
    for share, positions in ((1.0, 500), (0.0, 64)):
        found = made_up(inputs.fields, batch=20, share=share)
        assert found["audio"].shape == (20, positions)
        assert found["audio_length"].min() >= 64
    path = tmp_path / "model.onnx"
    write_onnx(predict, path, inputs=inputs.fields)
    assert "audio: int16 [64 to 500], raw" in onnx.load(path).doc_string
    given = made_up(inputs.fields, batch=2, share=0.0)
    np.testing.assert_allclose(
        load_onnx(path, threads=1)(*given.values()), jax.jit(predict)(*given.values()), rtol=1e-5
    )
    with pytest.raises(BadInput, match=r"model.onnx: takes 64 positions or more, and not 63$"):
        onnx_call(path, threads=1, batch=2, length=63)
