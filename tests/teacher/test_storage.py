import hashlib
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from kdjax.teacher import Folder, Part
from kdjax.teacher.storage import chunk_examples, spell
from tests.teacher.bucket import serving
from tests.teacher.caches import everything_in, files_of, is_right, refused, written

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["local", "memory"])
def path(request, tmp_path):
    """Of a folder that nobody has used."""
    return str(tmp_path / "cache") if request.param == "local" else f"memory:/{tmp_path}"


# --- files ----------------------------------------------------------------------------------------


def test_a_file_is_read_as_it_was_written(path):
    files = Folder(path)
    assert (files.names(), files.read("a/b")) == ([], None)
    files.write("b", b"12")
    files.write("a/c", b"")
    files.write("a/b", bytes(range(256)))
    files.write("b", b"3")
    again = Folder(path + "/")
    assert again.names() == ["a/b", "a/c", "b"]
    assert [again.read(name) for name in again.names()] == [bytes(range(256)), b"", b"3"]
    again.delete("a/b", "never was")
    assert (files.names(), files.read("a/b")) == (["a/c", "b"], None)
    files.empty()
    assert again.names() == []


def test_two_folders_are_apart(path):
    first, second = Folder(f"{path}/1"), Folder(f"{path}/12")
    first.write("a", b"1")
    second.write("a", b"12")
    first.empty()
    assert (first.names(), second.read("a")) == ([], b"12")


@pytest.mark.parametrize("name", ["a b", "a%20b", "a#b", "a?b=1", "é", "a+b&c", "a:b"])
def test_a_path_may_have_any_letters(path, name):
    files = Folder(f"{path}/{name}")
    files.write("x", b"1")
    array = files.create("array", Part("float16", (2,)), leading=(1, 1), chunk=(1, 1))
    array.write(np.ones((1, 1, 2), np.float16)).result()
    assert Folder(path).names() == [
        f"{name}/{file}" for file in ("array/c/0/0/0", "array/zarr.json", "x")
    ]
    assert (files.open("array").read().result() == 1).all()
    assert str(files) == f"{path}/{name}"


def test_a_relative_path_is_one_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Folder("cache").write("x", b"1")
    assert (tmp_path / "cache" / "x").read_bytes() == b"1"
    assert str(Folder("cache")) == str(tmp_path / "cache")


def test_a_checksum_is_sha_256(path):
    files = Folder(path)
    contents = {f"{i}": os.urandom(i) for i in range(20)}
    for name, content in contents.items():
        files.write(name, content)
    wanted = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert files.checksums([*contents, "none"]) == {**wanted, "none": ""}


def test_leftovers_are_deleted_and_nothing_else(path):
    files = Folder(path)
    files.write("a/b", b"1")
    if not path.startswith("memory"):
        for name in ("a/b.__lock", "c.__lock"):
            Path(path, name).write_bytes(b"half")
    files.delete_leftovers()
    assert files_of(path) == {"a/b": b"1"}
    if not path.startswith("memory"):
        assert everything_in(path) == {"./": b"", "a/": b"", "a/b": b"1"}


def test_a_value_has_one_spelling():
    value = {"b": [1, 1.0, True, None, "é\n"], "a": {"d": {}, "c": 1e-30}}
    other = {"a": {"c": 1e-30, "d": {}}, "b": [1, 1.0, True, None, "é\n"]}
    assert spell(value) == spell(other) == spell(json.loads(spell(value)))
    assert len({spell(x) for x in (1, 1.0, True, "1", [1], None)}) == 6
    with pytest.raises(ValueError, match="not JSON compliant"):
        spell({"a": math.nan})


# --- arrays ---------------------------------------------------------------------------------------

SHAPE = 2, 7, 3


