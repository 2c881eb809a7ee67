"""Log-mel spectra against a derivation of their own in float64, by NumPy's Fourier transform."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config.encoders import log_mel as config
from kdjax.config.encoders.lstm import LSTM
from kdjax.inputs import Inputs
from kdjax.models import LogMel, OnLogMel, ds_cnn
from kdjax.models.log_mel import cosines, filterbank
from kdjax.types import BadInput, Field

RATE = 8000
EPSILON = float(np.finfo(np.float32).eps)


def sounds(samples=4000):
    """A chirp with overtones, noise that comes and goes, a word that ends; none of them quite silent."""
    random = np.random.default_rng(0)
    at = np.arange(samples) / RATE
    chirp = sum(np.sin(2 * np.pi * k * (200 + 300 * at) * at) / k for k in (1, 2, 3))
    noise = random.normal(size=samples) * np.abs(np.sin(9 * at))
    short = np.where(at < 0.3, chirp, 0.0)
    quiet = 20 * random.normal(size=samples)
    found = np.stack([np.rint(9000 * x / np.abs(x).max() + quiet) for x in (chirp, noise, short)])
    return jnp.asarray(found, jnp.int16)


def triangles(size, bands, low, high, scale):
    """Weights [bins, bands], each triangle drawn by its corners with `np.interp`."""
    if scale == "htk":

        def mel(f):
            return 2595 * math.log10(1 + f / 700)

        corners = np.linspace(mel(low), mel(high), bands + 2)
        bins = np.array([mel(f) for f in np.arange(size // 2 + 1) * RATE / size])
    else:  # Slaney: 66.67 Hz a step up to 1 kHz, then a factor of 6.4 in 27 steps

        def mel(f):
            return f / (200 / 3) if f < 1000 else 15 + 27 * math.log(f / 1000, 6.4)

        def back(m):
            return m * 200 / 3 if m < 15 else 1000 * 6.4 ** ((m - 15) / 27)

        corners = np.array([back(m) for m in np.linspace(mel(low), mel(high), bands + 2)])
        bins = np.arange(size // 2 + 1) * RATE / size
    found = [np.interp(bins, corners[i : i + 3], [0, 1, 0], left=0, right=0) for i in range(bands)]
    if scale == "slaney":
        found = [w * 2 / (corners[i + 2] - corners[i]) for i, w in enumerate(found)]
    return np.stack(found, 1)


def by_hand(audio, convention, *, frame, hop, bands, low, high):
    x = np.asarray(audio, np.float64)
    size = frame
    if convention == "kaldi":
        size = 2 ** math.ceil(math.log2(frame))
        window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / (frame - 1))) ** 0.85
    else:
        mode = "reflect" if convention == "whisper" else "constant"
        x = np.pad(x / 2**15, ((0, 0), (frame // 2, frame // 2)), mode=mode)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    frames = []
    for start in range(0, x.shape[1] - frame + 1, hop):
        one = x[:, start : start + frame]
        if convention == "kaldi":
            one = one - one.mean(1, keepdims=True)
            one = one - 0.97 * np.concatenate([one[:, :1], one[:, :-1]], 1)
        frames.append(np.abs(np.fft.rfft(one * window, size)) ** 2)
    power = np.stack(frames, 1)
    scale = "htk" if convention == "kaldi" else "slaney"
    mel = power @ triangles(size, bands, low, high, scale)
    if convention == "kaldi":
        return np.log(np.maximum(mel, EPSILON))
    if convention == "librosa":
        return np.log(np.maximum(mel, 1e-10))
    mel = np.log10(np.maximum(mel[:, :-1], 1e-10))
    return (np.maximum(mel, mel.max((1, 2), keepdims=True) - 8) + 4) / 4


@pytest.mark.parametrize("convention", ["librosa", "whisper", "kaldi"])
@pytest.mark.parametrize(("frame", "hop"), [(256, 128), (200, 80), (201, 80)])
def test_it_is_what_a_derivation_in_float64_gives(convention, frame, hop):
    audio = sounds()
    numbers = {"frame": frame, "hop": hop, "bands": 24, "low": 60.0, "high": 3800.0}
    front = LogMel(rate=RATE, convention=convention, **numbers)
    found = np.asarray(jax.jit(lambda x: front.apply({}, x))(audio))
    wanted = by_hand(audio, convention, **numbers)
    assert found.shape == wanted.shape == (3, front.frames(audio.shape[1]), 24)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_what_is_next_to_nothing_beside_the_loudest_is_as_exact_as_float32_is():
    """A pure tone: the other bands are the window's leakage, down to 1e-9 of its power."""
    tone = np.rint(9000 * np.sin(2 * np.pi * 1000 * np.arange(2000) / RATE))[None]
    audio = jnp.asarray(tone, jnp.int16)
    numbers = {"frame": 200, "hop": 80, "bands": 24, "low": 60.0, "high": 3800.0}
    found = LogMel(rate=RATE, **numbers).apply({}, audio)
    power, wanted = (np.exp(x) for x in (np.asarray(found), by_hand(audio, "librosa", **numbers)))
    assert wanted.min() < 1e-6 * wanted.max()
    assert np.abs(power - wanted).max() <= 1e-6 * wanted.max()


