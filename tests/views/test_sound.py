import functools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import Views
from kdjax.inputs import Inputs
from kdjax.parse import parse
from kdjax.types import BadInput, Field
from kdjax.views import sound, waveform

N = 2000
AUDIO = jnp.asarray(np.random.default_rng(0).integers(-9000, 9000, N), jnp.int16)
X = AUDIO.astype(jnp.float32)
KEYS = jax.random.split(jax.random.key(7), 40)
ALL = {
    "shift": 200,
    "speed": 1.2,
    "gain": 6.0,
    "noise": 10.0,
    "time_mask": 300,
    "band_mask": 0.2,
}


def test_a_view_has_the_form_of_the_recording_and_the_key_decides():
    views = [np.asarray(waveform(key, AUDIO, **ALL)) for key in KEYS[:3]]
    assert all(view.dtype == np.int16 and view.shape == (N,) for view in views)
    assert not np.array_equal(views[0], views[1])
    np.testing.assert_array_equal(views[0], waveform(KEYS[0], AUDIO, **ALL))
    np.testing.assert_array_equal(waveform(KEYS[0], AUDIO), AUDIO)


def test_what_is_left_out_changes_no_other_draw():
    loud = jnp.full(N, 20000, jnp.int16)
    alone = waveform(KEYS[1], loud, time_mask=500)
    beside = waveform(KEYS[1], loud, time_mask=500, gain=3.0)
    assert (alone == 0).any()
    np.testing.assert_array_equal(alone == 0, beside == 0)
    assert (alone != beside).any()


def test_it_is_shifted_by_at_most_so_many_samples_and_zeros_come_in():
    found = set()
    for key in KEYS:
        moved = np.asarray(sound.shifted(key, X, most=3))
        by = next(d for d in range(-3, 4) if np.array_equal(moved[3 + d : N - 3 + d], X[3 : N - 3]))
        assert not moved[:by].any() if by > 0 else not moved[N + by :].any()
        found.add(by)
    assert found == {-3, -2, -1, 0, 1, 2, 3}


