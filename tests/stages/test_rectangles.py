"""Images that are not square, of two channels: sizes in a config, what is refused, a whole line."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from kdjax import config, parse, pipeline
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import encoder_of, load
from kdjax.commands import verify
from kdjax.commands.report import write_report
from kdjax.config.views.crop_flip import CropFlipViews
from kdjax.config.views.simclr import SimCLRViews
from kdjax.contexts import Splits
from kdjax.export import load_onnx, load_stablehlo
from kdjax.inputs import Inputs
from kdjax.types import BadInput, Field

PLAIN = {"recipe": "eval"}
COLOURLESS = {"recipe": "simclr", "jitter": 0.0, "grayscale": 0.0}
CNN = {"name": "cnn", "widths": [8, 16]}
VIT = {"name": "vit", "width": 8, "depth": 1, "heads": 2, "mlp": 8, "patch": 4}
TRAINING = {
    "steps": 2,
    "batch": 16,
    "log_every_steps": 1,
    "optimizer": {"name": "adamw", "learning_rate": 1e-2},
}
PRETRAIN = {"kind": "pretrain", "encoder": CNN, "method": {"name": "simclr"}, **TRAINING}
TEACHER = {"kind": "finetune", "encoder": CNN, "views": PLAIN, **TRAINING}


def _run(stages, **source):
    return parse.parse(
        config.Run,
        {
            "name": "rectangles",
            "data": {
                "name": "own",
                "source": {"function": "tests.own_inputs:spectra", **source},
            },
            "parallel": "single",
            "stages": stages,
        },
    )


def _checked(run, folder):
    splits = Splits(run.data)
    pipeline.check(run, pipeline.plan(run, epath.Path(folder), splits), splits)


def test_an_image_is_seen_in_its_own_height_and_width():
    own = Inputs.of({"picture": Field((12, 20, 2), "uint8")})
    assert own.images[0].size == (12, 20)
    assert own.images[0].seen.shape == (12, 20, 2)
    assert str(own) == "picture of 12 x 20 pixels"
    assert own.sized(None) is own
    assert own.sized(8) == own.sized((8, 8))
    assert own.sized((6, 10)).images[0].seen.shape == (6, 10, 2)
    raw = np.random.default_rng(0).integers(0, 256, (12, 20, 2), np.uint8)
    np.testing.assert_allclose(
        own.images[0].see(jnp.asarray(raw)), raw / np.float64(255), atol=1e-7
    )
    assert parse.parse(Inputs, parse.plain(own)) == own


@pytest.mark.parametrize(
    ("said", "size"), [("8", 8), ("6,10", (6, 10)), ("[6, 10]", (6, 10)), ("None", None)]
)
def test_a_size_from_the_command_line(said, size):
    values = {"recipe": "eval", "size": 4}
    run = {"stages": {"teacher": {"kind": "finetune", "views": values}}}
    parse.override(run, "stages.teacher.views.size", said, kind=config.Run)
    views = parse.parse(config.Views, run["stages"]["teacher"]["views"])
    assert views.size == size
    assert views.sides == {8: (8, 8)}.get(size, size)


@pytest.mark.parametrize(
    ("size", "line"),
    [
        (0, r"size: 0 is not in \[1, 2\^14\]"),
        ((8, 0), r"size\[1\]: 0 is not in \[1, 2\^14\]"),
        ((8, 8, 8), "size: expected 2 values, found 3"),
        ("8x8", "size: expected an integer or a list of integers"),
    ],
)
def test_a_size_that_is_none(size, line):
    with pytest.raises(BadInput, match=f"^views.{line}"):
        parse.parse(config.Views, {"recipe": "eval", "size": size}, "views")


def test_a_patch_is_square():
    with pytest.raises(BadInput, match=r"^encoder\.patch: expected an integer"):
        parse.parse(config.Encoder, {**VIT, "patch": [4, 2]}, "encoder")


def test_what_leaves_nothing_of_a_rectangle():
    """A square that is cut out may be as long as the longer side; a shift leaves the shorter one."""
    inputs = Inputs.of({"picture": Field((12, 20, 3), "uint8")})
    for cls, recipe in ((CropFlipViews, "crop_flip"), (SimCLRViews, "simclr")):
        fits = cls(recipe=recipe, cutout=20, shift=11)
        assert not [*fits.too_large(inputs)]
        assert [*cls(recipe=recipe, cutout=21, shift=12).too_large(inputs)] == [
            ("cutout", "21 pixels leave nothing of a view of 12 x 20", "give fewer"),
            ("shift", "12 pixels leave nothing of a view of 12 x 20", "give fewer"),
        ]
    assert not [*SimCLRViews(recipe="simclr", blur_kernel=39).misfits(inputs)]
    assert [*SimCLRViews(recipe="simclr", blur_kernel=41).misfits(inputs)]


@pytest.mark.parametrize(
    ("stages", "line"),
    [
        (
            {"pretrain": {**PRETRAIN, "method": {"name": "rotation"}, "views": COLOURLESS}},
            "pretrain.method.name: rotation turns views by quarters, and these are 12 x 20 pixels; give",
        ),
        (
            {
                "pretrain": {
                    **PRETRAIN,
                    "method": {"name": "mae"},
                    "projector": [],
                    "encoder": {**VIT, "patch": 5},
                    "views": COLOURLESS,
                }
            },
            "pretrain.encoder.patch: 5 does not divide the image of 12 x 20 pixels; take a divisor",
        ),
        (
            {"teacher": {**TEACHER, "encoder": {**VIT, "patch": 3}}},
            "teacher.encoder.patch: 3 does not divide the image of 12 x 20 pixels",
        ),
        (
            {"pretrain": {**PRETRAIN, "views": {"recipe": "simclr"}}},
            "pretrain.views.jitter: 0.8, and images of 2 channels have no colours to change, only 1",
        ),
        (
            {"teacher": {**TEACHER, "views": {"recipe": "simclr", "jitter": 0.0}}},
            "teacher.views.grayscale: 0.2, and images of 2 channels have no colours to change",
        ),
        (
            {"teacher": {**TEACHER, "views": {"recipe": "crop_flip", "shift": 12}}},
            "teacher.views.shift: 12 pixels leave nothing of a view of 12 x 20",
        ),
    ],
)
def test_what_asks_for_a_square_or_for_colours_is_refused_before_anything_runs(
    tmp_path, stages, line
):
    with pytest.raises(BadInput) as caught:
        _checked(_run(stages), tmp_path)
    assert str(caught.value).startswith(f"config.stages.{line}")
    assert "\n" not in str(caught.value)


def test_what_asks_for_a_square_takes_one_and_patches_a_rectangle(tmp_path):
    square = {**COLOURLESS, "size": 8}
    local = {"local_crops": 2, "local_views": {**COLOURLESS, "size": [6, 10]}}
    mae = {"method": {"name": "mae"}, "projector": [], "encoder": VIT, "views": COLOURLESS}
    _checked(
        _run(
            {
                "rotation": {**PRETRAIN, "method": {"name": "rotation"}, "views": square},
                "mae": {**PRETRAIN, **mae},
                "swav": {**PRETRAIN, "method": {"name": "swav", **local}, "views": COLOURLESS},
            }
        ),
        tmp_path,
    )


def test_self_training_sees_one_size_however_it_is_said():
    strong = {**COLOURLESS, "size": [8, 8]}
    own = {"weak": {"recipe": "crop_flip", "size": 8}, "strong": strong}
    views = {"recipe": "crop_flip", "size": 8}
    teacher = {**TEACHER, "views": views, "self_training": own, "ema": None}
    _run({"teacher": teacher})
    own["strong"] = {**strong, "size": [8, 10]}
    with pytest.raises(BadInput, match=r"self_training\.strong\.size: .*give the same size"):
        _run({"teacher": teacher})


@pytest.mark.thorough
def test_a_whole_line(tmp_path):
    """Self-supervision to files: views, cache, two sizes, mixing, shrinking and int8 of 12 x 20 x 2."""
    steps = {"steps": 60}
    file = {"kind": "export", "formats": ["stablehlo", "onnx"]}
    student = {"kind": "distill", "cache": "cache", "encoder": CNN, **TRAINING, **steps}
    run = _run(
        {
            "pretrain": {
                **PRETRAIN,
                "method": {
                    "name": "swav",
                    "local_crops": 2,
                    "local_views": {**COLOURLESS, "size": [6, 10]},
                },
                "views": {**COLOURLESS, "cutout": 4, "flip": 0.0, "turn": 5.0},
            },
            "painter": {
                **PRETRAIN,
                "method": {"name": "mae"},
                "projector": [],
                "encoder": VIT,
                "views": {"recipe": "crop_flip", "flip": 0.0},
            },
            "teacher": {
                **TEACHER,
                **steps,
                "encoder": None,
                "start_from": "pretrain",
                "views": {"recipe": "crop_flip", "shift": 1, "flip": 0.0},
            },
            "cache": {
                "kind": "cache",
                "teacher": "teacher",
                "recipe": {"recipe": "crop_flip", "shift": 1, "flip": 0.0, "cutout": 3},
                "views": 2,
                "mix": {"name": "cutmix"},
            },
            "student": student,
            "smaller": {**student, "size": [6, 10], "steps": 2},
            "small": {
                "kind": "shrink",
                "model": "student",
                "sparsity": 0.25,
                "tolerance": 1e-4,
                "examples": 0,
            },
            "int8": {
                "kind": "quantize",
                "model": "small",
                "float_edges": False,
                "agreement": 0.5,
                "calibration_examples": 48,
            },
            "file": {**file, "model": "small"},
            "int8_file": {**file, "model": "int8", "agreement": 0.9},
        }
    )
    splits, workdir = Splits(run.data), epath.Path(tmp_path)
    tasks = pipeline.plan(run, workdir, splits)
    pipeline.execute(run, tasks, splits)
    write_report(run, workdir, splits, command="kdjax")
    assert verify.main([str(tmp_path), "--teachers", "--samples=16"]) == 0
    artifacts = {task.name: Artifact.open(task.folder, task.stage) for task in tasks}
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    scores = {row["stage"]: row["scores"]["accuracy"]["value"] for row in rows}
    assert min(scores[name] for name in ("teacher", "student")) > 0.7, scores

    spec, read = encoder_of(artifacts["painter"], field="here")
    assert read()["params"]["position"].shape == (1, 3 * 5, 8)
    assert load(artifacts["smaller"], field="here")[0].inputs.images[0].size == (6, 10)
    for name, of in (("file", "small"), ("int8_file", "int8")):
        spec, variables = load(artifacts[of], field="here")
        alive = np.asarray(jax.jit(spec.predict)(variables, splits.test_inputs))
        (images,) = splits.test_inputs.values()
        onnx = load_onnx(artifacts[name].folder / f"{of}.onnx", threads=1)
        stablehlo = load_stablehlo(artifacts[name].folder / f"{of}.stablehlo")
        for found in (onnx(images[:7]), stablehlo(images[:7])):
            apart = np.abs(np.asarray(found) - alive[:7]).max()
            assert apart < (1e-4 if of == "small" else 0.2) * np.abs(alive).max()
        said = {entry["accepts"] for entry in artifacts[name].manifest["parity"]}
        assert said == {"image: uint8 [12, 20, 2]; any of 1 or more"}
