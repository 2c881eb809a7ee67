"""A format of the user's: written, held against the live model, written again, refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kdjax import config, parse, pipeline
from kdjax.artifacts import Artifact, proof
from kdjax.commands.verify import verify
from kdjax.measuring.parity import StageFailed
from kdjax.types import BadInput
from tests import own_formats
from tests.compiled import HARDLY_OPTIMIZED

pytestmark = pytest.mark.timed

ROOT = Path(__file__).parents[2]
LINEAR = {
    "kind": "finetune",
    "encoder": {"function": "tests.own_formats:Linear", "width": 12},
    "views": {"recipe": "eval"},
    "steps": 3,
    "batch": 16,
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
}
NPZ = {"function": "tests.own_formats:Npz"}
FILES = {"kind": "export", "model": "linear", "formats": ["stablehlo", NPZ]}
DATA = {
    "data": {
        "name": "digits",
        "train_split": "train[:20%]",
        "test_split": "test[:20%]",
        "mean": [0.4],
        "std": [0.3],
    },
    "stages": {},
    "latency_bulk_batch": 2,
}


def _plan(line, files=FILES, only=("files",)):
    return line.plan(only=list(only), **DATA, stages__linear=LINEAR, stages__files=files)


@pytest.fixture(scope="module")
def done(line):
    run, tasks, splits = _plan(line)
    pipeline.execute(run, tasks, splits)
    return Artifact.open(tasks[-1].folder, tasks[-1].stage)


def test_its_file_is_held_against_the_live_model_and_has_a_row(done, line):
    stablehlo, npz = done.manifest["rows"]
    assert (npz["stage"], npz["runtime"]) == ("linear.npz", "npz:cpu")
    assert npz["scores"] == stablehlo["scores"]
    assert npz["bytes_on_disk"] == len((done.folder / "linear.npz").read_bytes())
    assert npz["latency_ms_p50"] > 0
    assert npz["peak_memory_bytes"] is None
    parity = done.manifest["parity"][1]
    assert parity["max_difference"] <= parity["tolerance"]
    assert parity["accepts"] == "image: uint8 [8, 8, 1]; any of 1 or more"
    assert parity["format"] == "Npz (.npz)"
    splits = _plan(line)[2]
    images = splits.test_inputs["image"]
    found = own_formats.Npz().load(done.folder / "linear.npz", threads=1)(images)
    right = (found.argmax(-1) == splits.test.labels).mean()
    assert npz["scores"]["accuracy"]["value"] == pytest.approx(right, abs=1e-6)


def test_reexport_and_verify_know_it_without_the_users_files(done, line, tmp_path):
    (verdict,) = verify(line.workdir, only=done.folder.name)
    assert verdict.state == "whole"
    other = line.copy("again", without="student").workdir
    made_of = {done.manifest["fingerprint"], *done.manifest["upstream"].values()}
    for folder in (other / "stages").iterdir():  # the exports of other tests may need the student
        if (found := proof.read(folder)) is not None and found["fingerprint"] not in made_of:
            shutil.rmtree(folder)
    folder = other / "stages" / done.folder.name
    before = (folder / "linear.npz").read_bytes()
    program = f"""