def test_a_tone_is_higher_and_lower_within_the_speed():
    at = np.arange(N)
    tone = jnp.asarray(1000 * np.sin(2 * np.pi * 100 * at / N), jnp.float32)
    peaks = []
    for key in KEYS:
        played = np.asarray(sound.at_speed(key, tone, most=1.25))
        middle = played[N // 4 : 3 * N // 4] * np.hanning(N // 2)
        peaks.append(2 * np.abs(np.fft.rfft(middle)).argmax())
    assert min(peaks) >= 100 / 1.25 - 2
    assert max(peaks) <= 100 * 1.25 + 2
    assert max(peaks) - min(peaks) > 20


def test_it_is_louder_or_softer_within_the_decibels():
    ratios = [
        float(jnp.abs(sound.louder(key, X, decibels=6.0)).sum() / np.abs(X).sum()) for key in KEYS
    ]
    assert 10 ** (-6 / 20) <= min(ratios) < 0.8
    assert 1.25 < max(ratios) <= 10 ** (6 / 20)


def test_noise_is_so_far_below_the_signal_and_silence_stays():
    for key in KEYS[:10]:
        added = np.asarray(sound.with_noise(key, X, least=10.0)) - X
        ratio = 20 * np.log10(np.sqrt((X**2).mean()) / np.sqrt((added**2).mean()))
        assert 9.5 < ratio < 40.5
    assert not np.asarray(sound.with_noise(KEYS[0], jnp.zeros(N), least=10.0)).any()


def test_one_piece_is_silent_and_the_rest_as_it_was():
    lengths = []
    for key in KEYS:
        changed = np.flatnonzero(np.asarray(sound.silenced(key, X + 20000, most=100)) != X + 20000)
        lengths.append(len(changed))
        assert not len(changed) or changed[-1] - changed[0] == len(changed) - 1
    assert max(lengths) <= 100
    assert len(set(lengths)) > 10


def test_a_band_is_taken_out_and_the_rest_of_the_spectrum_stays():
    before = np.fft.rfft(X)
    octaves = np.log2(np.maximum(np.arange(len(before)), 1) / len(before))
    for key in KEYS[:10]:
        after = np.fft.rfft(np.asarray(sound.without_band(key, X, most=0.3)))
        out = np.flatnonzero(np.abs(after) < 1e-4 * np.abs(before).max())
        rest = np.setdiff1d(np.arange(len(before)), out)
        np.testing.assert_allclose(after[rest], before[rest], atol=1e-4 * np.abs(before).max())
        assert not len(out) or octaves[out[-1]] - octaves[out[0]] <= 0.3 * 6 + 0.01


def recipe(**fields):
    return parse(Views, {"recipe": "waveform", **fields}, "views")


def test_a_recipe_augments_sound_and_leaves_the_rest():
    fields = {"audio": Field((N,), "int16"), "speaker": Field((2,), "float32")}
    drawn = recipe(shift=50, gain=3.0).recipe_for(Inputs.of(fields))
    example = {"audio": AUDIO, "speaker": jnp.ones(2)}
    found = drawn(KEYS[0], example)
    np.testing.assert_array_equal(found["speaker"], example["speaker"])
    np.testing.assert_array_equal(found["audio"], waveform(KEYS[0], AUDIO, shift=50, gain=3.0))


@pytest.mark.parametrize(
    "fields",
    [{"image": Field((8, 8, 1), "uint8")}, {"tokens": Field((8,), "int32", 9)}],
)
def test_what_is_no_sound_is_refused(fields):
    with pytest.raises(BadInput, match="waveform is one of sound"):
        recipe(shift=5).recipe_for(Inputs.of(fields))


def test_it_moves_what_is_at_a_position_where_it_is_shifted_or_played_faster():
    assert recipe(shift=1).moves
    assert recipe(speed=1.01).moves
    assert not recipe(gain=3.0, noise=20.0, time_mask=9, band_mask=0.1).moves


RAGGED = {"audio": Field((N,), "int16", ragged=True), "audio_length": Field((), "int32", N + 1)}


def padded(length, width):
    return jnp.where(jnp.arange(width) < length, jnp.asarray(AUDIO[:width]), 0).astype(jnp.int16)


@functools.cache
def drawn(width, **fields):
    """Compiled for each width: the second length of it does not trace again."""
    return jax.jit(recipe(**fields).recipe_for(Inputs.of(RAGGED)))


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    length=st.integers(1, 300),
    widths=st.tuples(*[st.sampled_from([300, 412, N])] * 2),
    seed=st.integers(0, 2**31 - 1),
    without=st.sampled_from([(), ("noise", "band_mask")]),
)
def test_a_recording_of_its_own_length_is_seen_alike_whatever_it_is_padded_to(
    length, widths, seed, without
):
    fields = {name: value for name, value in ALL.items() if name not in without}
    key = jax.random.key(seed)
    found = []
    for width in widths:
        example = {"audio": padded(length, width), "audio_length": jnp.int32(length)}
        seen = drawn(width, **fields)(key, example)
        new = int(seen["audio_length"])
        assert length / ALL["speed"] - 1 <= new <= length * ALL["speed"] + 1
        audio = np.asarray(seen["audio"])
        assert audio.dtype == np.int16
        assert len(audio) == min(N, math.ceil(width * ALL["speed"])) >= new >= 1
        assert not audio[new:].any()
        found.append(audio[:new])
    np.testing.assert_array_equal(*found)


def test_what_else_is_drawn_changes_nothing_of_its_new_length():
    example = {"audio": padded(600, N), "audio_length": jnp.int32(600)}
    alone, beside = (drawn(N, **fields)(KEYS[3], example) for fields in ({"speed": 1.2}, ALL))
    assert int(alone["audio_length"]) == int(beside["audio_length"]) != 600


