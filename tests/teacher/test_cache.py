import copy
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kdjax.teacher import Part, TeacherCache
from kdjax.teacher.storage import spell
from kdjax.types import BadInput
from tests.teacher.caches import (
    BINDING,
    IDS,
    SIGNAL,
    VIEWS,
    Teacher,
    everything_in,
    is_right,
    refused,
    said,
    written,
)


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path / "cache")


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """For tests that only read, and for those that put the manifest back."""
    return written(tmp_path_factory.mktemp("untouched") / "cache")


@pytest.fixture
def cache(untouched):
    return TeacherCache.open(untouched, expected=BINDING)


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)
    return True


# --- reading --------------------------------------------------------------------------------------


def test_what_is_written_is_read_by_id_and_view(cache):
    assert (cache.views, cache.parts) == (VIEWS, SIGNAL.parts())
    assert cache.parts["teacher_indices"] == Part("uint16", (2,))
    assert cache.ids.tolist() == sorted(IDS.tolist())
    assert cache.ids.dtype == np.uint32
    assert cache.bytes == VIEWS * len(IDS) * (2 * 2 + 2 * 2 + 2 * 2)
    # In any order, an id as often as it is asked for, each with a view of its own.
    ids = np.array([9, 4_000_000_000, 0, 9, 7, 9], np.uint32)
    views = np.array([2, 0, 1, 0, 2, 2], np.uint32)
    assert same(cache.read(ids, views), said(ids, views))
    assert same(cache.read(ids[:0], views[:0]), said(ids[:0], views[:0]))


def test_a_slab_is_one_view_of_all_examples(cache):
    for view in range(VIEWS):
        assert same(cache.slab(view), said(cache.ids, np.full(len(IDS), view)))


def test_a_batch_may_be_of_two_views(cache):
    """The end of one pass over the data and the beginning of the next."""
    order = np.random.default_rng(0).permutation(np.tile(IDS, VIEWS))
    views = np.repeat(np.arange(VIEWS, dtype=np.uint32), len(IDS))
    for first in range(0, len(order), 4):
        batch = slice(first, first + 4)
        assert same(cache.read(order[batch], views[batch]), said(order[batch], views[batch]))


def test_all_views_are_given_in_the_order_of_the_dataset(cache):
    for ids in (IDS, np.sort(IDS), IDS[[4, 1, 1]]):
        found = cache.resident(ids)
        for view in range(VIEWS):
            here = {name: values[view] for name, values in found.items()}
            assert same(here, said(ids, np.full(len(ids), view)))
            assert {len(values) for values in found.values()} == {VIEWS}


def test_a_missing_id_is_named(cache):
    for missing in (1, 8, 4_000_000_001):  # below, between and above those that are there
        with pytest.raises(KeyError, match=f"1 ids are not in the teacher cache, {missing} first"):
            cache.rows(np.array([3, missing], np.uint32))
    with pytest.raises(KeyError, match="2 ids are not in the teacher cache, 1 first"):
        cache.read(np.array([1, 3, 2], np.uint32), np.zeros(3, np.uint32))
    with pytest.raises(KeyError, match="1 ids are not in the teacher cache, 5 first"):
        cache.resident(np.array([3, 5], np.uint32))


def test_a_view_that_is_not_there_is_an_error(cache):
    with pytest.raises(IndexError, match=r"view 3 is not in 0 \.\. 2"):
        cache.read(IDS[:1], np.array([VIEWS], np.uint32))
    assert same(cache.read(IDS[:1], np.array([0], np.uint32)), said(IDS[:1], np.zeros(1)))


def test_a_cache_of_one_view(tmp_path):
    binding = {**BINDING, "views": 1}
    cache = TeacherCache.open(written(tmp_path / "1", views=1, binding=binding), expected=binding)
    for _ in range(2):
        assert same(cache.read(IDS, np.zeros(10, np.uint32)), said(IDS, np.zeros(10)))


