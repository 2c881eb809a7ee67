"""Pictures of any shape as published weights want them: framed by a source, or cut on the device."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from etils import epath
from PIL import Image

from kdjax import config, main, parse, pipeline, views, weights
from kdjax.artifacts import Artifact
from kdjax.contexts import Splits
from kdjax.data.sources import Frame
from kdjax.data.sources.framing import framed
from kdjax.fitting import pictures
from kdjax.inputs import Image as Seen
from kdjax.inputs import Inputs
from kdjax.types import Field
from kdjax.weights import Preprocessing
from tests.picture_files import encoded, pixels

TIMM = {"input_size": [3, 14, 14], "crop_pct": 0.875, "interpolation": "bicubic"}
TIMM |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CONVNEXT = {"size": {"shortest_edge": 14}, "crop_pct": 0.875, "resample": 3}
SQUASHED = {"do_resize": True, "size": {"height": 14, "width": 14}, "resample": 2}
SHAPES = [(20, 33), (33, 20), (19, 14), (41, 40)]
ENCODER = {"name": "cnn", "widths": [4]}


def folder(at, file, said):
    """Of weights of a small network, with what is said of its pictures."""
    at.mkdir(exist_ok=True)
    shapes = {"params/encoder/block0/conv/kernel": (3, 3, 3, 4)}
    shapes |= {f"params/encoder/block0/norm/{name}": (4,) for name in ("scale", "bias")}
    shapes |= {f"batch_stats/encoder/block0/norm/{name}": (4,) for name in ("mean", "var")}
    tensors = {name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}
    safetensors.numpy.save_file(tensors, at / "model.safetensors")
    (at / file).write_text(json.dumps({"pretrained_cfg": said} if file == "config.json" else said))
    return str(at)


def by_hand(picture, short, size, method):
    """Resize and CenterCrop, as torchvision and timm have them."""
    wide, high = picture.size
    if high <= wide:
        picture = picture.resize((int(short * wide / high), short), method)
    else:
        picture = picture.resize((short, int(short * high / wide)), method)
    left, top = (round((side - size) / 2.0) for side in picture.size)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


def squashed(picture):
    return np.asarray(picture.resize((14, 14), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("file", "said", "wanted"),
    [
        ("config.json", TIMM, lambda p: by_hand(p, 16, 14, Image.Resampling.BICUBIC)),
        (
            "preprocessor_config.json",
            CONVNEXT,
            lambda p: by_hand(p, 16, 14, Image.Resampling.BICUBIC),
        ),
        ("preprocessor_config.json", SQUASHED, squashed),
    ],
    ids=["timm", "ConvNeXt of transformers", "ViT of transformers"],
)
def test_what_is_said_beside_weights_is_what_is_seen_to_the_bit(
    file, said, wanted, shape, tmp_path
):
    """Of the file of a picture, and of pixels on the device."""
    known = weights.preprocessing(folder(tmp_path / "x", file, said))
    image = pixels(1, *shape)
    expected = wanted(Image.fromarray(image))
    np.testing.assert_array_equal(framed(encoded(image), Frame(**known.frame())), expected)
    inputs = Inputs.of(
        {"image": Field((*shape, 3), "uint8")},
        crop=None if known.squash else known.crop,
        interpolation=known.interpolation,
    ).sized(known.size)
    found = inputs.see({"image": jnp.asarray(image)})["image"] * 255
    np.testing.assert_array_equal(np.round(found), expected)
    np.testing.assert_allclose(found, np.round(found), atol=1e-4)


def test_views_without_augmentation_are_the_same_and_those_with_it_as_they_were():
    raw = jnp.asarray(pixels(1, 20, 33))
    inputs = Inputs.of(
        {"image": Field((20, 33, 3), "uint8")}, crop=0.875, interpolation="bicubic"
    ).sized(14)
    assert parse.parse(Inputs, parse.plain(inputs)) == inputs
    whole = dataclasses.replace(inputs.images[0], crop=None, interpolation=None)

    def drawn(inputs, **fields):
        recipe = parse.parse(config.Views, fields).recipe_for(inputs)
        return recipe(jax.random.key(0), {"image": raw})["image"]

    np.testing.assert_array_equal(drawn(inputs, recipe="eval"), inputs.see({"image": raw})["image"])
    assert np.abs(drawn(inputs, recipe="eval") - whole.see(raw)).max() > 0.01
    np.testing.assert_array_equal(
        drawn(inputs, recipe="eval", crop=0.5),
        views.eval_view(raw, size=14, crop=0.5, interpolation="bicubic"),
    )
    for recipe in ("crop_flip", "simclr"):
        np.testing.assert_array_equal(
            drawn(inputs, recipe=recipe), drawn(Inputs((whole,)), recipe=recipe)
        )


FRAME = {"size": (14, 14), "resize": "short_side", "crop": 0.875, "interpolation": "bicubic"}
WANTED = Preprocessing(size=(14, 14), crop=0.875, interpolation="bicubic")
SHORT = "resized to a short side of 16 (bicubic), of which the centre of 14 x 14 is left"


def image(shape=(14, 14), size=(14, 14), **fields):
    return Seen(field="image", shape=(*shape, 3), size=size, **fields)


@pytest.mark.parametrize(
    ("wanted", "seen", "frame"),
    [
        (WANTED, image(), FRAME),
        (WANTED, image(), None),  # whoever made them of this size
        (WANTED, image((20, 30), crop=0.875, interpolation="bicubic"), None),
        (WANTED, image(), {**FRAME, "crop": 14 / 16.5}),  # the same number of pixels
        (
            Preprocessing(size=(14, 14), crop=1.0, squash=True),
            image(),
            {**FRAME, "resize": "squash", "crop": 1.0, "interpolation": "bilinear"},
        ),
        (
            Preprocessing(size=(14, 14), crop=1.0, squash=True),
            image((20, 20), interpolation="bilinear"),
            None,
        ),
    ],
)
def test_what_is_alike_has_no_line(wanted, seen, frame):
    assert pictures.seen_otherwise(wanted, seen, frame) is None


@pytest.mark.parametrize(
    ("seen", "frame", "ours", "mend"),
    [
        (
            image(),
            {**FRAME, "crop": 1.0},
            "resized to a short side of 14 (bicubic), of which the centre of 14 x 14 is left",
            "config.data.source.crop=0.875",
        ),
        (
            image(),
            {**FRAME, "resize": "squash", "crop": 1.0, "interpolation": "nearest"},
            "squeezed to 14 x 14 (nearest)",
            "config.data.source.resize=short_side, config.data.source.crop=0.875, "
            "config.data.source.interpolation=bicubic",
        ),
        (
            image(),
            {**FRAME, "resize": "pad", "crop": 1.0},
            "padded to 14 x 14 (bicubic)",
            "config.data.source.resize=short_side, config.data.source.crop=0.875",
        ),
        (
            image((10, 10), (10, 10)),
            {**FRAME, "size": (10, 10)},
            "resized to a short side of 11 (bicubic), of which the centre of 10 x 10 is left",
            "config.data.source.size=[14, 14]",
        ),
        (
            image((20, 20)),
            {**FRAME, "size": (20, 20)},
            "resized to a short side of 22 (bicubic), of which the centre of 20 x 20 is left, and then "
            "resized to a short side of 14 (bilinear, not Pillow's), of which the centre of 14 x 14 is "
            "left",
            "config.data.source.size=[14, 14], the size of the stage likewise",
        ),
        (
            image((20, 30)),
            None,
            "squeezed to 14 x 14 (bilinear, not Pillow's)",
            "the size of the stage to [14, 14], config.data.crop=0.875 and "
            "config.data.interpolation=bicubic, of pictures that are as large",
        ),
        (
            image((9, 9), (9, 9)),
            None,
            "as they are, 9 x 9",
            "the size of the stage to [14, 14], config.data.crop=0.875 and "
            "config.data.interpolation=bicubic, of pictures that are as large",
        ),
    ],
)
def test_what_differs_is_one_line(seen, frame, ours, mend):
    assert pictures.seen_otherwise(WANTED, seen, frame) == (
        f"it sees pictures {ours}; the weights were trained for pictures {SHORT}; for the same set {mend}"
    )


def test_a_run_says_what_differs_and_its_files_say_what_they_see(tmp_path, capsys):
    """Pictures of several shapes in a folder; then the same with what the line says."""
    source = folder(tmp_path / "x", "config.json", TIMM)
    for i, shape in enumerate(SHAPES * 4):
        place = tmp_path / "pictures" / ("a" if i % 2 else "b") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encoded(pixels(i, *shape)))

    def run(name, **frame):
        data = {"kind": "folder", "root": str(tmp_path / "pictures"), "size": 14, **frame}
        made = parse.parse(
            config.Run,
            {
                "name": "it",
                "data": {
                    "name": "shapes",
                    "source": {**data, "test_share": 0.3},
                    "mean": TIMM["mean"],
                    "std": TIMM["std"],
                },
                "stages": {
                    "imported": {
                        "kind": "pretrained",
                        "encoder": {**ENCODER, "weights": source},
                    }
                },
            },
        )
        splits = Splits(made.data)
        (task,) = pipeline.plan(made, epath.Path(tmp_path / name), splits)
        pipeline.execute(made, [task], splits)
        return task, capsys.readouterr().err

    task, said = run("first", crop=1.0)
    line = (
        "imported: it sees pictures resized to a short side of 14 (bilinear), of which the centre of "
        f"14 x 14 is left; the weights were trained for pictures {SHORT}; for the same set "
        "config.data.source.crop=0.875, config.data.source.interpolation=bicubic"
    )
    assert line in said.splitlines()
    manifest = Artifact.open(task.folder, task.stage).manifest
    assert manifest["weights"]["seen_otherwise"] == line.removeprefix("imported: ")

    task, said = run("second", crop=0.875, interpolation="bicubic")
    assert "it sees pictures" not in said
    artifact = Artifact.open(task.folder, task.stage)
    assert "seen_otherwise" not in artifact.manifest["weights"]
    out = tmp_path / "out.safetensors"
    assert main.main(["kdjax", "weights", str(task.folder), str(out)]) == 0
    again = weights.preprocessing(str(out))
    assert again.frame() == weights.preprocessing(source).frame()
    assert (again.mean, again.std) == (tuple(TIMM["mean"]), tuple(TIMM["std"]))
