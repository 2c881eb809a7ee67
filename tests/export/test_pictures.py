"""Files that resize pictures and cut out their centre by themselves: Pillow's pixels, to the bit."""

import numpy as np
import pytest
from PIL import Image

from kdjax.export import (
    load_litert,
    load_onnx,
    load_stablehlo,
    write_litert,
    write_onnx,
    write_stablehlo,
)
from kdjax.inputs import Inputs
from kdjax.types import Field

FIELDS = {"image": Field((40, 30, 3), "uint8")}


def onnx(function, path):
    write_onnx(function, path, inputs=FIELDS)
    return load_onnx(path, threads=1)


def stablehlo(function, path):
    write_stablehlo(function, path, inputs=FIELDS)
    return load_stablehlo(path)


def litert(function, path):
    pytest.importorskip("litert_converter", reason="needs the extra: pip install 'kdjax[litert]'")
    write_litert(function, path, inputs=FIELDS)
    return load_litert(path, threads=1)


@pytest.mark.parametrize("kind", [onnx, stablehlo, litert])
@pytest.mark.parametrize("interpolation", ["bicubic", "nearest"])
def test_a_file_sees_what_pillow_makes_of_a_picture(interpolation, kind, tmp_path):
    inputs = Inputs.of(FIELDS, crop=0.875, interpolation=interpolation).sized(14)

    def seen(images):
        return inputs.see_all({"image": images})["image"].reshape(images.shape[0], -1) * 255

    images = np.random.default_rng(0).integers(0, 256, (2, 40, 30, 3), np.uint8)
    found = np.asarray(kind(seen, tmp_path / "model")(images)).reshape(2, 14, 14, 3)
    np.testing.assert_allclose(found, np.round(found), atol=1e-3)
    method = Image.Resampling[interpolation.upper()]
    for image, own in zip(images, found, strict=True):
        whole = np.asarray(Image.fromarray(image).resize((16, 21), method))
        np.testing.assert_array_equal(np.round(own), whole[4:18, 1:15])
