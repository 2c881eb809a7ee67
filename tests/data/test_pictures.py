"""Pictures in every encoding, against the samples that they were written from."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from kdjax.data import pictures
from tests.prepared_sets import encoded, png

RNG = np.random.default_rng(0)
RGB = RNG.integers(256, size=(8, 8, 3), dtype=np.uint8)
GREY = RNG.integers(256, size=(8, 8), dtype=np.uint8)
ALPHA = RNG.integers(1, 255, size=(8, 8), dtype=np.uint8)  # nowhere 0: half is transparent, too
DEEP = RNG.integers(2**16, size=(8, 8, 4))
PALETTE = RNG.integers(256, size=(4, 3), dtype=np.uint8)
INDEX = RNG.integers(4, size=(8, 8), dtype=np.uint8)
OPAQUE = np.full((8, 8), 255, np.uint8)
OPAQUE_DEEP = np.concatenate([DEEP[..., :3], np.full((8, 8, 1), 2**16 - 1)], -1)

_PALETTE = {b"PLTE": PALETTE.tobytes()}


def _colour(grey):
    return np.stack([grey] * 3, -1)


@pytest.mark.parametrize(
    ("content", "expected"),
    {
        "colour": (encoded(RGB), RGB),
        "grey": (encoded(GREY), _colour(GREY)),
        "1 bit": (png(INDEX % 2, depth=1, colour_type=0), _colour(INDEX % 2 * 255)),
        "2 bits": (png(INDEX, depth=2, colour_type=0), _colour(INDEX * 85)),
        "4 bits": (png(GREY // 16, depth=4, colour_type=0), _colour(GREY // 16 * 17)),
        "16 bits of grey": (
            png(DEEP[..., 0], depth=16, colour_type=0),
            _colour(DEEP[..., 0] // 256),
        ),
        "16 bits of colour": (png(DEEP[..., :3], depth=16, colour_type=2), DEEP[..., :3] // 256),
        "16 bits, opaque": (png(OPAQUE_DEEP, depth=16, colour_type=6), DEEP[..., :3] // 256),
        "palette": (png(INDEX, depth=8, colour_type=3, chunks=_PALETTE), PALETTE[INDEX]),
        "palette of 2 bits": (png(INDEX, depth=2, colour_type=3, chunks=_PALETTE), PALETTE[INDEX]),
        "palette, opaque": (
            png(INDEX, depth=8, colour_type=3, chunks=_PALETTE | {b"tRNS": b"\xff\xff"}),
            PALETTE[INDEX],
        ),
        "opaque": (encoded(np.dstack([RGB, OPAQUE])), RGB),
        "grey, opaque": (encoded(np.dstack([GREY, OPAQUE])), _colour(GREY)),
        "gamma": (
            png(RGB, depth=8, colour_type=2, chunks={b"gAMA": (45455).to_bytes(4, "big")}),
            RGB,
        ),
        "gif": (encoded(Image.fromarray(GREY), "GIF"), _colour(GREY)),
        "bmp": (encoded(RGB, "BMP"), RGB),
        "webp": (encoded(RGB, "WEBP", lossless=True), RGB),
    }.values(),
)
def test_three_channels(content, expected):
    found = pictures.pixels(content, channels=3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    assert pictures.header(content) == (8, 8)


@pytest.mark.parametrize(
    ("channels", "content", "expected"),
    [
        (1, encoded(GREY), GREY[..., None]),
        (1, encoded(_colour(GREY)), GREY[..., None]),
        (1, encoded(np.dstack([GREY, OPAQUE])), GREY[..., None]),
        (1, png(DEEP[..., 0], depth=16, colour_type=0), DEEP[..., :1] // 256),
        (2, encoded(np.dstack([GREY, ALPHA])), np.dstack([GREY, ALPHA])),
        (2, encoded(GREY), np.dstack([GREY, OPAQUE])),
        (2, png(DEEP[..., :2], depth=16, colour_type=4), DEEP[..., :2] // 256),
        (4, encoded(np.dstack([RGB, ALPHA])), np.dstack([RGB, ALPHA])),
        (4, encoded(RGB), np.dstack([RGB, OPAQUE])),
        (4, encoded(GREY), np.dstack([_colour(GREY), OPAQUE])),
        (4, png(DEEP, depth=16, colour_type=6), DEEP // 256),
        (
            4,
            png(INDEX, depth=8, colour_type=3, chunks=_PALETTE | {b"tRNS": b"\x07\x80"}),
            np.dstack([PALETTE[INDEX], np.array([7, 128, 255, 255])[INDEX]]),
        ),
    ],
)
def test_other_channels(channels, content, expected):
    np.testing.assert_array_equal(pictures.pixels(content, channels=channels), expected)


def test_jpeg_is_what_its_decoder_gives():
    """Grey is the luma that it holds; a camera's orientation is left alone, as TensorFlow leaves it."""
    grey = encoded(GREY, "JPEG")
    luma = np.asarray(Image.open(io.BytesIO(grey)))
    np.testing.assert_array_equal(pictures.pixels(grey, channels=3), _colour(luma))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    wide = RGB[:4]
    turned = encoded(wide, "JPEG", exif=exif)
    assert pictures.header(turned) == (4, 8)
    np.testing.assert_array_equal(
        pictures.pixels(turned, channels=3), pictures.pixels(encoded(wide, "JPEG"), channels=3)
    )