def test_a_cepstrum_is_the_cosine_transform_of_the_bands():
    audio = sounds()
    fields = {"rate": RATE, "frame": 200, "hop": 80, "bands": 20}
    bands = np.asarray(LogMel(**fields).apply({}, audio), np.float64)
    found = LogMel(**fields, cepstrum=13).apply({}, audio)
    at = (np.arange(20) + 0.5) * np.pi / 20
    first = bands.mean(-1) * math.sqrt(20)
    np.testing.assert_allclose(found[..., 0], first, rtol=1e-5, atol=1e-4)
    third = (bands * np.cos(2 * at)).sum(-1) * math.sqrt(2 / 20)
    np.testing.assert_allclose(found[..., 2], third, rtol=1e-4, atol=1e-4)
    whole = cosines(20, 20)
    np.testing.assert_allclose(whole.T @ whole, np.eye(20), atol=1e-12)


def test_what_is_far_below_the_loudest_counts_as_a_range_below():
    audio = sounds()
    fields = {"rate": RATE, "frame": 200, "hop": 80, "bands": 20}
    whole, cut = (np.asarray(LogMel(**fields, range=r).apply({}, audio)) for r in (None, 40.0))
    least = whole.max((1, 2), keepdims=True) - math.log(10.0) * 4.0
    assert (whole < least).any()
    np.testing.assert_allclose(cut, np.maximum(whole, least), rtol=1e-5, atol=1e-5)


def test_zeros_behind_a_recording_change_no_frame_before_them():
    audio = sounds()
    for convention in ("librosa", "kaldi"):
        front = LogMel(rate=RATE, frame=200, hop=80, bands=20, convention=convention)
        longer = jnp.pad(audio, ((0, 0), (0, 777)))
        short, long = front.apply({}, audio), front.apply({}, longer)
        np.testing.assert_allclose(long[:, : short.shape[1]], short, rtol=1e-5, atol=1e-5)


class _Seen(nn.Module):
    """A network whose features are what it is given."""

    @nn.compact
    def __call__(self, x, length=None, *, train):
        return x


