"""Masks of spectra against a computation by hand from the same draws."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import Encoder
from kdjax.models import LogMel, OnLogMel, RecurrentNet, SpecAugment, spec_augmented
from kdjax.parse import parse
from kdjax.types import BadInput

HOW = SpecAugment(band_masks=2, band_width=3, frame_masks=2, frame_width=6, frame_share=0.4)
FRAMES, BANDS = 20, 8
LENGTHS = [20, 9, 1, 13]


def spectra():
    return jnp.asarray(np.random.default_rng(0).normal(size=(4, FRAMES, BANDS)), jnp.float32)


def pieces(units, widest, end):
    """Which of `end` places are in a piece."""
    inside = set()
    for wide, at in zip(*units, strict=True):
        width = math.floor(float(wide) * (widest + 1))
        begin = math.floor(float(at) * (end - width + 1))
        inside |= {*range(begin, begin + width)}
    return inside


def by_hand(key, x, lengths, how):
    of_bands, of_frames = jax.random.split(key)
    count, frames, bands = x.shape
    shapes = ((2, count, how.band_masks), (2, count, how.frame_masks))
    units = [
        np.asarray(jax.random.uniform(k, s))
        for k, s in zip((of_bands, of_frames), shapes, strict=True)
    ]
    found = np.array(x)
    for i in range(count):
        end = frames if lengths is None else lengths[i]
        widest = min(how.frame_width, math.floor(np.float32(how.frame_share) * np.float32(end)))
        for band in pieces(units[0][:, i], min(how.band_width, bands), bands):
            found[i, :, band] = 0.0
        for frame in pieces(units[1][:, i], widest, end):
            assert frame < end
            found[i, frame] = 0.0
    return found


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize(
    "how", [HOW, HOW._replace(frame_masks=0), HOW._replace(band_masks=0, frame_share=1.0)]
)
def test_it_is_what_the_draws_say(how, lengths):
    x, masked = spectra(), jax.jit(functools.partial(spec_augmented, how=how))
    widths = set()
    for seed in range(12):
        key = jax.random.key(seed)
        found = masked(key, x, None if lengths is None else jnp.asarray(lengths))
        np.testing.assert_array_equal(found, by_hand(key, x, lengths, how))
        widths.add(int((np.asarray(found) == 0).sum()))
    assert len(widths) > 6


def network(augment):
    front = LogMel(rate=1000, frame=64, hop=25, bands=BANDS)
    return OnLogMel(front=front, net=RecurrentNet((6,), pool="none"), augment=augment)


def test_it_is_drawn_by_the_stream_of_dropout_and_only_in_training():
    audio = jnp.asarray(np.random.default_rng(1).integers(-9000, 9000, (3, 500)), jnp.int16)
    length = jnp.asarray([500, 300, 120])
    augmented, plain = network(HOW), network(None)
    variables = plain.init(jax.random.key(0), audio, length, train=False)

    def applied(net, key, train=True):
        rngs = None if key is None else {"dropout": key}
        return np.asarray(net.apply(variables, audio, length, train=train, rngs=rngs)[0])

    first, again, other = (applied(augmented, jax.random.key(i)) for i in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != applied(plain, None)).any()
    np.testing.assert_array_equal(applied(augmented, None, False), applied(plain, None, False))

    def jaxpr(train):
        run = functools.partial(augmented.apply, variables, train=train)
        return str(
            jax.make_jaxpr(lambda key: run(audio, length, rngs={"dropout": key}))(jax.random.key(0))
        )

    assert "random_bits" in jaxpr(True)
    assert "random" not in jaxpr(False)  # nor in a file, which is made of it


USUAL = {"name": "log_mel", "rate": 1000, "bands": 8, "net": {"name": "lstm", "widths": [4]}}


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"normalize": False},
            "augment: masks put zeros, which are the mean of normalised spectra; set normalize=True, or",
        ),
        (
            {"augment": {"band_width": 8, "frame_width": 3}},
            "augment.band_width: 8 bands leave nothing of 8; give fewer",
        ),
        (
            {"cepstrum": 6},
            "augment.band_masks: 2, and coefficients of a cepstrum are no bands; set band_masks=0",
        ),
        (
            {"augment": {"band_width": 2, "frame_width": 3, "band_masks": 0, "frame_masks": 0}},
            "augment.band_masks: both are 0; leave augment out",
        ),
        ({"augment": {"band_width": 2}}, "augment.frame_width: missing"),
        (
            {"augment": {"band_width": 2, "frame_width": 3, "frame_share": 0.0}},
            "augment.frame_share: 0.0 is not in",
        ),
    ],
)
def test_what_is_refused_in_one_line(fields, line):
    usual = {**USUAL, "augment": {"band_width": 2, "frame_width": 3}}
    parse(Encoder, usual, "encoder")
    with pytest.raises(BadInput) as caught:
        parse(Encoder, {**usual, **fields}, "encoder")
    assert str(caught.value).startswith(f"encoder.{line}")
    assert "\n" not in str(caught.value)