def stored(path):
    """Numbers, and their array: chunks of three examples, the last view all zeros."""
    values = np.arange(math.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    values[1] = 0
    array = Folder(path).create("x", Part("float32", SHAPE[2:]), leading=SHAPE[:2], chunk=(1, 3))
    array.write(values).result()
    return values


def test_an_array_is_read_as_it_was_written_in_its_chunks(path):
    values = stored(path)
    files = Folder(path)
    found = files.open("x").read().result()
    np.testing.assert_array_equal(found, values)
    assert found.dtype == values.dtype
    # Zeros are written like anything else: a chunk that is not there is never an answer.
    chunks = [f"x/c/{view}/{block}/0" for view, block in itertools.product(range(2), range(3))]
    assert files.names() == [*chunks, "x/zarr.json"]


@pytest.mark.parametrize("name", ["x/c/0/1/0", "x/c/1/2/0"])
def test_a_missing_chunk_is_an_error_and_not_zeros(path, name):
    values = stored(path)
    files = Folder(path)
    files.delete(name)
    view = int(name[4])
    with pytest.raises(ValueError, match="missing"):
        files.open("x")[view].read().result()
    np.testing.assert_array_equal(files.open("x")[1 - view].read().result(), values[1 - view])


def test_a_chunk_carries_a_check_of_its_own(path):
    """Any bit of it, and any number of bytes that are lost or more."""
    stored(path)
    files = Folder(path)
    name = "x/c/0/0/0"
    right = files.read(name)
    wrong = [bytes(b ^ (1 << (i + j) % 8) * (i == j) for j, b in enumerate(right))
             for i in range(len(right))]  # fmt: skip
    wrong += [right[:n] for n in range(len(right))] + [right + b"\0", right + right]
    for content in wrong:
        files.write(name, content)
        with pytest.raises(ValueError, match="x/c/0/0/0"):
            files.open("x")[0].read().result()
    files.write(name, right)
    files.open("x")[0].read().result()


def test_a_new_array_has_nothing_of_the_one_before(path):
    stored(path)
    files = Folder(path)
    files.create("x", Part("uint16", ()), leading=(1, 4), chunk=(1, 4))
    assert files.names() == ["x/zarr.json"]
    files.open("x").write(np.arange(4, dtype=np.uint16)[None]).result()
    assert files.open("x").read().result().tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(("part", "size"), [
    (Part("float16", (10,)), 20), (Part("uint32", ()), 4), (Part("float32", (2, 3)), 24),
    (Part("uint16", (4, 5, 6)), 240),
])  # fmt: skip
def test_bytes_of_a_part(part, size):
    assert part.bytes == size == np.zeros(part.shape, part.dtype).nbytes


@given(st.integers(1, 10**6), st.lists(st.integers(1, 5000), min_size=1), st.integers(1, 10**7))
def test_chunks_are_as_few_as_may_be_and_as_even(examples, sizes, chunk_bytes):
    parts = {str(i): Part("float16", (size,)) for i, size in enumerate(sizes)}
    chunk = chunk_examples(examples, parts, chunk_bytes=chunk_bytes)
    most = max(1, chunk_bytes // (2 * max(sizes)))
    blocks = math.ceil(examples / chunk)
    assert 1 <= chunk <= most
    assert blocks <= math.ceil(examples / most)
    assert chunk * blocks - examples < blocks  # less than one is lacking in each


def test_a_chunk_is_four_mebibytes_unless_it_is_said():
    parts = {"a": Part("float16", (1000,)), "b": Part("uint32", ())}
    assert chunk_examples(10**6, parts) == math.ceil(10**6 / math.ceil(10**6 / (4 * 2**20 // 2000)))


# --- a cache in memory and in a bucket ------------------------------------------------------------


def test_a_cache_in_memory_is_the_same_files(tmp_path):
    local, memory = written(tmp_path / "cache"), written(f"memory:/{tmp_path}")
    assert is_right(memory)
    assert files_of(memory) == files_of(local)
    files = Folder(memory)
    content = files.read("teacher_indices/c/1/0/0")
    files.write("teacher_indices/c/1/0/0", content[::-1])
    refused(memory, "teacher_indices/c/1/0/0 has SHA-256")
    files.delete("teacher_indices/c/1/0/0")
    refused(memory, "teacher_indices/c/1/0/0 is missing")
    written(memory)
    assert files_of(memory) == files_of(local)


def test_a_cache_in_a_bucket_is_the_same_files(tmp_path):
    local = written(tmp_path / "cache")
    with serving() as bucket:
        bucket.put("a b/other", b"not of the cache")
        run = subprocess.run(
            [sys.executable, "-m", "tests.teacher.in_bucket", "gs://bucket/a b/cache"],
            cwd=ROOT,
            env={
                **os.environ,
                "TENSORSTORE_GCS_HTTP_URL": bucket.url,
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            },
            capture_output=True,
            text=True,
            timeout=100,
        )
        found = {name: content for name, (_, content) in bucket.objects.items()}
        methods = {method for method, _ in bucket.requests}
    assert run.returncode == 0, run.stderr
    assert found.pop("a b/other") == b"not of the cache"
    assert {name.removeprefix("a b/cache/"): x for name, x in found.items()} == files_of(local)
    assert methods == {"GET", "POST", "DELETE"}

    said = json.loads(run.stdout)
    stopped, went_on = said["asked"]
    assert {"begun.json", "teacher_log_tail/c/0/2/0"} <= {*said["begun"]}
    assert "manifest.json" not in said["begun"]
    # It was stopped in the second view: the first one was not asked again.
    assert [view for _, view in stopped] == [0] * 5 + [1] * 2
    assert {view for _, view in went_on} == {1, 2}
    # Each file that is another one or not there at all is named.
    assert len(said["lines"]) == 2 * len(found) + 1
    for fault, line in said["lines"].items():
        assert fault.split()[0] in line
