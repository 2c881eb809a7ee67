"""Whole or absent, and what a fault means."""

import contextlib
import errno
import hashlib
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import tensorstore as ts
from etils import epath

from kdjax import files
from kdjax.types import StorageFailed


def test_what_is_written_is_there_whole_and_alone(tmp_path):
    path = tmp_path / "name"
    files.write(path, b"one")
    files.write(path, b"two")
    assert path.read_bytes() == b"two"
    longest = tmp_path / ("n" * 255)  # what stands beside it is no longer than that
    files.write(longest, b"x")
    assert sorted(tmp_path.iterdir()) == sorted([path, longest])


@contextlib.contextmanager
def no_file_larger_than(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_written_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "name"
    files.write(path, b"before")
    with no_file_larger_than(1000), pytest.raises(StorageFailed) as failed:
        files.write(path, bytes(2000))
    assert str(failed.value) == (
        f"{path}: the file would be larger than is allowed; raise the limit, then run the same command "
        "again: what is done stays done"
    )
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.mkdir(), "{p}: a directory is where a file must be; move it away"),
        (lambda p: p.parent.rmdir(), "{p}: it is not there, or was taken away"),
        (
            lambda p: (p.parent.rmdir(), p.parent.write_text("")),
            "{p.parent}: a file is where a directory must be; move it away",
        ),
        (
            lambda p: (p.parent.rmdir(), p.parent.symlink_to(p.parent.name)),
            "{p}: symbolic links lead in a circle",
        ),
    ],
    ids=["directory", "gone", "below_a_file", "loop"],
)
def test_each_fault_names_its_place(make, words, tmp_path):
    path = tmp_path / "folder" / "name"
    path.parent.mkdir()
    make(path)
    with pytest.raises(StorageFailed) as failed:
        files.write(path, b"x")
    assert str(failed.value).startswith(words.format(p=path)), failed.value
    assert not list(tmp_path.rglob(f"*{files.PART}"))


def test_too_long_a_name(tmp_path):
    with pytest.raises(StorageFailed, match="the name is too long; name a shorter --workdir"):
        files.write(tmp_path / ("n" * 256), b"x")


NOBODY = """
import os, sys
from kdjax import files
from kdjax.types import StorageFailed
if os.getuid() == 0:
    os.setuid(65534)
try:
    files.write(sys.argv[1], b"x")
except StorageFailed as error:
    print(error)
"""


def test_what_may_not_be_written(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, folder / "name"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{folder / 'name'}: permission denied; give this user the right")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk():
    with (
        pytest.raises(StorageFailed, match=r"^/here: no space is left there; make room, then run"),
        files.storing("/here"),
    ):
        Path("/dev/full").write_bytes(b"x")


def test_what_a_library_says_in_words_is_understood(tmp_path):
    """Tensorstore raises ValueError, with the number of the operating system in its text."""
    (tmp_path / "file").write_text("")
    store = ts.KvStore.open(f"file://{tmp_path}/").result()
    with pytest.raises(StorageFailed) as failed, files.storing(tmp_path):
        store.write("file/below", b"x").result()
    assert str(failed.value).startswith(f"{tmp_path / 'file'}: a file is where a directory must be")


def test_other_errors_pass(tmp_path):
    for error in (
        ValueError("x must be 3"),
        KeyError("x"),
        RuntimeError("RESOURCE_EXHAUSTED: memory"),
    ):
        with pytest.raises(type(error)), files.storing(tmp_path):
            raise error
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = OSError(errno.EROFS, "Read-only file system", "/disk/file")
    with (
        pytest.raises(StorageFailed, match=r"^/disk/file: it can be read only"),
        files.storing("/d"),
    ):
        raise wrapped
    unrelated = ValueError(
        "a fault of ours"
    )  # raised while another was handled: no fault of a disk
    unrelated.__context__ = FileNotFoundError(errno.ENOENT, "no such file", "/x")
    with pytest.raises(ValueError, match="a fault of ours"), files.storing(tmp_path):
        raise unrelated


def test_names_and_sizes(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"abc")
    (tmp_path / "d").write_bytes(b"")
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    assert files.names(epath.Path(tmp_path)) == ["a/b/c", "a/round", "d"]
    assert files.size(tmp_path / "a" / "b" / "c") == 3
    assert files.size(tmp_path / "none") is None
    assert files.size(tmp_path / "d" / "none") is None
    with pytest.raises(IsADirectoryError):
        files.size(tmp_path / "a")
    big = bytes(range(256)) * 9000  # of more blocks than one
    (tmp_path / "big").write_bytes(big)
    assert files.sha256(tmp_path / "big") == hashlib.sha256(big).hexdigest()


@pytest.mark.parametrize("text", ["[" * 100_000, b'{"a":' * 100_000, "{", "", b"\xff\xfe\x00"])
def test_json_that_cannot_be_read_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"\S"):
        files.from_json(text)


def test_json_is_read_by_the_function_that_refuses_what_python_cannot_follow():
    direct = re.compile(r"json\.loads?\((?!json\.dumps)")
    package = Path(files.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if direct.search(path.read_text("utf-8"))
    }
    # The second is a program of its own, which reads what kdjax has just written.
    assert found == {"files.py", "export/onnx_memory.py"}
