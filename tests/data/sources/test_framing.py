"""A picture in a frame, against Pillow's own operations and the evaluation of published networks."""

import io

import numpy as np
import pytest
from PIL import Image

from kdjax.data.pictures import Unfit
from kdjax.data.sources import Frame, framed
from kdjax.data.sources.framing import looked_at
from kdjax.types import BadInput
from tests.picture_files import encoded, pixels
from tests.prepared_sets import png

RGB = pixels(0)
GREY = pixels(1, channels=1)
ALPHA = np.random.default_rng(0).integers(256, size=(9, 12, 1), dtype=np.uint8)
DEEP = np.random.default_rng(0).integers(2**16, size=(9, 12))


def whole(image, **frame):
    """What a frame of its own size makes of a picture."""
    content = image if isinstance(image, bytes) else encoded(image)
    return framed(content, Frame(size=(9, 12), **frame))


@pytest.mark.parametrize(
    ("height", "width", "frame", "resized"),
    [  # heights and widths worked out by hand
        (20, 30, {"size": (10, 10)}, (10, 15)),
        (30, 20, {"size": (10, 10), "crop": 0.875}, (16, 11)),
        (31, 20, {"size": (224, 224), "crop": 224 / 232}, (359, 232)),
        (20, 30, {"size": (10, 12), "crop": 0.5}, (20, 30)),
        (20, 30, {"size": (10, 10), "resize": "squash", "crop": 0.9}, (11, 11)),
        (20, 30, {"size": (10, 10), "resize": "pad"}, (7, 10)),
        (1, 900, {"size": (10, 10), "resize": "pad"}, (1, 10)),
    ],
)
def test_sizes_before_the_crop(height, width, frame, resized):
    assert Frame(**frame).resized(height, width) == resized


@pytest.mark.parametrize(("name", "filter"), [("bilinear", 2), ("bicubic", 3), ("nearest", 0)])
def test_the_centre_of_what_pillow_resizes(name, filter):
    found = framed(encoded(RGB), Frame(size=(5, 5), crop=0.625, interpolation=name))
    large = Image.fromarray(RGB).resize((int(8 * 12 / 9), 8), filter)
    # torchvision: round((8 - 5) / 2), round((10 - 5) / 2)
    np.testing.assert_array_equal(found, np.asarray(large)[2:7, 2:7])