def test_interlaced_is_the_same():
    """One pass of Adam7 is all that a picture of one pixel has."""
    plain = png(RGB[:1, :1], depth=8, colour_type=2)
    header = plain[12:28] + b"\x01"
    laced = plain[:12] + header + zlib.crc32(header).to_bytes(4, "big") + plain[33:]
    np.testing.assert_array_equal(pictures.pixels(laced, channels=3), RGB[:1, :1])


_PNG = encoded(RGB)


@pytest.mark.parametrize(
    ("channels", "content", "message"),
    [
        (3, encoded(np.dstack([RGB, ALPHA])), "transparent pixels"),
        (3, encoded(np.dstack([GREY, ALPHA])), "transparent pixels"),
        (1, encoded(np.dstack([GREY, ALPHA])), "transparent pixels"),
        (3, png(DEEP, depth=16, colour_type=6), "transparent pixels"),
        (
            3,
            png(INDEX, depth=8, colour_type=3, chunks=_PALETTE | {b"tRNS": b"\xfe"}),
            "transparent pixels",
        ),
        (
            3,
            png(
                RGB,
                depth=8,
                colour_type=2,
                chunks={b"tRNS": RGB[2, 3].astype(">u2").tobytes()},
            ),
            "transparent pixels",
        ),
        (1, encoded(RGB), "in colour, and there is one channel"),
        (2, encoded(np.dstack([RGB, ALPHA])), "in colour"),
        (3, encoded(Image.fromarray(np.dstack([RGB, ALPHA]), "CMYK"), "JPEG"), "pixels are CMYK"),
        (
            3,
            encoded(
                Image.fromarray(RGB),
                "GIF",
                save_all=True,
                append_images=[Image.fromarray(RGB[::-1])],
            ),
            "animated, with 2 frames",
        ),
        (
            3,
            png(RNG.integers(250, 256, size=(8, 8)), depth=8, colour_type=3, chunks=_PALETTE),
            "a colour beyond the 4 of its palette",
        ),
        (3, b"", "it is empty"),
        (3, b"no picture at all", "no picture that can be opened"),
        (3, encoded(RGB, "TIFF"), "no picture that can be opened"),
        (3, _PNG[:20], "no picture that can be opened"),
        (3, _PNG[:-40], "its pixels are damaged"),
        (3, _PNG[:60] + bytes([_PNG[60] ^ 1]) + _PNG[61:], "its pixels are damaged"),
        (3, encoded(RGB, "JPEG")[:-40], "its pixels are damaged"),
    ],
)
@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
def test_what_does_not_fit_is_said(channels, content, message):
    with pytest.raises(pictures.Unfit, match=message) as caught:
        pictures.pixels(content, channels=channels)
    assert "\n" not in str(caught.value)
