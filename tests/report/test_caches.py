from pathlib import Path

import pytest
from etils import epath

from kdjax import config, parse, pipeline
from kdjax.pipeline import Task
from kdjax.report import write
from tests.report.test_page import Page

VIEWS = {"recipe": "crop_flip"}
SGD = {"name": "sgd", "learning_rate": 0.1}


def task(name, seed, needs=(), **fields):
    stage = parse.parse(config.Stage, fields, name)
    return Task(name, seed, stage, "0", epath.Path(name), tuple(needs), {})


def cache(seed, **asked):
    made = task("cache", seed, kind="cache", teacher="t", recipe=VIEWS, views=4)
    said = {"views": 4, "examples": 1000}
    return made, said | ({"asked": asked} if asked else {})


def student(seed, of, name="student", **fields):
    more = {
        "kind": "distill",
        "cache": "cache",
        "encoder": {"name": "cnn", "widths": [8]},
        "optimizer": SGD,
    }
    return task(name, seed, [of], steps=100, batch=50, **more, **fields), {}


def test_what_a_cache_has_saved_is_its_students_reading_at_its_teachers_speed():
    """A teacher of 10 ms an example: 4,000 were asked, 5,000 read by each of three, one asks live."""
    first, said = cache(0, examples=200, seconds=2.0)  # what was left of it after a kill
    second, other = cache(1, examples=4000, seconds=80.0)
    done = [
        (first, said),
        student(0, first),
        student(0, first, "small"),
        student(0, first, "live", live=True),
        (second, other),
        student(1, second),
    ]
    assert pipeline.saved(done) == {
        "cache": {
            "asked": 8000,
            "asked_seconds": 4000 * 0.01 + 4000 * 0.02,
            "read": 15_000,
            "students": 3,
            "live_seconds": 10_000 * 0.01 + 5_000 * 0.02,
            "saved_hours": round((60.0 + 20.0) / 3600, 4),
        }
    }


def test_a_cache_that_nobody_reads_or_that_was_there_says_nothing():
    unread, said = cache(0, examples=4000, seconds=40.0)
    assert pipeline.saved([(unread, said)]) == {}
    there, said = cache(0)
    assert pipeline.saved([(there, said), student(0, there)]) == {}


@pytest.mark.parametrize("names", [["cache"], ["a", "b"]])
def test_the_page_has_a_row_for_each_and_one_of_all(names, tmp_path: Path):
    facts = {
        "asked": 8000,
        "asked_seconds": 120.0,
        "read": 15_000,
        "students": 3,
        "live_seconds": 9000.0,
        "saved_hours": -2.5,
    }
    caches = dict.fromkeys(names, facts)
    write(tmp_path, run={"name": "x", "caches": caches}, rows=[], curves={}, parity=[])
    page = Page((tmp_path / "report.html").read_text())
    cells = [cell.replace("\u202f", " ").replace("\u00a0", " ").strip() for cell in page.cells]
    cells = cells[cells.index("live it would take") :]
    row = ["8,000", "2 min 00 s", "15,000", "3", "2 h 30 min", "−2 h 30 min"]
    rows = [[name, *row] for name in names]
    if len(names) > 1:
        rows.append(["all", "16,000", "4 min 00 s", "30,000", "6", "5 h 00 min", "−5 h 00 min"])
    assert cells[2 : 2 + 7 * len(rows)] == [cell for line in rows for cell in line]