def test_a_padded_picture_is_in_the_middle_of_the_background():
    found = framed(encoded(RGB), Frame(size=(15, 12), resize="pad", background=(1, 2, 3)))
    np.testing.assert_array_equal(found[3:12], RGB)
    assert (found[[0, 2, 12, 14]] == [1, 2, 3]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_the_orientation_that_a_camera_notes_is_applied(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {} if format == "JPEG" else {"lossless": True}
    content = encoded(RGB, format, exif=exif, **options)
    stored = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    seen = {  # rows and columns as the Exif standard names where the first ones are seen
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: stored[::-1].swapaxes(0, 1),
        7: stored[::-1, ::-1].swapaxes(0, 1),
        8: stored[:, ::-1].swapaxes(0, 1),
    }[orientation]
    assert looked_at(content, pixels=True) == seen.shape[:2]
    np.testing.assert_array_equal(framed(content, Frame(size=seen.shape[:2])), seen)


def test_transparent_pixels_lie_on_the_background():
    share = ALPHA.astype(np.float64) / 255
    for image, colour in (
        (np.dstack([RGB, ALPHA]), RGB),
        (np.dstack([GREY, ALPHA]), np.repeat(GREY, 3, -1)),
    ):
        found = whole(image, background=(200, 0, 30))
        wanted = share * colour + (1 - share) * [200, 0, 30]
        assert np.abs(found - wanted).max() <= 1.0


def test_of_16_bits_the_upper_8_are_kept():
    content = png(DEEP, depth=16, colour_type=0)
    np.testing.assert_array_equal(whole(content, channels=1)[..., 0], DEEP // 256)
    clear = png(DEEP, depth=16, colour_type=0, chunks={b"tRNS": int(DEEP[2, 3]).to_bytes(2, "big")})
    found = whole(clear, background=(9, 9, 9))
    assert (found[2, 3] == 9).all()
    np.testing.assert_array_equal(
        found[DEEP[2, 3] != DEEP][:, 1], (DEEP // 256)[DEEP[2, 3] != DEEP]
    )


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1"])
def test_other_modes_are_as_pillow_converts_them(mode):
    image = Image.fromarray(RGB).convert(mode)
    format = "TIFF" if mode == "CMYK" else "PNG"
    if mode == "CMYK":
        content = encoded(image, "JPEG", quality=95)
        image = Image.open(io.BytesIO(content))
    else:
        content = encoded(image, format)
    np.testing.assert_array_equal(whole(content), np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(
        whole(content, channels=1)[..., 0], image.convert("RGB").convert("L")
    )


def test_a_draft_is_near_and_not_the_same():
    content = encoded(pixels(3, 400, 300), "JPEG", quality=90)
    exact, draft = (framed(content, Frame(size=(32, 32), draft=on)) for on in (False, True))
    apart = np.abs(exact.astype(int) - draft)
    assert 0 < apart.max() <= 12


BROKEN = {
    "empty": (b"", "it is empty"),
    "text": (b"no picture at all", "not one of PNG, JPEG, GIF, BMP, WEBP"),
    "cut short": (encoded(pixels(0, 60, 60), "JPEG")[:-300], "its pixels are damaged"),
    "animated": (
        encoded(
            Image.fromarray(RGB), "GIF", save_all=True, append_images=[Image.fromarray(RGB[::-1])]
        ),
        "it is animated, with 2 frames",
    ),
    "deep floats": (
        encoded(Image.fromarray(GREY[..., 0].astype(np.float32)), "TIFF"),
        "not one of",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_says_what_it_is(name):
    content, said = BROKEN[name]
    for look in (
        lambda: framed(content, Frame(size=(4, 4))),
        lambda: looked_at(content, pixels=True),
    ):
        with pytest.raises(Unfit, match=said):
            look()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("most", [200, 60])  # Pillow warns of the one, and refuses the other
def test_a_decompression_bomb_is_refused(monkeypatch, most):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    content = encoded(pixels(0, 15, 14))
    with pytest.raises(Unfit, match=r"15 x 14 pixels, and 200|exceeds limit"):
        framed(content, Frame(size=(4, 4)))


def test_a_strip_is_not_blown_up():
    with pytest.raises(Unfit, match="a strip whose short side cannot be 64"):
        Frame(size=(64, 64)).resized(1, 40_000)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", (0, 4)),
        ("crop", 0.0),
        ("crop", 1.5),
        ("channels", 4),
        ("background", (0, 0, 256)),
    ],
)
def test_a_frame_that_is_none(field, value):
    with pytest.raises(BadInput, match=f"^{field}: "):
        Frame(**{"size": (4, 4), field: value})


def _torchvision():
    try:
        from torchvision import transforms
    except ImportError:
        pytest.skip("torchvision is not installed")
    except RuntimeError as error:
        pytest.skip(f"torchvision does not go with this torch: {error}")
    return transforms


@pytest.mark.parametrize("shape", [(300, 200), (97, 64), (33, 500), (224, 224), (10, 13)])
def test_it_is_the_evaluation_of_published_networks(shape):
    """torchvision's, of pictures as Pillow opens them, to the bit."""
    transforms = _torchvision()
    content = encoded(
        np.random.default_rng(0).integers(256, size=(*shape, 3), dtype=np.uint8), "JPEG"
    )
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    for resized, size in ((256, 224), (232, 224), (64, 64), (37, 33)):
        for name in ("bilinear", "bicubic"):
            theirs = transforms.Compose(
                [
                    transforms.Resize(resized, transforms.InterpolationMode(name)),
                    transforms.CenterCrop(size),
                ]
            )(picture)
            ours = framed(
                content, Frame(size=(size, size), crop=size / resized, interpolation=name)
            )
            np.testing.assert_array_equal(ours, np.asarray(theirs))