@pytest.mark.parametrize("convention", ["librosa", "kaldi"])
def test_the_range_is_below_the_largest_band_of_the_recording_and_of_nothing_behind_it(convention):
    """A click at the very end is louder in the frame behind the last one, which is none of it."""
    front = LogMel(rate=RATE, frame=256, hop=128, bands=20, range=30.0, convention=convention)
    model, n = OnLogMel(front, _Seen(), normalize=False), 767
    audio = np.random.default_rng(0).integers(-9, 10, n).astype(np.int16)
    audio[-1] = 32767
    alone = np.asarray(model.apply({}, jnp.asarray(audio[None]), train=False))[0, ..., 0]
    for width in (n, n + 1, 2000):
        given = np.zeros((2, width), np.int16)
        given[0, :n], given[1] = audio, 5
        found = model.apply({}, jnp.asarray(given), jnp.asarray([n, width]), train=False)
        np.testing.assert_allclose(found[0, : len(alone), :, 0], alone, rtol=1e-5, atol=1e-4)
        assert not np.asarray(found)[0, len(alone) :].any()


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"bands": 120}, "encoder.bands"),
        ({"low": 4000.0}, "encoder.low, encoder.high"),
        ({"high": 4001.0}, "encoder.low, encoder.high"),
        ({"cepstrum": 30}, "encoder.cepstrum"),
        ({"frame": 5000, "convention": "kaldi"}, "encoder.frame"),
        (
            {"frame": 5000, "hop": 4001, "convention": "whisper"},
            "encoder.frame",
        ),  # no frame is left
    ],
)
def test_what_cannot_be(fields, path):
    usual = {"rate": RATE, "frame": 200, "hop": 80, "bands": 20}
    with pytest.raises(BadInput) as caught:
        LogMel(**{**usual, **fields}).apply({}, sounds())
    assert caught.value.path == path


def test_a_network_sees_one_channel_whose_bands_are_even():
    seen = []

    class Net(ds_cnn().__class__):
        def __call__(self, image, *, train):
            seen.append(image)
            return super().__call__(image, train=train)

    front = LogMel(rate=RATE, frame=200, hop=80, bands=20)
    model = OnLogMel(front=front, net=Net(width=8, blocks=1))
    audio = sounds()
    variables = model.init(jax.random.key(0), audio, train=True)
    seen.clear()
    assert model.apply(variables, audio, train=False).shape == (3, 8)
    (image,) = seen
    assert image.shape == (3, 51, 20, 1)
    np.testing.assert_allclose(image.mean(1), 0.0, atol=1e-4)
    np.testing.assert_allclose(jnp.sqrt((image**2).mean((1, 2, 3))), 1.0, rtol=1e-3)
    assert "front" not in variables["params"]


@pytest.mark.thorough
@pytest.mark.parametrize(("scale", "area"), [("slaney", True), ("htk", False)])
def test_bands_are_those_that_transformers_has(scale, area):
    utilities = pytest.importorskip("transformers.audio_utils", reason="needs transformers")
    wanted = utilities.mel_filter_bank(
        num_frequency_bins=201,
        num_mel_filters=80,
        min_frequency=20.0,
        max_frequency=8000.0,
        sampling_rate=16000,
        norm="slaney" if area else None,
        mel_scale="slaney" if scale == "slaney" else "kaldi",
        triangularize_in_mel_space=scale == "htk",
    )
    found = filterbank(
        rate=16000, size=400, bands=80, low=20.0, high=8000.0, scale=scale, area=area
    )
    np.testing.assert_allclose(found, wanted, atol=1e-8)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"audio": Field((400,), "float32", rate=RATE)},
            "encoder: log_mel hears audio, 16-bit samp",
        ),
        ({"sound": Field((400,), "int16")}, "encoder: .* and an example is sound of int16"),
        (
            {"audio": Field((400,), "int16", rate=16000)},
            "encoder.rate: 8000 .* audio has 16000; give",
        ),
        ({"audio": Field((400,), "int16", rate=RATE)}, None),
        ({"audio": Field((400,), "int16")}, None),
    ],
)
def test_what_it_hears_is_16_bit_samples_at_its_rate(fields, said):
    """Floats to 1 would all be below the floor, and bands of another rate are other frequencies."""
    encoder = config.LogMel(name="log_mel", rate=RATE, net=LSTM(name="lstm"))
    if said is None:
        assert encoder.given(Inputs.of(fields)) is encoder
        return
    with pytest.raises(BadInput, match=said):
        encoder.given(Inputs.of(fields))
