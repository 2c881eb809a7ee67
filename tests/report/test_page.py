import dataclasses
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from kdjax import parse, report
from kdjax.report import table, units, write

HOSTILE = "<script>alert('x')</script>\"&\u202e"
RUN = {
    "name": "digits",
    "config": "steps = 10\nname = '<digits>'",
    "command": "kdjax --config=a.py",
    "versions": {"kdjax": "0.1.0", "jax": "0.10.2", "python": "3.11.9"},
    "device": "2 x cpu",
    "seeds": [0, 2024],
    "dataset": {"name": "digits", "train": 1437, "test": 360},
    "wall_seconds": {"teacher": 61.0, "student": 12.5},
}
CURVES = {
    "teacher": [{"step": i, "loss": 1.0 / (i + 1), "norm/grad": 2.0} for i in range(9)],
    "cached": [],
}
PARITY = [
    {
        "artifact": "files/model.onnx",
        "runtime": "onnxruntime",
        "max_difference": 2e-6,
        "agreement": 1.0,
        "tolerance": 1e-4,
        "examples": 360,
    },
    {"artifact": "files/model.tflite", "runtime": "litert", "max_difference": None},
]
VOID = {"meta", "br", "wbr", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """A strict reader: every element closed in order; keeps elements, text and cells."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text, self.cells = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


def written(directory, **changes):
    data = {"run": RUN, "rows": [], "curves": CURVES, "parity": PARITY, **changes}
    write(directory, **data)
    return (directory / "report.html").read_text(encoding="utf-8")


def test_json_round_trip(tmp_path, line):
    written(tmp_path, rows=line)
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert list(data) == ["version", "run", "rows", "parity"]
    assert data["run"] == RUN
    assert data["parity"] == PARITY
    for found, row in zip(data["rows"], line, strict=True):
        assert list(found) == [field.name for field in dataclasses.fields(row)]
        assert parse.parse(type(row), found) == row


def test_writing_again_replaces_both_and_leaves_nothing_else(tmp_path, line):
    first = written(tmp_path / "new" / "dir", rows=line)
    assert written(tmp_path / "new" / "dir", rows=line) == first
    assert written(tmp_path / "new" / "dir", rows=line[:1]) != first
    assert sorted(p.name for p in (tmp_path / "new" / "dir").iterdir()) == [
        "report.html",
        "report.json",
    ]


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32("nan")])
def test_nan_is_refused_by_place_and_nothing_is_lost(tmp_path, line, bad):
    before = written(tmp_path, rows=line)
    with pytest.raises(ValueError, match=r"parity\[1\]\.worst"):
        written(tmp_path, rows=line, parity=[PARITY[0], {"worst": bad}])
    with pytest.raises(ValueError, match=r"run\.wall_seconds\.teacher"):
        written(tmp_path, run={**RUN, "wall_seconds": {"teacher": bad}})
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_not_plain_data_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"run\.device is a object"):
        written(tmp_path, run={"device": object()})


def test_numpy_scalars_are_plain_enough(tmp_path):
    written(tmp_path, run={"n": np.int64(3), "x": np.float32(0.5), "b": np.bool_(True)})
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert data["run"] == {"n": 3, "x": 0.5, "b": True}


def test_the_page_is_well_formed_and_reaches_for_nothing(tmp_path, line):
    text = written(tmp_path, rows=line)
    page = Page(text)
    assert page.elements[0][0] == "html"
    tags = {tag for tag, _ in page.elements}
    assert {"table", "svg", "details", "figure"} <= tags
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "action", "data", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_hostile_names_are_only_text(tmp_path, make_row):
    rows = [
        make_row(
            HOSTILE,
            model=HOSTILE,
            runtime=HOSTILE,
            notes=HOSTILE,
            accuracy=0.9,
            bytes_on_disk=10 * i,
            latency_ms_p50=1.0,
        )
        for i in (1, 2)
    ]
    hostile = {key: HOSTILE for key in RUN if key not in ("wall_seconds", "seeds", "dataset")}
    text = written(
        tmp_path,
        rows=rows,
        run={**hostile, HOSTILE: {HOSTILE: [HOSTILE]}, "wall_seconds": {HOSTILE: 1.0}},
        curves={HOSTILE: [{"step": i, "loss": 1.0, f"loss/{HOSTILE}{i}": 1.0} for i in (1, 2)]},
        parity=[{"artifact": HOSTILE, HOSTILE: HOSTILE}],
    )
    page = Page(text)
    assert "<script" not in text
    assert not any(tag == "script" for tag, _ in page.elements)
    assert any(HOSTILE in part for part in page.text)
    assert not any("alert(" in name for _, attributes in page.elements for name in attributes)


def row_cells(text, stage):
    body = re.search(rf"<tr><th scope=.row.>{stage}.*?</tr>", text)[0]
    return Page(body).cells[1:]


def test_none_is_a_dash(tmp_path, line):
    text = written(tmp_path, rows=line)
    cached = row_cells(text, "cached")
    assert cached == ["1,000", "1,000", "–", "–", "–", "–", "–", "1", "–", "–", "–"]
    assert "None" not in text
    assert "nan" not in "".join(Page(text).cells).lower()


def test_table_golden(tmp_path, line):
    text = written(tmp_path, rows=line)
    cells = [cell.replace("\u00a0", " ") for cell in row_cells(text, "teacher")]
    assert cells[:5] == ["64,000", "64,000", "256.0", "8,000.0", "98.097.0–98.6"]
    assert cells[5:] == ["97.9", "97.8", "1", "–", "–", "–"]
    files = [cell.replace("\u00a0", " ") for cell in row_cells(text, "files")]
    assert files[-3:] == ["0.040", "0.050", "onnxruntime1 thread, batch 1"]
    assert "80.0\u00a0% pruned" in text


def test_what_a_file_costs_besides(tmp_path, make_row):
    row = make_row(
        bytes_on_disk=4200,
        gzip_bytes=1300,
        peak_memory_bytes=9_100_000,
        latency_ms_p50=0.04,
        latency_ms_p95=0.05,
        bulk_ms_p50=1.234,
        bulk_batch=64,
        batch=1,
    )
    text = written(tmp_path, rows=[row, make_row("other", bytes_on_disk=9000)])
    cells = [cell.replace("\u00a0", " ") for cell in row_cells(text, "student")]
    assert cells[2:4] == ["4,2001.30 kB gzip’d", "9.1"]
    assert cells[5:7] == ["0.0401.23 ms for 64", "0.050"]
    assert "<small>MB</small>" in text


def test_a_column_that_nobody_filled_is_named_instead(tmp_path, make_row):
    text = written(tmp_path, rows=[make_row(accuracy=0.5)])
    assert "Not measured in this run: on disk, memory, compute, median latency" in text
    assert row_cells(text, "student") == ["1,000", "1,000", "50.0no interval", "1"]


def test_a_real_time_factor_is_shown_where_there_is_sound(tmp_path, make_row, line):
    assert "real-time" not in written(tmp_path, rows=line)
    timed = {"runtime": "onnxruntime:cpu", "batch": 1, "threads": 1, "latency_ms_p95": 9.0}
    rows = [
        make_row("a", latency_ms_p50=4.5, seconds=2.25, real_time_factor=0.002, **timed),
        make_row("b", latency_ms_p50=0.9, seconds=2.25, real_time_factor=0.0004, **timed),
        make_row("c"),
    ]
    (column,) = [c for c in table.columns(rows) if c.name == "real-time factor"]
    assert column.cells == (
        "0.002000<small>of 2.25&nbsp;s</small>",
        "0.000400<small>of 2.25&nbsp;s</small>",
        "–",
    )
    assert column.best == 0.0004
    both = report.aggregate([rows[0], dataclasses.replace(rows[0], real_time_factor=0.004)])
    assert (both.seconds, both.real_time_factor) == (2.25, 0.003)


def test_only_the_best_of_a_column_is_bold(line):
    columns = {column.name: column for column in table.columns(line)}
    assert columns["accuracy"].best == 0.98
    assert columns["on disk"].best == 1400
    assert columns["median"].best == 0.02
    slower = dataclasses.replace(line[-1], batch=64)
    assert {c.name: c for c in table.columns([*line, slower])}["median"].best is None
    assert {c.name: c for c in table.columns(line[:1])}["accuracy"].best is None


def test_the_pixels_are_no_model_that_is_the_smallest(make_row):
    pixels = make_row("pixels/linear", model="pixels", params=0, nonzero_params=0, flops=0)
    small = make_row("small", flops=10_000)
    large = make_row("large", params=3000, nonzero_params=3000, flops=30_000)
    for column in table.columns([pixels, small, large]):
        if column.name in ("parameters", "not zero", "compute"):
            assert column.cells[0].startswith(units.DASH)
            assert column.best == column.values[1]


def test_every_column_is_explained(line):
    columns = table.columns(line)
    assert all(column.meaning.endswith(".") for column in columns)
    explained = table.legend(columns)
    assert all(column.name in explained and column.meaning in explained for column in columns)


def test_exports_are_judged(tmp_path):
    text = written(tmp_path)
    first, second = row_cells(text, "files"), row_cells(text[text.rindex("<tr>") :], "files")
    assert first == ["✓ within tolerance", "onnxruntime", "2e-06", "0.0001", "100.0", "360"]
    assert second == ["–", "litert", "–", "–", "–", "–"]
    failed = [{**PARITY[0], "max_difference": 1.0, "agreement": 0.99721}]
    cells = row_cells(written(tmp_path, parity=failed), "files")
    assert cells[0] == "✗ beyond tolerance"
    assert "99.72" in cells


def test_nothing_at_all_is_a_page_too(tmp_path):
    page = Page(written(tmp_path, run={}, curves={}, parity=[]))
    assert "No stage has measured a model yet." in page.text


def test_facts_of_the_run(tmp_path):
    text = written(tmp_path)
    assert "digits · 2 x cpu · seeds 0, 2024 · 1\u00a0min\u00a014\u00a0s of work" in text
    assert "kdjax 0.1.0, jax 0.10.2, python 3.11.9" in text
    assert "steps = 10\nname = &#x27;&lt;digits&gt;&#x27;" in text