def test_a_folder_that_is_written_anew_is_read_anew(tmp_path):
    folder = tmp_path / "cache"
    assert is_right(written(folder))
    ids, binding = IDS[:4] + 1, {**BINDING, "seed": 2}
    written(folder, ids=ids, binding=binding, views=2)
    cache = TeacherCache.open(folder, expected=binding)
    assert (cache.views, cache.ids.tolist()) == (2, np.sort(ids).tolist())
    assert same(cache.read(ids, np.ones(4, np.uint32)), said(ids, np.ones(4)))


MANY = np.arange(500, dtype=np.uint32) * 3 % 251 + np.arange(500, dtype=np.uint32) * 251
"""Ids of which no two that are neighbours say the same."""


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A cache of eight views in eight chunks each."""
    return written(
        tmp_path_factory.mktemp("many") / "cache", ids=MANY, views=8, batch=64, chunk_bytes=4 * 64
    )


def test_several_threads_read_at_once(many):
    cache = TeacherCache.open(many, expected=BINDING)
    start = threading.Barrier(8)

    def read(seed):
        rng = np.random.default_rng(seed)
        start.wait(60)
        for i in range(40):
            # Each at a view of its own, over all of them, and the last rows in the next one.
            first = (seed + i) % 8
            ids = rng.choice(MANY, 32)
            views = np.where(np.arange(32) < 20, first, (first + 1) % 8).astype(np.uint32)
            assert same(cache.read(ids, views), said(ids, views))
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))


def test_few_views_are_in_memory(many):
    cache = TeacherCache.open(many, expected=BINDING)
    slabs = [cache.slab(view) for view in (0, 1)]

    def is_kept(view):
        """Whether it is the very array that was read at first."""
        name = "teacher_log_probs"
        return np.shares_memory(cache.slab(view)[name], slabs[view][name])

    # A batch may straddle two views; a step back costs nothing either.
    assert [is_kept(view) for view in (0, 1, 0, 1)] == [True] * 4
    slabs.append(cache.slab(2))
    assert is_kept(1)
    assert is_kept(2)
    slabs.append(cache.slab(3))
    assert not is_kept(1)
    assert not is_kept(0)
    assert same(cache.slab(0), slabs[0])


def test_the_next_view_is_read_ahead(many, tmp_path):
    folder = written(tmp_path / "cache")
    cache = TeacherCache.open(folder, expected=BINDING)
    cache.slab(0)
    for future in cache._slabs[1].values():
        future.result()
    for view in range(VIEWS):
        (folder / "teacher_indices" / "c" / str(view) / "0" / "0").unlink()
    assert same(cache.slab(1), said(cache.ids, np.ones(10)))
    with pytest.raises(BadInput, match="view 2 of teacher_indices cannot be read"):
        cache.slab(2)


# --- a manifest that says something else ----------------------------------------------------------


def leaves(value, path=()):
    """The path of each leaf of plain data, and of each list and mapping that is empty."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) \
        if isinstance(value, list) else ()  # fmt: skip
    found = [leaf for key, x in inner for leaf in leaves(x, (*path, key))]
    return found or [path]


def at(value, path):
    for key in path:
        value = value[key]
    return value


def put(value, path, leaf):
    """A copy in which the leaf is another one."""
    value = copy.deepcopy(value)
    at(value, path[:-1])[path[-1]] = leaf
    return value


def drop(value, path):
    value = copy.deepcopy(value)
    del at(value, path[:-1])[path[-1]]
    return value


