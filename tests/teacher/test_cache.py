import json
import math
import re

import numpy as np
import pytest

from kdjax.teacher import TeacherCache, write
from kdjax.types import BadInput

CLASSES, VIEWS = 5, 3
IDS = np.array([7, 3, 4_000_000_000, 12, 0, 9], np.uint32)
BINDING = {
    "teacher": "1f2e3d",
    "model": {"encoder": {"name": "cnn", "widths": [4, 8]}, "size": 8},
    "recipe": {"recipe": "crop_flip", "crop_scale": [0.6, 1.0]},
    "recipes_version": 1,
    "dataset": "abc",
    "examples": len(IDS),
    "stream": "cache",
    "seed": 0,
    "views": VIEWS,
    "dtype": "float16",
    "jax": "0.10.2",
}


def logit(id, view, label):
    """Another number for each place; all of them are exact in float16."""
    return (int(id) % 251) + view * 0.25 - label * 8


def expected_logits(ids, views):
    return np.array(
        [[logit(i, v, c) for c in range(CLASSES)] for i, v in zip(ids, views, strict=True)]
    )


def written(folder, *, ids=IDS, batch=4, dtype="float16", asked=None, wrong=None):
    def logits_of(rows, view):
        if asked is not None:
            asked.append((rows.tolist(), view))
        found = expected_logits(ids[rows], [view] * len(rows)).astype(np.float32)
        if wrong is not None and wrong[1] == view:
            found[ids[rows] == wrong[0], 2] = wrong[2]
        return found

    write(
        folder,
        ids=ids,
        views=VIEWS,
        classes=CLASSES,
        dtype=dtype,
        logits_of=logits_of,
        batch=batch,
        binding=BINDING,
    )
    return folder


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path / "cache")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("batch", [1, 4, 6, 100])
def test_what_is_written_is_read_by_id_and_view(tmp_path, dtype, batch):
    cache = TeacherCache.open(
        written(tmp_path / "cache", dtype=dtype, batch=batch), expected=BINDING
    )
    assert (cache.views, cache.logits.dtype, cache.logits.shape) == (VIEWS, dtype, (3, 6, 5))
    assert cache.ids.tolist() == sorted(IDS.tolist())
    # In any order, an id as often as it is asked for, each with a view of its own.
    ids = np.array([9, 4_000_000_000, 0, 9, 7], np.uint32)
    views = np.array([2, 0, 1, 0, 2], np.uint32)
    np.testing.assert_array_equal(cache.read(ids, views), expected_logits(ids, views))
    for view in range(VIEWS):
        np.testing.assert_array_equal(
            cache.logits[view, cache.rows(IDS)], expected_logits(IDS, [view] * len(IDS))
        )


def test_numbers_that_float16_does_not_hold_are_rounded_to_it(tmp_path):
    def logits_of(rows, view):
        return np.full((len(rows), CLASSES), 1 / 3, np.float32)

    for dtype in ("float16", "float32"):
        write(
            tmp_path / dtype,
            ids=IDS,
            views=1,
            classes=CLASSES,
            dtype=dtype,
            logits_of=logits_of,
            batch=4,
            binding=BINDING,
        )
        found = TeacherCache.open(tmp_path / dtype, expected=BINDING).logits
        assert (found == np.array(1 / 3, np.float32).astype(dtype)).all()


def test_the_teacher_is_asked_once_for_each_view_of_each_example(tmp_path):
    asked = []
    written(tmp_path / "cache", asked=asked)
    for view in range(VIEWS):
        rows = [row for found, v in asked for row in found if v == view]
        assert sorted(rows) == list(range(len(IDS)))
    assert {len(rows) for rows, _ in asked} == {4, 2}


def test_a_missing_id_is_named(folder):
    cache = TeacherCache.open(folder, expected=BINDING)
    for missing in (1, 8, 4_000_000_001):  # below, between and above those that are there
        with pytest.raises(KeyError, match=f"1 ids are not in the teacher cache, {missing} first"):
            cache.rows(np.array([3, missing], np.uint32))
    with pytest.raises(KeyError, match="2 ids"):
        cache.read(np.array([1, 3, 2], np.uint32), np.zeros(3, np.uint32))


def test_an_example_and_view_takes_two_bytes_a_class(tmp_path):
    """Nothing is kept of a view, and nothing of the ids but four bytes an example."""
    for dtype, size in (("float16", 2), ("float32", 4)):
        folder = written(tmp_path / dtype, dtype=dtype)
        chunks = [
            p for p in (folder / "logits").rglob("*") if p.is_file() and p.name != "zarr.json"
        ]
        assert sum(p.stat().st_size for p in chunks) == VIEWS * len(IDS) * CLASSES * size
        chunks = [p for p in (folder / "ids").rglob("*") if p.is_file() and p.name != "zarr.json"]
        assert sum(p.stat().st_size for p in chunks) == len(IDS) * 4


def test_many_examples_are_in_chunks(tmp_path):
    ids = np.random.default_rng(0).permutation(9000).astype(np.uint32)
    folder = written(tmp_path / "cache", ids=ids, batch=1000)
    assert len([p for p in (folder / "logits" / "c").rglob("*") if p.is_file()]) == VIEWS * 3
    cache = TeacherCache.open(folder, expected=BINDING)
    views = np.arange(len(ids), dtype=np.uint32) % VIEWS
    np.testing.assert_array_equal(cache.read(ids, views), expected_logits(ids, views))


