import itertools
import json
import math
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.teacher import Logits, TeacherCache, TopK, describe, write
from kdjax.types import BadInput
from tests.teacher import killed
from tests.teacher.caches import (
    BINDING,
    IDS,
    SIGNAL,
    VIEWS,
    Teacher,
    everything_in,
    files_of,
    is_right,
    refused,
    said,
    written,
)

ROOT = Path(__file__).parents[2]
ASCENDING = np.argsort(IDS).tolist()
BLOCKS = [ASCENDING[:4], ASCENDING[4:8], ASCENDING[8:]]
PLACES = [(view, block) for view in range(VIEWS) for block in range(len(BLOCKS))]
CHUNKS = [f"{part}/c/{view}/{block}/0" for part in SIGNAL.parts() for view, block in PLACES]


class Stops(Teacher):
    """Raises instead of the answer after `answers` of them."""

    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def __call__(self, rows, view):
        if len(self.asked) == self.answers:
            raise InterruptedError
        return super().__call__(rows, view)


def stopped(folder, answers, **changed):
    with pytest.raises(InterruptedError):
        written(folder, ask=Stops(answers), **changed)
    return folder


def places(asked):
    """`(view, block)` of what was asked, each block once; all rows of a block were asked for."""
    rows: dict[tuple[int, int], set[int]] = {}
    for found, view in asked:
        (block,) = [i for i, rows in enumerate(BLOCKS) if found[0] in rows]
        rows.setdefault((view, block), set()).update(found)
    assert all(found == {*BLOCKS[block]} for (_, block), found in rows.items())
    return sorted(rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an undisturbed writer leaves: every file and folder."""
    return everything_in(written(tmp_path_factory.mktemp("whole") / "cache"))


# --- what is asked, and what is written -----------------------------------------------------------


def test_rows_are_asked_in_the_order_of_those_that_are_alike(tmp_path, whole):
    """And kept in the order of their ids: the same bytes, also where a kill stopped it."""
    kind = np.random.default_rng(1).permutation(len(IDS)) // 3

    def alike(rows):
        return np.argsort(kind[rows], kind="stable")

    ask = Teacher()
    assert everything_in(written(tmp_path / "cache", ask=ask, alike=alike)) == whole
    for found, _ in ask.asked:
        assert kind[found].tolist() == sorted(kind[found])
    assert any(kind[block].tolist() != sorted(kind[block]) for block in BLOCKS)  # not so by itself
    stopped(tmp_path / "other", 4, alike=alike)
    assert everything_in(written(tmp_path / "other", alike=alike)) == whole


def test_the_numbers_of_these_tests_tell_every_place_from_every_other():
    ids, views = (x.ravel() for x in np.meshgrid(IDS, np.arange(VIEWS)))
    for name, values in said(ids, views).items():
        assert np.unique(values).size == values.size == len(IDS) * VIEWS * 2, name
        assert np.isfinite(values).all()


@pytest.mark.parametrize("batch", [1, 3, 4, 100])
def test_the_teacher_is_asked_once_for_each_view_of_each_example(tmp_path, batch):
    ask = Teacher()
    assert is_right(written(tmp_path / "cache", ask=ask, batch=batch))
    assert places(ask.asked) == PLACES
    assert {len(rows) for rows, _ in ask.asked} == {batch}  # one shape, one program
    # The order of the chunks, rows by id, and the last row again where a batch is not full.
    for view in range(VIEWS):
        rows = [rows for rows, v in ask.asked if v == view]
        wanted = [
            block[first : first + batch]
            for block in BLOCKS
            for first in range(0, len(block), batch)
        ]
        assert rows == [some + some[-1:] * (batch - len(some)) for some in wanted]
    assert [view for _, view in ask.asked] == sorted(view for _, view in ask.asked)


def test_the_files_are_those_of_the_chunks_and_no_more(whole):
    names = {name for name in whole if not name.endswith("/")}
    parts = ["ids", *SIGNAL.parts()]
    described = [f"{part}/zarr.json" for part in parts]
    assert names == {"manifest.json", "ids/c/0", *described, *CHUNKS}


def test_the_batch_and_the_order_of_the_examples_change_no_byte(tmp_path, whole):
    assert everything_in(written(tmp_path / "1", batch=7)) == whole
    turned = IDS[::-1].copy()
    assert everything_in(written(tmp_path / "2", ids=turned)) == whole


def test_numbers_that_float16_does_not_hold_are_rounded_to_it(tmp_path):
    def ask(rows, view):
        return {"teacher_logits": np.full((len(rows), 5), 1 / 3, np.float32)}

    for dtype in ("float16", "float32"):
        signal = Logits(classes=5, dtype=dtype)
        folder = written(tmp_path / dtype, signal=signal, ask=ask)
        found = TeacherCache.open(folder, expected=BINDING).read(IDS, np.zeros(10, np.uint32))
        assert found["teacher_logits"].dtype == dtype
        assert (found["teacher_logits"] == np.array(1 / 3, np.float32).astype(dtype)).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 70_000.0])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_value_that_is_not_finite_is_named(tmp_path, value, dtype):
    signal = Logits(classes=5, dtype=dtype)
    outputs = np.zeros((VIEWS, len(IDS), 5), np.float32)
    outputs[1, IDS.tolist().index(12), 2] = value
    arguments = {
        "signal": signal,
        "ask": lambda rows, view: signal.encode(jnp.asarray(outputs[view, rows])),
    }
    if value == 70_000.0 and dtype == "float32":  # finite, but more than float16 holds
        cache = TeacherCache.open(written(tmp_path / "cache", **arguments), expected=BINDING)
        found = cache.read(np.array([12], np.uint32), np.array([1], np.uint32))
        assert found["teacher_logits"][0].tolist() == [0, 0, value, 0, 0]
        return
    line = f"teacher_logits of id 12, view 1 are not finite in {dtype}"
    with pytest.raises(ValueError, match=re.escape(line)):
        written(tmp_path / "cache", **arguments)


@pytest.mark.parametrize("name", ["teacher_log_probs", "teacher_log_tail"])
def test_only_a_tail_may_be_nothing(tmp_path, name):
    def ask(value):
        def answer(rows, view):
            parts = said(IDS[rows], np.full(len(rows), view))
            parts[name][IDS[rows] == 12, 1] = value
            return parts

        return answer

    for value in (math.nan, math.inf, -math.inf)[: 2 if name == "teacher_log_tail" else 3]:
        with pytest.raises(ValueError, match=f"{name} of id 12, view 0 are not finite"):
            written(tmp_path / "cache", ask=ask(value))
    if name == "teacher_log_tail":
        written(tmp_path / "cache", ask=ask(-math.inf))
        cache = TeacherCache.open(tmp_path / "cache", expected=BINDING)
        found = cache.read(np.array([12], np.uint32), np.array([1], np.uint32))
        assert np.isneginf(found[name][0]).tolist() == [False, True]


# --- bytes ----------------------------------------------------------------------------------------


def test_a_whole_cache_is_no_more_than_its_numbers(tmp_path):
    """`4 k + 2` bytes an example and view, with the ids, the manifest and all that describes it."""
    examples, views, k, classes = 20_000, 4, 10, 1000
    signal = TopK(classes=classes, k=k)
    encode = jax.jit(signal.encode)
    # Any logits: no two rows are alike, and which classes are the best is random.
    rng = np.random.default_rng(0)
    pool = rng.normal(0, 3, 1_100_000).astype(np.float32)
    starts = rng.integers(0, 1_000_000, (views, examples))

    def ask(rows, view):
        return encode(jnp.asarray(pool[starts[view, rows][:, None] + np.arange(classes)]))

    ids = rng.choice(2**32, examples, replace=False).astype(np.uint32)
    binding = {**BINDING, "signal": describe(signal)}
    folder = tmp_path / "cache"
    write(folder, ids=ids, views=views, signal=signal, ask=ask, batch=5000, binding=binding)
    sizes = {name: len(x) for name, x in everything_in(folder).items() if not name.endswith("/")}
    assert sum(sizes.values()) <= (4 * k + 2) * examples * views
    # Nothing is kept of a view but its numbers: what is beside them does not grow with the views.
    chunks = {f"{part}/c/{view}/0/0" for part in signal.parts() for view in range(views)}
    assert sizes.keys() - chunks == {
        "manifest.json", "ids/c/0", *(f"{name}/zarr.json" for name in ["ids", *signal.parts()])
    }  # fmt: skip
    assert sizes["ids/c/0"] <= 4 * examples + 50
    cache = TeacherCache.open(folder, expected=binding)
    assert cache.bytes == (4 * k + 2) * examples * views
    rows = rng.permutation(examples)[:100]
    found = cache.read(ids[rows], np.full(100, 3, np.uint32))
    for name, values in ask(rows, 3).items():
        np.testing.assert_array_equal(found[name], values)


# --- a folder that is not empty -------------------------------------------------------------------


def test_a_finished_cache_is_left_as_it_is(tmp_path, whole):
    folder = written(tmp_path / "cache")
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    ask = Teacher()
    written(folder, ask=ask)
    # Another size of the chunks or of the batch is no reason to ask again.
    written(folder, ask=ask, chunk_bytes=10**6, batch=5)
    assert ask.asked == []
    assert everything_in(folder) == whole
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == stamps


def test_another_cache_and_anything_else_is_deleted(tmp_path, whole):
    folder = tmp_path / "cache"
    other = {**BINDING, "seed": 1}
    written(folder, binding=other, signal=Logits(classes=3), views=5,
            ask=lambda rows, view: {"teacher_logits": np.ones((len(rows), 3))})  # fmt: skip
    (folder / "more").write_bytes(b"1")
    (folder / "teacher_indices").mkdir()
    (folder / "teacher_indices" / "zarr.json").write_bytes(b"{")
    refused(folder, "seed is 1, expected 0")
    ask = Teacher()
    assert is_right(written(folder, ask=ask))
    assert everything_in(folder) == whole
    assert places(ask.asked) == PLACES


@pytest.mark.parametrize("fault", ["flipped", "missing", "stranger", "manifest"])
def test_a_finished_cache_with_a_fault_is_written_again(tmp_path, whole, fault):
    folder = written(tmp_path / "cache")
    match fault:
        case "flipped":
            flip(folder / CHUNKS[4])
        case "missing":
            (folder / CHUNKS[4]).unlink()
        case "stranger":
            (folder / "ids" / "more").write_bytes(b"1")
        case "manifest":
            (folder / "manifest.json").write_bytes(b"{}")
    refused(folder)
    ask = Teacher()
    written(folder, ask=ask)
    assert everything_in(folder) == whole
    assert places(ask.asked) == PLACES


# --- writing that was stopped ---------------------------------------------------------------------


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("answers", [0, 1, 2, 3, 7, 10, 14])
def test_writing_goes_on_where_it_was_stopped(tmp_path, whole, answers):
    folder = stopped(tmp_path / "cache", answers)
    line = refused_unfinished(folder)
    assert "goes on when the cache stage is run again" in line
    there = everything_in(folder)
    lacking = [
        (view, block) for view, block in PLACES
        if any(f"{part}/c/{view}/{block}/0" not in there for part in SIGNAL.parts())
    ]  # fmt: skip
    ask = Teacher()
    written(folder, ask=ask)
    assert everything_in(folder) == whole
    # Five answers are a view in three chunks, of two answers, two and one. The chunk that was being
    # written as the teacher stopped may not have been there.
    kept = answers // 5 * 3 + answers % 5 // 2
    asked = places(ask.asked)
    assert {*asked} <= {*lacking}
    assert len(PLACES) - kept <= len(asked) <= len(PLACES) - kept + 1


def refused_unfinished(folder):
    """The line about a cache that is being written: the mend is to go on."""
    with pytest.raises(ValueError, match=r"no manifest\.json") as error:
        TeacherCache.open(folder, expected=BINDING)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("fault", [flip, cut, empty, Path.unlink])
@pytest.mark.parametrize("part", SIGNAL.parts())
def test_a_chunk_that_is_not_whole_is_asked_again(tmp_path, whole, fault, part):
    folder = stopped(tmp_path / "cache", 14)
    for view, block in ((0, 2), (1, 0)):
        fault(folder / part / "c" / str(view) / str(block) / "0")
    ask = Teacher()
    written(folder, ask=ask)
    # These, the last one that was never answered, and what may have been in the air before it.
    assert [place for place in places(ask.asked) if place < (2, 1)] == [(0, 2), (1, 0)]
    assert everything_in(folder) == whole


@pytest.mark.parametrize("change", [
    {"binding": {**BINDING, "dataset": {**BINDING["dataset"], "ids": "another"}}},
    {"binding": {**BINDING, "jax": "0.10.3"}},
    {"binding": {**BINDING, "seed": False}},
    {"chunk_bytes": 8},
], ids=str)  # fmt: skip
def test_the_beginning_of_another_cache_is_not_gone_on_with(tmp_path, whole, change):
    folder = stopped(tmp_path / "cache", 14, **change)
    ask = Teacher()
    written(folder, ask=ask)
    assert places(ask.asked) == PLACES
    assert everything_in(folder) == whole


@pytest.mark.parametrize("name", [
    "begun.json", "ids/c/0", "ids/zarr.json", "teacher_log_tail/zarr.json",
])  # fmt: skip
@pytest.mark.parametrize("fault", [flip, cut, empty, Path.unlink])
def test_a_beginning_that_is_not_whole_is_not_gone_on_with(tmp_path, whole, name, fault):
    folder = stopped(tmp_path / "cache", 14)
    fault(folder / name)
    ask = Teacher()
    written(folder, ask=ask)
    assert places(ask.asked) == PLACES
    assert everything_in(folder) == whole


def test_what_was_left_over_is_gone_in_the_end(tmp_path, whole):
    folder = stopped(tmp_path / "cache", 7)
    for name in ("more", "teacher_indices/c/7/0/0", "ids/c/0.__lock", "a/b.__lock"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1")
    files = {name: x for name, x in everything_in(written(folder)).items() if name[-1] != "/"}
    assert files == {name: x for name, x in whole.items() if name[-1] != "/"}


@pytest.mark.parametrize("left", [
    ["begun.json"], ["begun.json", "begun.json.__lock"], ["begun.json.__lock"],
], ids=str)  # fmt: skip
def test_a_cache_that_was_stopped_at_its_last_move_is_finished(tmp_path, whole, left):
    folder = stopped(tmp_path / "cache", 14)
    begun = (folder / "begun.json").read_bytes()
    written(folder)
    for name in left:
        (folder / name).write_bytes(begun)
    if "begun.json" in left:
        refused(folder, "begun.json is there")
    ask = Teacher()
    written(folder, ask=ask)
    assert ask.asked == []
    assert everything_in(folder) == whole


# --- writers that are killed ----------------------------------------------------------------------


def run_killed(tasks):
    """See `tests.teacher.killed`: whether each writer was killed."""
    run = subprocess.run(
        [sys.executable, "-m", killed.__name__],
        input=json.dumps(tasks),
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def phase(folder):
    """How far the writer of a folder had come."""
    there = everything_in(folder)
    if "begun.json" not in there:
        return "finished" if "manifest.json" in there else "not begun"
    if "manifest.json" in there:
        return "finishing"
    chunks = len(there.keys() & {*CHUNKS})
    return "filled" if chunks == len(CHUNKS) else f"{chunks} chunks"


def test_killed_at_any_moment_and_gone_on_with_it_is_the_same_bytes(tmp_path, whole):
    rng = np.random.default_rng(0)
    seconds = [[f"{tmp_path}/s{i}", "seconds", s] for i, s in enumerate(rng.uniform(0, 1, 20))]
    # Most of the time goes by in answers; of the lines, most are run before and after them.
    lines = [[f"{tmp_path}/l{i}", "lines", s] for i, s in enumerate(rng.uniform(0, 1, 16))]
    lines += [[f"{tmp_path}/e{i}", "last", i] for i in range(1, 9)]
    # One cache that is killed again and again; another that was begun by somebody else.
    again = [[f"{tmp_path}/again", "seconds", s] for s in rng.uniform(0.1, 0.4, 10)]
    written(tmp_path / "other", binding={**BINDING, "seed": 1})
    other = [[f"{tmp_path}/other", "lines", s] for s in (0.02, 0.05, 0.1, 0.15, 0.5)]
    tasks = [*seconds, *lines, *again, *other, [f"{tmp_path}/not", "never", 0]]
    found = run_killed(tasks)

    assert found[-1] is False
    assert everything_in(tmp_path / "not") == whole
    assert sum(found[:20]) >= 8  # some come late where the machine was busy as it was timed
    assert all(found[20:44])
    folders = sorted({folder for folder, _, _ in tasks[:-1]})
    phases = {folder: phase(folder) for folder in folders}
    # They came at all stages of the work.
    by_lines = {phases[folder] for folder, _, _ in lines}
    assert {"not begun", "0 chunks", "filled", "finishing", "finished"} <= by_lines, phases
    assert len({p for p in phases.values() if p.endswith("chunks")}) >= 6, phases
    for folder in folders:
        ask = Teacher()
        written(folder, ask=ask)
        assert everything_in(folder) == whole, (folder, phases[folder])
        if phases[folder] in ("filled", "finishing", "finished"):
            assert ask.asked == []


# --- several processes ----------------------------------------------------------------------------


def written_by(folder, asks):
    """By as many processes as there are teachers: here threads. Gives the error of each, or `None`."""
    barrier = threading.Barrier(len(asks))

    def work(process):
        try:
            written(
                folder,
                ask=asks[process],
                process=process,
                processes=len(asks),
                barrier=lambda name: barrier.wait(60),
            )
        except InterruptedError:
            barrier.abort()
            raise

    with ThreadPoolExecutor(len(asks)) as pool:
        futures = [pool.submit(work, process) for process in range(len(asks))]
    return [future.exception() for future in futures]


@pytest.mark.parametrize("processes", [2, 3, 12])
def test_several_processes_write_what_one_does(tmp_path, whole, processes):
    asks = [Teacher() for _ in range(processes)]
    assert written_by(tmp_path / "cache", asks) == [None] * processes
    assert everything_in(tmp_path / "cache") == whole
    asked = [places(ask.asked) for ask in asks]
    # Each chunk by exactly one of them, as evenly as may be.
    assert sorted(itertools.chain(*asked)) == PLACES
    assert max(map(len, asked)) - min(map(len, asked)) <= 1
    # Again: nobody asks.
    asks = [Teacher() for _ in range(processes)]
    assert written_by(tmp_path / "cache", asks) == [None] * processes
    assert not any(ask.asked for ask in asks)


def test_another_number_of_processes_goes_on(tmp_path, whole):
    folder = tmp_path / "cache"
    # The second of two is stopped in its second chunk, and so neither finishes.
    first, second = written_by(folder, [Teacher(), Stops(3)])
    assert isinstance(second, InterruptedError)
    assert isinstance(first, threading.BrokenBarrierError)
    there = files_of(folder)
    assert "manifest.json" not in there
    asks = [Teacher() for _ in range(3)]
    assert written_by(folder, asks) == [None] * 3
    assert everything_in(folder) == whole
    asked = {*itertools.chain(*(places(ask.asked) for ask in asks))}
    assert 0 < len(asked) < len(PLACES)
    for view, block in asked:
        assert not all(f"{part}/c/{view}/{block}/0" in there for part in SIGNAL.parts())


def test_what_is_there_when_the_processes_wait_for_each_other(tmp_path):
    folder = tmp_path / "cache"
    seen = {}

    def wait(name):
        assert name not in seen
        seen[name] = {file for file in files_of(folder) if "/c/" not in file}
        seen[name] |= {"chunks"} if {*CHUNKS} <= files_of(folder).keys() else set()

    written(folder, barrier=wait)
    described = {f"{part}/zarr.json" for part in ["ids", *SIGNAL.parts()]}
    assert list(seen.values()) == [
        {"begun.json", *described},
        {"begun.json", "chunks", *described},
        {"manifest.json", "chunks", *described},
    ]


@pytest.mark.parametrize(("process", "missing"), [(0, "/c/"), (1, "begun.json")])
def test_processes_that_do_not_share_a_folder_are_told(tmp_path, process, missing):
    """Each writes to a disk of its own, where it never sees the files of the other."""
    folder = tmp_path / "cache"
    with pytest.raises(BadInput, match=r"all processes must share one --workdir") as error:
        written(folder, process=process, processes=2)
    assert missing in str(error.value)
    assert "manifest.json" not in files_of(folder)
