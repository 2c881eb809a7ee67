"""Paths as users write them, through what reads and writes there."""

import os
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from kdjax import data, paths, teacher, train
from kdjax.types import BadInput

ODD = ["a[0]", "b*c?", r"back\slash", "blank and %41", "ünï 語 #x", "{x}:@=&;$(a)'\"", "-dash", "~"]
"""Names of folders in which a pattern, a URL or a shell would see something else."""


@pytest.mark.parametrize("name", ODD)
def test_trees_and_checkpoints_in_a_folder_of_any_name(tmp_path, name):
    """What is written is found again by another object, and stands in no other folder."""
    root = tmp_path / "root"
    folder = paths.parse(str(root / name), field="--workdir")
    folder.mkdir(parents=True)
    tree = {"params": {"x": jnp.arange(3.0)}}
    train.save_tree(folder / "variables", tree)
    train.save_tree(folder / "variables", tree)  # over what is there
    found = train.load_tree(folder / "variables", tree)
    np.testing.assert_array_equal(found["params"]["x"], [0.0, 1.0, 2.0])

    state = train.TrainState(jnp.int32(7), {"x": jnp.ones(2)}, {}, {})
    checkpoints = train.Checkpoints(folder / "checkpoints", keep=1)
    for step in (3, 7):
        checkpoints.save(step, state)
    checkpoints.close()
    blank = train.TrainState(jnp.int32(0), {"x": jnp.zeros(2)}, {}, {})
    again = train.Checkpoints(folder / "checkpoints").latest(blank)
    assert int(again.step) == 7
    np.testing.assert_array_equal(again.params["x"], [1.0, 1.0])
    assert os.listdir(root) == [name]
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["7"]


@pytest.mark.parametrize("name", ODD)
def test_a_cache_in_a_folder_of_any_name(tmp_path, name):
    root = tmp_path / "root"
    folder = root / name / "cache"
    folder.parent.mkdir(parents=True)
    ids = np.arange(5, dtype=np.uint32)

    def ask(rows, view):
        return {"teacher_logits": jnp.asarray(rows[:, None] + 10.0 * view)}

    teacher.write(
        folder,
        ids=ids,
        views=2,
        signal=teacher.Logits(classes=1, dtype="float32"),
        ask=ask,
        batch=2,
        binding={"of": "this"},
    )
    opened = teacher.TeacherCache.open(folder, expected={"of": "this"})
    said = opened.read(ids[[1, 4]], np.uint32([1, 0]))["teacher_logits"]
    np.testing.assert_array_equal(said, [[11.0], [4.0]])
    assert os.listdir(root) == [name]
    assert (folder / "manifest.json").exists()


@pytest.mark.skipif("KDJAX_DATA_DIR" not in os.environ, reason="no prepared data")
@pytest.mark.parametrize("name", ODD)
def test_prepared_data_in_a_folder_of_any_name(tmp_path, name, monkeypatch):
    prepared = os.environ["KDJAX_DATA_DIR"]
    (tmp_path / name).mkdir()
    (tmp_path / name / "cifar10").symlink_to(os.path.join(prepared, "cifar10"))
    there = data.prepared("cifar10", "test[:3]", data_dir=str(tmp_path / name))
    usual = data.prepared("cifar10", "test[:3]", data_dir=prepared)
    np.testing.assert_array_equal(there.inputs()["image"], usual.inputs()["image"])
    assert there.fingerprint == usual.fingerprint
    monkeypatch.setenv("HOME", str(tmp_path / name))
    assert data.prepared("cifar10", "test[:3]", data_dir="~").fingerprint == usual.fingerprint


def test_a_glob_means_its_pattern_alone(tmp_path):
    folder = paths.LocalPath(tmp_path / "a[0]*")
    folder.mkdir()
    for name in ("x.json", "y.json", "z.txt"):
        (folder / name).touch()
    (tmp_path / "a0").mkdir()
    (tmp_path / "a0" / "w.json").touch()
    assert sorted(p.name for p in folder.glob("*.json")) == ["x.json", "y.json"]
    assert all(
        isinstance(p, paths.LocalPath) for p in (*folder.glob("*"), folder / "a", folder.parent)
    )
    assert isinstance(epath.Path(folder), paths.LocalPath)


def test_a_home_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert os.fspath(paths.parse("~/runs/a", field="--workdir")) == str(tmp_path / "runs" / "a")
    assert os.fspath(paths.parse("a~b", field="--workdir")) == "a~b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--workdir: empty; give a local path or gs://"),
        ("a\0b", "--workdir: 'a.x00b' has a NUL in it"),
        (
            "s3://bucket/x",
            "--workdir: s3://bucket/x: s3:// is not supported; give a local path or gs",
        ),
        ("http://host/x", "http:// is not supported"),
        ("file:///x", "file:// is not supported"),
        ("~nobody_of_this_name/x", "there is no such user"),
        ("a/" + "x" * 256 + "/b", r"x{20}\.\.\. has 256 bytes; a file system takes 255"),
    ],
)
def test_what_is_no_path(text, message):
    with pytest.raises(BadInput, match=message) as caught:
        paths.parse(text, field="--workdir")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inside", ["", "stages", "a/b"])
def test_a_file_in_the_place_of_a_directory(tmp_path, inside):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"--workdir: .*/file is a file; name a directory"):
        paths.check_directory(paths.LocalPath(tmp_path / "file" / inside), field="--workdir")
    paths.check_directory(paths.LocalPath(tmp_path / "new" / "er"), field="--workdir")


@pytest.mark.skipif(sys.platform == "win32", reason="a backslash is a separator there")
def test_what_stands_in_for_a_backslash_is_the_same_folder(tmp_path):
    found = paths.absolute(tmp_path / r"a\b" / "c")
    assert "\\" not in os.fspath(found)
    found.mkdir()
    assert (tmp_path / r"a\b" / "c").is_dir()
    assert os.fspath(paths.absolute(tmp_path / "plain")) == str(tmp_path / "plain")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("x.json", r"x\.json is no name of safetensors; give .*x\.safetensors$"),
        ("x", r"x is no name of safetensors; give .*x\.safetensors$"),
        ("d.safetensors", r"d\.safetensors is a directory; name a file$"),
        ("no/x.safetensors", r"there is no directory .*no; make it, or name another$"),
        ("manifest.json", r"manifest\.json is no name of safetensors"),
    ],
)
def test_a_file_that_is_not_to_be_written(tmp_path, name, line):
    (tmp_path / "d.safetensors").mkdir()
    with pytest.raises(BadInput, match=rf"^OUT: .*{line}"):
        paths.to_write(str(tmp_path / name), suffix=".safetensors", field="OUT")
    found = paths.to_write(str(tmp_path / "x.safetensors"), suffix=".safetensors", field="OUT")
    assert found == tmp_path / "x.safetensors"