def refused(folder, *parts, expected=BINDING):
    """The line names the parts, and what to do."""
    with pytest.raises(BadInput) as error:
        TeacherCache.open(folder, expected=expected)
    line = str(error.value)
    assert "\n" not in line
    for part in (str(folder), f"delete {folder} and run the cache stage again", *parts):
        assert part in line
    return True


@pytest.mark.parametrize("field", ["format", *BINDING])
def test_any_field_that_differs_is_named(folder, field):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest) == {"format", "checksums", *BINDING}
    right = {"format": manifest["format"], **BINDING}[field]
    for wrong in ("else", None, [right]):
        (folder / "manifest.json").write_text(json.dumps({**manifest, field: wrong}))
        assert refused(folder, f"{field} is {wrong!r}, expected {right!r}")
    (folder / "manifest.json").write_text(
        json.dumps({k: v for k, v in manifest.items() if k != field})
    )
    assert refused(folder, f"{field} is None")


@pytest.mark.parametrize("field", BINDING)
def test_a_reader_that_expects_something_else_is_refused(folder, field):
    assert refused(folder, f"{field} is ", expected={**BINDING, field: "else"})
    fewer = {name: value for name, value in BINDING.items() if name != field}
    assert refused(folder, f"{field} is ", "expected None", expected=fewer)
    assert refused(folder, "more is None, expected 1", expected={**BINDING, "more": 1})


def test_a_binding_of_tuples_is_one_of_lists(folder):
    tuples = {**BINDING, "recipe": {"recipe": "crop_flip", "crop_scale": (0.6, 1.0)}}
    TeacherCache.open(folder, expected=tuples)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '{"checksums": 3}'])
def test_a_manifest_that_is_none_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    assert refused(folder, "manifest.json cannot be read")


def test_a_manifest_that_is_not_text_is_refused(folder):
    (folder / "manifest.json").write_bytes(b"\xff\xfe\x00")
    assert refused(folder, "manifest.json cannot be read")


def files(folder):
    """All but the manifest."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.parent != folder)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (flip, "not what was written"),
        (cut, "not what was written"),
        (empty, "not what was written"),
        (lambda path: path.unlink(), "missing"),
    ],
    ids=["flipped", "cut", "empty", "missing"],
)
def test_any_file_that_is_not_what_was_written_is_named(tmp_path, fault, said):
    names = [str(p.relative_to(tmp_path / "0")) for p in files(written(tmp_path / "0"))]
    assert {name.split("/")[0] for name in names} == {"ids", "logits"}
    assert len(names) == 2 + 1 + VIEWS  # two descriptions, the ids, a chunk of each view
    for i, name in enumerate(names, 1):
        folder = written(tmp_path / str(i))
        fault(folder / name)
        assert refused(folder, f"{name} is {said}")


def test_a_file_that_nobody_wrote_is_named(folder):
    (folder / "logits" / "c" / "more").write_bytes(b"1")
    assert refused(folder, "logits/c/more is not what was written")


def test_a_chunk_in_another_one_s_place_is_named(folder):
    first, second = (folder / "logits" / "c" / v / "0" / "0" for v in "01")
    first.write_bytes(second.read_bytes())
    assert refused(folder, "logits/c/0/0/0 is not what was written")


@pytest.mark.parametrize("folder_name", ["cache", "elsewhere"])
def test_a_folder_without_a_manifest_is_refused(folder, folder_name):
    (folder / "manifest.json").unlink()
    assert refused(folder.parent / folder_name, "no manifest.json")


@pytest.mark.parametrize("when", [0, 1, 2])
def test_a_cache_whose_writing_was_stopped_is_refused_and_can_be_written_again(tmp_path, when):
    folder = written(tmp_path / "cache")

    def logits_of(rows, view):
        if view == when:
            raise KeyboardInterrupt
        return expected_logits(IDS[rows], [view] * len(rows)).astype(np.float32)

    with pytest.raises(KeyboardInterrupt):
        write(
            folder,
            ids=IDS,
            views=VIEWS,
            classes=CLASSES,
            dtype="float16",
            logits_of=logits_of,
            batch=4,
            binding=BINDING,
        )
    assert refused(folder, "no manifest.json")
    (folder / "left_over").write_bytes(b"1")
    written(folder)
    assert not (folder / "left_over").exists()
    TeacherCache.open(folder, expected=BINDING)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 70_000.0])
def test_a_logit_that_is_not_finite_is_named(tmp_path, value):
    # 70,000 is finite, but more than float16 holds.
    with pytest.raises(ValueError, match=re.escape("id 12, view 1 are not finite in float16")):
        written(tmp_path / "cache", wrong=(12, 1, value))
    assert refused(tmp_path / "cache", "no manifest.json")


def test_a_large_logit_fits_in_float32(tmp_path):
    folder = written(tmp_path / "cache", dtype="float32", wrong=(12, 1, 70_000.0))
    cache = TeacherCache.open(folder, expected=BINDING)
    assert cache.read(np.array([12], np.uint32), np.array([1], np.uint32))[0, 2] == 70_000