def spoken(path):
    """As the line names it: `teachers[0].model.widths[1]`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)[1:]


def others(leaf):
    """What else a leaf may be: another value, one that is nearly the same, or of another type."""
    match leaf:
        case bool():
            near = [not leaf, int(leaf)]
        case int():
            near = [leaf + 1, -leaf - 1, float(leaf), leaf == 1]
        case float():
            near = [leaf + 2**-40, -leaf]
        case str():
            near = [leaf + " ", leaf.upper() + "!", leaf[:-1]]
        case _:
            near = [0, False, ""]
    return [*near, [leaf], {"a": leaf}, "else", *([] if leaf is None else [None])]


MANIFEST = {"format": 2, **json.loads(json.dumps(BINDING))}
EXPECTED = {name: value for name, value in MANIFEST.items() if name != "format"}
FIELDS = leaves(MANIFEST)


def test_the_manifest_is_what_it_is_bound_to_and_checksums(untouched):
    found = json.loads((untouched / "manifest.json").read_text())
    checksums = found.pop("checksums")
    assert found == MANIFEST
    files = {name for name in everything_in(untouched) if not name.endswith("/")}
    assert checksums.keys() == files - {"manifest.json"}
    names = {spoken(path) for path in FIELDS}
    assert len(names) == len(FIELDS) > 30
    assert {"format", "teachers[0].model.widths[1]", "weights", "mix.alpha", "signal.temperatures[0]",
            "signal.k", "dataset.ids", "dataset.samples", "recipe.gray"} <= names  # fmt: skip


@pytest.mark.parametrize("path", FIELDS, ids=spoken)
def test_any_field_that_differs_is_named(untouched, path):
    file = untouched / "manifest.json"
    right = file.read_bytes()
    manifest, leaf = json.loads(right), at(MANIFEST, path)
    try:
        for wrong in others(leaf):
            file.write_bytes(spell(put(manifest, path, wrong)))
            refused(untouched, f"{spoken(path)} is {wrong!r}, expected {leaf!r}")
        file.write_bytes(spell(drop(manifest, path)))
        if isinstance(path[-1], int):
            refused(
                untouched, f"{spoken(path[:-1])} is ", f", expected {at(MANIFEST, path[:-1])!r}"
            )
        else:
            refused(untouched, f"{spoken(path)} is absent, expected {leaf!r}")
    finally:
        file.write_bytes(right)
    assert is_right(untouched)


@pytest.mark.parametrize("path", FIELDS, ids=spoken)
def test_a_reader_that_expects_something_else_is_refused(untouched, path):
    if path == ("format",):
        path, leaf, binding = ("more",), None, {**BINDING, "more": None}
        refused(untouched, "more is absent, expected None", expected=binding)
        return
    leaf = at(MANIFEST, path)
    for wrong in others(leaf):
        expected = put(EXPECTED, path, wrong)
        refused(untouched, f"{spoken(path)} is {leaf!r}, expected {wrong!r}", expected=expected)
    expected = drop(EXPECTED, path)
    if isinstance(path[-1], int):
        refused(untouched, f"{spoken(path[:-1])} is ", expected=expected)
    else:
        refused(untouched, f"{spoken(path)} is {leaf!r}, expected absent", expected=expected)


@pytest.mark.parametrize("where", [(), ("dataset",), ("teachers", 0), ("recipe",)], ids=spoken)
@pytest.mark.parametrize("value", [None, 0, {}, "x"])
def test_a_field_that_nobody_wrote_is_named(folder, where, value):
    manifest = json.loads((folder / "manifest.json").read_text())
    at(manifest, where)["more"] = value
    (folder / "manifest.json").write_bytes(spell(manifest))
    refused(folder, f"{spoken((*where, 'more'))} is {value!r}, expected absent")


def test_any_checksum_that_differs_is_named(folder):
    file = folder / "manifest.json"
    right = file.read_bytes()
    manifest = json.loads(right)
    try:
        for name, checksum in manifest["checksums"].items():
            for wrong in (checksum[:-1] + "x", checksum.upper(), "", None, [checksum]):
                file.write_bytes(spell(put(manifest, ("checksums", name), wrong)))
                refused(folder, f"{name} has SHA-256 {checksum!r}, expected {wrong!r}")
            file.write_bytes(spell(drop(manifest, ("checksums", name))))
            refused(folder, f"{name} is there, expected no such file")
        for wrong in ("", "0" * 64, None):
            file.write_bytes(spell(put(manifest, ("checksums", "more"), wrong)))
            refused(folder, f"more is missing, expected one of SHA-256 {wrong!r}")
            file.write_bytes(spell(put(manifest, ("checksums", "manifest.json"), wrong)))
            refused(folder, "manifest.json has SHA-256")
        file.write_bytes(spell(drop(manifest, ("checksums",))))
        refused(folder, "ids/c/0 is there, expected no such file")
    finally:
        file.write_bytes(right)
    assert is_right(folder)


def test_a_binding_of_tuples_is_one_of_lists(untouched):
    tuples = {**BINDING, "recipe": {**BINDING["recipe"], "crop_scale": (0.6, 1.0)}}
    TeacherCache.open(untouched, expected=tuples)


@pytest.mark.parametrize("text", [
    b"", b"{", b"[1, 2]", b"null", b"3", b'"text"', b'{"checksums": 3}', b'{"checksums": [1]}',
    b"\xff\xfe\x00", b'{"a": 1}}',
])  # fmt: skip
def test_a_manifest_that_is_none_is_refused(folder, text):
    (folder / "manifest.json").write_bytes(text)
    refused(folder, "manifest.json cannot be read")


@pytest.mark.parametrize("name", ["cache", "elsewhere"])
def test_a_folder_without_a_manifest_is_refused(folder, name):
    (folder / "manifest.json").unlink()
    refused(folder.parent / name, "no manifest.json")


# --- accepted differences -------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0.11.0", None, ["0.10.2"]])
def test_one_field_may_differ_and_no_other(folder, value):
    manifest = json.loads((folder / "manifest.json").read_text())

    def says(**changed):
        (folder / "manifest.json").write_bytes(spell({**manifest, **changed}))

    says(jax=value)
    refused(folder, f"jax is {value!r}, expected '0.10.2'")
    refused(folder, f"jax is {value!r}", accept=("backend",))
    cache = TeacherCache.open(folder, expected=BINDING, accept=("jax",))
    assert same(cache.read(IDS, np.ones(10, np.uint32)), said(IDS, np.ones(10)))
    TeacherCache.open(folder, expected={**BINDING, "backend": "gpu"}, accept=("jax", "backend"))
    refused(folder, "seed is 0, expected 1", expected={**BINDING, "seed": 1}, accept=("jax",))
    for path in FIELDS:
        if path not in (("jax",), ("format",)):
            expected = put(EXPECTED, path, "else")
            refused(folder, f"{spoken(path)} is ", expected=expected, accept=("jax",))
    # One of the same name elsewhere is another field.
    inner = put(EXPECTED, ("recipe", "jax"), 1)
    refused(folder, "recipe.jax is absent", expected=inner, accept=("jax",))
    # Its file is as it was written, but for the field: no byte of a chunk may differ.
    chunk = folder / "teacher_indices" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    refused(folder, "teacher_indices/c/0/0/0 has SHA-256", accept=("jax",))


# --- files that are not what was written ----------------------------------------------------------


def some_places(size, rng):
    """The first, the last and a few others."""
    return sorted({0, size - 1, *rng.integers(0, size, 6).tolist()})


def test_any_byte_of_any_file_that_is_flipped_is_named(folder):
    rng = np.random.default_rng(0)
    whole = everything_in(folder)
    flips = 0
    for name, right in whole.items():
        if name.endswith("/"):
            continue
        file = folder / name
        every = range(0, len(right), 7) if name == "manifest.json" else some_places(len(right), rng)
        for place in every:
            wrong = bytearray(right)
            wrong[place] ^= int(rng.integers(1, 256))
            file.write_bytes(wrong)
            line = refused(folder)
            if name != "manifest.json":
                assert f"cache {folder}: {name} has SHA-256 '" in line
            flips += 1
        file.write_bytes(right)
    assert flips > 700
    assert is_right(folder)


def test_a_manifest_in_another_spelling_is_refused(folder):
    """Data that are the same; a byte that was flipped can do that, where it is a space."""
    file = folder / "manifest.json"
    right = file.read_bytes()
    manifest = json.loads(right)
    try:
        for wrong in (
            right.replace(b" ", b"\t", 1),
            right.replace(b"\n", b"\r", 1),
            right + b"\n",
            json.dumps(manifest).encode(),
            json.dumps(dict(reversed(manifest.items())), indent=1).encode(),
        ):
            assert json.loads(wrong) == manifest
            file.write_bytes(wrong)
            refused(folder, "manifest.json has SHA-256")
    finally:
        file.write_bytes(right)
    assert is_right(folder)


@pytest.mark.parametrize("fault", ["missing", "cut", "emptied", "longer"])
def test_any_file_that_is_missing_or_of_another_length_is_named(folder, fault):
    for name, right in everything_in(folder).items():
        if name.endswith("/"):
            continue
        file = folder / name
        match fault:
            case "missing":
                file.unlink()
            case "cut":
                file.write_bytes(right[:-1])
            case "emptied":
                file.write_bytes(b"")
            case "longer":
                file.write_bytes(right + b"\0")
        if name == "manifest.json":
            refused(folder, "manifest.json")
        elif fault == "missing":
            refused(folder, f"{name} is missing, expected one of SHA-256 '")
        else:
            refused(folder, f"{name} has SHA-256 '", "', expected '")
        file.write_bytes(right)
    assert is_right(folder)


def test_a_chunk_in_another_one_s_place_is_named(folder):
    whole = everything_in(folder)
    names = [name for name in whole if "/c/" in name and not name.endswith("/")]
    for first, second in zip(names, names[1:] + names[:1], strict=True):
        (folder / first).write_bytes(whole[second])
        (folder / second).write_bytes(whole[first])
        assert f"{min(first, second)} has SHA-256 '" in refused(folder)
        for name in (first, second):
            (folder / name).write_bytes(whole[name])
    assert is_right(folder)


@pytest.mark.parametrize("name", [
    "more", "a/b", "begun.json", "teacher_log_tail/c/0/3/0", "teacher_logits/zarr.json", "ids/c/1",
    "manifest.json.old",
])  # fmt: skip
@pytest.mark.parametrize("content", [b"", b"1"])
def test_a_file_that_nobody_wrote_is_named(folder, name, content):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    refused(folder, f"{name} is there, expected no such file")


def test_the_cache_of_another_run_is_refused(tmp_path):
    """Each was written as it should be; only what it is of differs."""
    other = {
        "teachers": [{**BINDING["teachers"][0], "variables": "another"}, BINDING["teachers"][1]],
        "recipe": {**BINDING["recipe"], "flip": 0.0},
        "dataset": {**BINDING["dataset"], "ids": "in another order"},
        "views": 2,
    }
    for field, value in other.items():
        folder = written(tmp_path / field, binding={**BINDING, field: value}, ask=Teacher())
        TeacherCache.open(folder, expected={**BINDING, field: value})
        refused(folder, {
            "teachers": "teachers[0].variables is 'another', expected '1f2e3d'",
            "recipe": "recipe.flip is 0.0, expected 0.5",
            "dataset": "dataset.ids is 'in another order', expected '0abc'",
            "views": "views is 2, expected 3",
        }[field])  # fmt: skip


# --- files that change under an open cache --------------------------------------------------------


@pytest.mark.parametrize("part", SIGNAL.parts())
@pytest.mark.parametrize("fault", ["flipped", "cut", "emptied", "missing"])
def test_a_chunk_that_is_damaged_later_is_refused_when_it_is_read(folder, part, fault):
    cache = TeacherCache.open(folder, expected=BINDING)
    name = f"{part}/c/1/2/0"
    right = (folder / name).read_bytes()
    match fault:
        case "flipped":
            (folder / name).write_bytes(right[:14] + bytes([right[14] ^ 4]) + right[15:])
        case "cut":
            (folder / name).write_bytes(right[:-3])
        case "emptied":
            (folder / name).write_bytes(b"")
        case "missing":
            (folder / name).unlink()

    def is_named(error, where):
        line = str(error.value)
        assert "\n" not in line
        for text in (f"{where} cannot be read", str(folder / name), "run the cache stage again"):
            assert text in line
        return True

    with pytest.raises(BadInput) as error:
        cache.read(IDS, np.ones(10, np.uint32))
    assert is_named(error, f"view 1 of {part}")
    with pytest.raises(BadInput) as error:
        cache.resident(IDS)
    assert is_named(error, part)
    # The other views are as they were.
    assert same(cache.read(IDS, np.zeros(10, np.uint32)), said(IDS, np.zeros(10)))
