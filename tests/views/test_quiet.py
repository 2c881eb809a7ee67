"""Noise from the pauses of recordings: what a pause is, and how it is mixed in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import data
from kdjax.config import Views
from kdjax.inputs import Inputs
from kdjax.parse import parse
from kdjax.types import BadInput
from kdjax.views import Pauses, pauses, ragged_waveform, waveform

RATE, N = 1000, 900
RNG = np.random.default_rng(0)
KEYS = jax.random.split(jax.random.key(5), 30)
HOW = {"rate": RATE, "below": 30.0, "shortest": 0.1}


def spoken(level, *, before=200, said=300, behind=140):
    """A loud tone between two pauses of noise, with so much root mean square, about a mean of 3."""
    at = np.arange(said) / RATE
    tone = 6000 * np.sin(2 * np.pi * 100 * at)
    parts = (level * RNG.normal(size=before) + 3, tone, level * RNG.normal(size=behind) + 3)
    return np.rint(np.concatenate(parts)).astype(np.int16)


def test_a_pause_is_quiet_and_no_silence_and_long_enough():
    one = spoken(20.0)
    found = pauses([one], **HOW)
    assert found.dtype == np.float32
    quiet = [one[:200].astype(float), one[500:640].astype(float)]
    wanted = [(x - x.mean()) / x.std() for x in quiet]
    np.testing.assert_allclose(found, np.concatenate(wanted), atol=1e-5)
    # 6000 / sqrt(2) is 46.5 dB above 20.
    assert len(pauses([one], **{**HOW, "below": 55.0})) == 0
    assert len(pauses([one], **{**HOW, "below": 40.0})) == 340
    assert len(pauses([one], **{**HOW, "shortest": 0.15})) == 200
    assert len(pauses([one], **{**HOW, "shortest": 0.3})) == 0
    assert len(pauses([spoken(0.0) - 3], **HOW)) == 0  # digital silence
    assert len(pauses([one[:7], one[:0]], **HOW)) == 0  # no frame


def test_pauses_of_recordings_are_alike_loud_and_end_to_end():
    first, second = spoken(5.0), spoken(60.0, behind=0)
    both = pauses([first, second], **HOW)
    np.testing.assert_array_equal(both[:340], pauses([first], **HOW))
    np.testing.assert_array_equal(both[340:], pauses([second], **HOW))
    for own in (both[:200], both[200:340], both[340:]):
        np.testing.assert_allclose([own.mean(), (own**2).mean()], [0, 1], atol=1e-5)
    assert len(pauses([first] * 70, **HOW)) == 20 * RATE


NOISE = Pauses(pauses([spoken(20.0)], **HOW), 10.0)
VOICE = jnp.asarray(RNG.integers(-9000, 9000, N), jnp.int16)


def test_noise_is_a_piece_of_the_pauses_so_far_below_the_signal():
    begins, ratios = set(), []
    for key in KEYS:
        added = np.asarray(waveform(key, VOICE, pauses=NOISE)).astype(float) - np.asarray(VOICE)
        shapes = [np.roll(NOISE.noise, -begin) for begin in range(340)]
        tiled = np.stack([np.resize(shape, N) for shape in shapes])
        scales = tiled @ added / (tiled * tiled).sum(1)
        begin = np.abs(added - scales[:, None] * tiled).mean(1).argmin()
        assert np.abs(added - scales[begin] * tiled[begin]).max() <= 0.6  # rounded
        begins.add(int(begin))
        ratios.append(20 * np.log10(np.asarray(VOICE, float).std() / scales[begin]))
    assert len(begins) > 20
    assert 10 - 0.1 < min(ratios) < 16
    assert 34 < max(ratios) < 40.1
    silent = jnp.zeros(N, jnp.int16)
    assert not np.asarray(waveform(KEYS[0], silent, pauses=NOISE)).any()


def test_it_changes_no_other_draw():
    others = {"shift": 90, "gain": 6.0, "time_mask": 100, "noise": 20.0, "band_mask": 0.1}
    alone = waveform(KEYS[1], VOICE, **others).astype(jnp.float32)
    faint = Pauses(NOISE.noise, 110.0)
    np.testing.assert_allclose(waveform(KEYS[1], VOICE, **others, pauses=faint), alone, atol=1.0)


@pytest.mark.parametrize("length", [1, 250, 600])
def test_it_is_the_same_however_much_padding_there_is(length):
    how = {"longest": N, "speed": 1.1, "pauses": NOISE}
    found = []
    for width in (600, 700, N):
        audio = jnp.where(jnp.arange(width) < length, VOICE[:width], 0).astype(jnp.int16)
        view = jax.jit(functools.partial(ragged_waveform, **how))
        seen, new = view(KEYS[2], audio, jnp.int32(length))
        assert not seen[int(new) :].any()
        found.append(np.asarray(seen[: int(new)]))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def dataset(recordings, **rates):
    return data.from_fields(
        {"audio": recordings},
        np.zeros(len(recordings), np.int32),
        classes=2,
        ragged={"audio": N},
        ids=np.arange(len(recordings))[::-1],
        rates=rates,
        name="voices",
    )


def recipe(**fields):
    return parse(Views, {"recipe": "waveform", "pauses": {"noise": 10.0, **fields}}, "views")


def test_the_noise_of_a_recipe_is_that_of_the_training_recordings():
    voices = [spoken(20.0), spoken(40.0)]
    own = dataset(voices, audio=RATE)
    example = {"audio": jnp.asarray(VOICE), "audio_length": jnp.int32(700)}
    example["audio"] = jnp.where(jnp.arange(N) < 700, example["audio"], 0).astype(jnp.int16)
    draw = recipe().recipe_for(Inputs.of(own.fields), examples=own)
    seen = jax.jit(draw)(KEYS[0], example)
    noise = pauses(voices[::-1], **HOW)  # in the order of ids
    wanted = ragged_waveform(
        KEYS[0], example["audio"], jnp.int32(700), longest=N, pauses=Pauses(noise, 10.0)
    )
    np.testing.assert_array_equal(seen["audio"], wanted[0])
    assert int(seen["audio_length"]) == 700
    # What is drawn from is part of what a stage is named by: its training examples.
    other = dataset([voices[0], spoken(40.0)], audio=RATE)
    assert other.fingerprint != own.fingerprint
    again = recipe().recipe_for(Inputs.of(own.fields), examples=other)(KEYS[0], example)
    assert (np.asarray(again["audio"]) != np.asarray(seen["audio"])).any()


def test_where_there_is_no_noise_it_is_one_line():
    own = dataset([spoken(0.0) - 3, spoken(20.0, before=60, behind=60)], audio=RATE)
    inputs = Inputs.of(own.fields)
    for examples, fields, line in (
        (
            None,
            {},
            "pauses: they are of training recordings, and there are none here; leave it out",
        ),
        (
            dataset([spoken(20.0)]),
            {},
            "pauses: audio of voices does not say its rate; give from_fields(..., rates={...}), or "
            "leave it out",
        ),
        (
            own,
            {"shortest": 0.08},
            "pauses.below: voices has no pause of 0.08 s that is 30 dB below its recording and no "
            "digital silence; give less, or a shorter one",
        ),
    ):
        with pytest.raises(BadInput) as caught:
            recipe(**fields).recipe_for(inputs, examples=examples)
        assert str(caught.value) == line
    recipe(shortest=0.06).recipe_for(inputs, examples=own)


def test_a_rate_is_of_an_input_and_a_number():
    for rates, line in (
        ({"sound": 8000}, "sound of voices has a rate, and the inputs are audio"),
        ({"audio": 0}, "the rate of audio of voices is 0; give positions a second"),
        ({"audio": True}, "the rate of audio of voices is True; give positions"),
    ):
        with pytest.raises(BadInput, match=f"^data: {line}"):
            dataset([spoken(20.0)], **rates)
    with pytest.raises(BadInput, match=r"^data: x of arrays has a rate, and no positions"):
        data.from_fields({"x": np.zeros(3)}, np.zeros(3, int), classes=2, rates={"x": 9})