def test_it_is_played_to_its_end_and_says_how_long_it_is():
    length = 500
    x = np.where(np.arange(N) < length, X, 0.0).astype(np.float32)
    seen = set()
    every = jax.vmap(lambda key: sound.played(key, jnp.asarray(x), jnp.int32(length), most=1.25))(
        KEYS
    )
    for heard, new in zip(*map(np.asarray, every), strict=True):
        at = np.arange(new) * length / new
        np.testing.assert_allclose(heard[:new], np.interp(at, np.arange(N), x), atol=2.0)
        assert not heard[new:].any()
        seen.add(int(new))
    assert 400 <= min(seen) < 430
    assert 590 < max(seen) <= 625
    found = sound.shortest(np.asarray([1, 500]), speed=1.25)
    np.testing.assert_array_equal(found, [1, 400])
    np.testing.assert_array_equal(sound.shortest(np.asarray([7]), speed=1.0), [7])


def test_long_recordings_are_read_where_they_are():
    """A float32 alone is 1/64 of a sample off there, which is noise 27 dB below this tone."""
    n, most = 600_000, 1.3
    x = 9000 * np.sin(np.arange(n) * 1.2)
    given = jnp.pad(jnp.asarray(x, jnp.float32), (0, n // 2))
    heard, new = jax.jit(functools.partial(sound.played, most=most))(KEYS[2], given, jnp.int32(n))
    at = np.arange(int(new)) * n / int(new)
    wanted = np.interp(at, np.arange(n + 1), np.append(x, 0.0))
    np.testing.assert_allclose(heard[: int(new)], wanted, atol=2.0)
    fixed = jax.jit(functools.partial(sound.at_speed, most=most))(KEYS[2], given[:n])
    factor = float(jnp.exp(jax.random.uniform(KEYS[2], (), minval=-1, maxval=1) * math.log(most)))
    at = (np.arange(n) - (n - 1) / 2) * factor + (n - 1) / 2
    wanted = np.where((at >= 0) & (at <= n - 1), np.interp(at, np.arange(n), x), 0.0)
    np.testing.assert_allclose(fixed, wanted, atol=2.0)


def test_there_is_room_for_all_of_a_recording_that_is_played_slower():
    new = jax.vmap(lambda key: sound.played(key, X, jnp.int32(N - 3), most=1.5)[1])(KEYS)
    assert new.max() == N
    assert new.min() < 0.8 * N


def test_it_is_moved_and_silenced_by_half_of_its_length_at_most():
    length = 20
    x = jnp.where(jnp.arange(N) < length, 100.0, 0.0)
    for change in (sound.shifted, sound.silenced):
        every = jax.vmap(functools.partial(change, x=x, length=jnp.int32(length), most=300))(KEYS)
        assert not every[:, length:].any()
        assert (every > 0).sum(1).min() == 10


def test_what_would_leave_nothing_is_named():
    inputs = Inputs.of({"audio": Field((N,), "int16")})
    faults = recipe(shift=N, time_mask=N).too_large(inputs)
    assert [path for path, *_ in faults] == ["shift", "time_mask"]
    assert not [*recipe(shift=N - 1, time_mask=9).too_large(inputs)]


def test_the_loudest_gain_is_held_at_the_ends_and_no_number_is_lost():
    """Beyond 770 decibels a factor is infinite in float32, and times a zero it is no number."""
    audio = jnp.asarray([0, 1, -1, 300, -(2**15), 2**15 - 1], jnp.int16)
    for key in KEYS[:8]:
        found = np.asarray(waveform(key, audio, gain=120.0), np.int64)
        assert (np.sign(found) * np.sign(np.asarray(audio, np.int64)) >= 0).all()
    assert found[0] == 0
    with pytest.raises(BadInput, match=r"gain: 1000\.0"):
        recipe(gain=1000.0)