import sys
from kdjax.commands.reexport import reexport
status = reexport({str(other)!r})
assert "tests" not in sys.modules
raise SystemExit(status)
"""
    package = tmp_path / "kdjax"
    package.symlink_to(ROOT / "kdjax")
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path), **HARDLY_OPTIMIZED},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "linear.npz: written again" in found.stdout
    again = {**np.load(folder / "linear.npz")}
    (tmp_path / "old.npz").write_bytes(before)
    for name, array in np.load(tmp_path / "old.npz").items():
        np.testing.assert_array_equal(array, again[name])


def test_its_source_and_its_arguments_are_in_the_fingerprint(done, line, monkeypatch, tmp_path):
    def mark(**changes):
        files = {**FILES, "formats": [{**NPZ, **changes}]}
        return _plan(line, files)[1][-1].fingerprint

    assert mark(packed=True) != mark()
    monkeypatch.syspath_prepend(str(tmp_path))
    text = Path(own_formats.__file__).read_text()

    def written(text):
        (tmp_path / "my_formats.py").write_text(text)
        return mark(function="my_formats:Npz")

    before = written(text)
    assert written(text.replace('"""Two products."""', '"""Products."""')) == before
    assert written(text.replace("return x @ own", "return 0 + x @ own")) != before
    assert written(text.replace("ALLOWED = 0.0", "ALLOWED = 0.1")) != before


def test_a_file_that_is_otherwise_fails_the_stage(done, line):
    files = {**FILES, "formats": [{"function": "tests.own_formats:Wrong"}]}
    run, tasks, splits = _plan(line, files)
    with pytest.raises(
        StageFailed, match=r"linear.wrong: an output differs by 1 from the live model"
    ):
        pipeline.execute(run, tasks, splits)


def bare():
    return object()


class Needy(own_formats.Npz):
    needs = ("numpy", "no_such_package")


class NoSuffix(own_formats.Npz):
    suffix = "npz"


class Unwritten(own_formats.Npz):
    def write(self, model, path):
        pass


class Fails(own_formats.Npz):
    def write(self, model, path):
        raise KeyError("Dense_1")


def raises():
    raise ValueError("no")


HERE = f"{__name__}:"


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("onxx", r"formats\[1\]: 'onxx' is not one of .*; did you mean onnx\?$"),
        (3, r"formats\[1\]: expected one of litert, onnx, stablehlo, or fields, with 'name' among"),
        ({**NPZ, "pack": True}, r"formats\[1\].pack: unknown field; did you mean packed\?$"),
        ({**NPZ, "packed": 1}, r"formats\[1\].packed: expected True or False, found 1 \(int\)$"),
        ({"function": "tests.own_formats:Nps"}, r"formats\[1\].function: .*Nps"),
        ({"function": HERE + "bare"}, r"formats\[1\].function: .*bare gave object, and no kdjax.e"),
        ({"function": HERE + "raises"}, r"formats\[1\].function: .*:\d+: ValueError: no$"),
        ({"function": HERE + "NoSuffix"}, r"formats\[1\].function: .* its suffix is 'npz'; give "),
        ({"function": HERE + "Needy"}, r"formats\[1\]: Needy needs no_such_package, which is not"),
        ({"name": "stablehlo"}, r"formats: stablehlo stands twice in it"),
    ],
)
def test_what_can_be_known_is_said_before_anything_runs(format, message, line):
    with pytest.raises(BadInput, match=rf"^config.stages.files.{message}") as caught:
        _checked(line, [{"name": "stablehlo"}, format])
    assert "\n" not in str(caught.value)


def _checked(line, formats):
    run, tasks, splits = _plan(line, {**FILES, "formats": formats})
    pipeline.check(run, tasks, splits)


def test_two_formats_of_one_suffix_are_refused(line):
    line_said = (
        r"formats\[1\]: its files end in .npz, as those of config.stages.files.formats\[0\] do"
    )
    with pytest.raises(BadInput, match=line_said):
        _checked(line, [NPZ, {**NPZ, "packed": True}])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Unwritten", r"formats\[0\]: there is no file linear.npz after write\(model, path\)$"),
        ("Fails", r"formats\[0\].function: .*test_own_format.py:\d+: KeyError: 'Dense_1'$"),
    ],
)
def test_what_fails_as_it_is_written_is_one_line(done, line, name, message):
    run, tasks, splits = _plan(line, {**FILES, "formats": [{"function": HERE + name}]})
    with pytest.raises(BadInput, match=rf"^config.stages.files.{message}"):
        pipeline.execute(run, tasks, splits)


def test_a_text_and_a_name_are_one():
    stage = {"kind": "export", "model": "linear"}
    text, named = (
        parse.parse(config.Stage, {**stage, "formats": [value]})
        for value in ("onnx", {"name": "onnx"})
    )
    assert text == named
    assert parse.parse(config.Stage, parse.plain(text)) == text
