"""Tables written from kept results: every number against one found here by hand."""

import json
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from kdjax import parse
from kdjax.commands import tables as command
from kdjax.report import Row, tables
from kdjax.types import BadInput

KD, DKD, ONE = (0.70, 0.72, 0.71), (0.731, 0.742, 0.739), (0.6,)


def _row(stage, each, **more):
    blank = {
        "model": "cnn",
        "params": 78_666,
        "nonzero_params": 70_000,
        "bytes_on_disk": 96_400,
        "flops": None,
        "latency_ms_p50": 0.1234,
        "latency_ms_p95": None,
        "runtime": None,
        "threads": None,
        "batch": None,
    }
    accuracy = {
        "value": statistics.fmean(each),
        "ci95": [0.5, 0.7],
        "per_seed": each if len(each) > 1 else None,
        "higher_is_better": True,
        "fraction": True,
    }
    error = {"value": 1.23456, "higher_is_better": False, "fraction": False}
    scores = {"accuracy": accuracy, "f1_macro": {"value": 0.69}, "rmse": error}
    said = {"stage": stage, "scores": scores, "primary": "accuracy", "seeds": len(each)}
    return {**blank, **said, **more}


@pytest.fixture
def workdir(tmp_path):
    report = {
        "run": {
            "command": "kdjax --config=/my/kdjax/configs/x.py:data_dir=/d/t,seeds=3 --workdir=/w/1",
            "seeds": [0, 1, 2],
            "dataset": {"name": "cifar100"},
            "device": "1 x cpu",
            "versions": {"jax": "0.10.2"},
            "wall_seconds": {"kd": 3600.0, "dkd": 1800.0},
            "not_done": [],
        },
        "rows": [_row("kd", KD), _row("dkd", DKD), _row("file", ONE), _row("again", KD)],
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    return tmp_path


@pytest.fixture
def result(workdir):
    out = workdir / "kept.json"
    assert command.main(["keep", str(workdir), str(out)]) == 0
    return json.loads(out.read_text())


def test_what_is_kept_has_no_directory_of_one_machine(result):
    assert result["command"] == "kdjax --config=configs/x.py:data_dir=TFDS,seeds=3 --workdir=DIR"
    assert (result["hours"], result["minutes_a_seed"]) == (1.5, 30)
    assert list(result["rows"]) == ["kd", "dkd", "file", "again"]
    assert result["rows"]["dkd"]["scores"]["accuracy"]["per_seed"] == list(DKD)


def test_a_run_that_is_not_done_is_not_kept(workdir):
    report = json.loads((workdir / "report.json").read_text())
    report["run"]["not_done"] = [{"stage": "dkd", "seed": 2, "why": "not done"}]
    (workdir / "report.json").write_text(json.dumps(report))
    with pytest.raises(
        BadInput, match=r"^report.json: dkd \(seed 2\): not done; finish the run first$"
    ):
        command.main(["keep", str(workdir), str(workdir / "kept.json")])
    assert not (workdir / "kept.json").exists()
    for other, said in (("{}", "not a report of kdjax"), ("[]", "not an object of JSON")):
        (workdir / "report.json").write_text(other)
        with pytest.raises(BadInput, match=f"report.json: {said}"):
            command.main(["keep", str(workdir), str(workdir / "kept.json")])


def _interval(ours, theirs):
    each = 100 * (np.array(ours) - np.array(theirs))
    return each.mean(), stats.t.interval(0.95, len(each) - 1, each.mean(), stats.sem(each))


def _signed(x):
    return f"{x:+.1f}".replace("-", "−")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("kd.accuracy", f"{100 * np.mean(KD):.1f} ± {100 * np.std(KD, ddof=1):.1f}"),
        ("file.accuracy", "60.0"),
        ("kd.params", "78,666"),
        ("kd.kB", "96.4"),
        ("kd.latency_ms_p50:.2f", "0.12"),
        ("kd.flops", "–"),
        ("kd.f1_macro", "69.0"),
        ("kd.rmse", "1.235"),
        ("hours:.1f", "1.5"),
        ("seeds", "0, 1, 2"),
        ("versions.jax", "0.10.2"),
        ("kd over again", "+0.0 (+0.0 to +0.0), no difference seen"),
    ],
)
def test_fields(result, asked, expected):
    assert tables.rendered(f"a {{r: {asked}}} b", {"r": result}) == f"a {expected} b"


def test_a_difference_is_that_of_the_pairs_and_says_where_none_is_seen(result):
    mean, (low, high) = _interval(DKD, KD)
    assert low > 0
    shown = tables.rendered("{r: dkd over kd}", {"r": result})
    assert shown == f"{_signed(mean)} ({_signed(low)} to {_signed(high)})"
    scores = result["rows"]["dkd"]["scores"]
    scores["accuracy"]["per_seed"] = [0.70, 0.76, 0.71]
    mean, (low, high) = _interval([0.70, 0.76, 0.71], KD)
    scores["accuracy"]["value"] = float(np.mean([0.70, 0.76, 0.71]))
    assert low < 0 < high
    shown = tables.rendered("{r: dkd over kd}", {"r": result})
    assert shown == f"{_signed(mean)} ({_signed(low)} to {_signed(high)}), no difference seen"


def test_the_least_effect_is_seen_four_times_of_five(result):
    """Of many experiments with three seeds and this spread: the noncentral t says how many."""
    least = tables.least_seen(*(parse.parse(Row, _row("a", each), "") for each in (DKD, KD)))
    assert least is not None
    spread = np.std(np.array(DKD) - np.array(KD), ddof=1)
    power = stats.nct.sf(stats.t.ppf(0.975, 2), 2, least / (spread / math.sqrt(3)))
    assert 0.7 < power < 0.85
    assert tables.rendered("{r: least dkd over kd}", {"r": result}) == f"{100 * least:.1f}"
    assert tables.rendered("{r: least dkd over file}", {"r": result}) == "–"


NETWORKS = {
    "networks": [{"name": "a", "apart": 3e-7}, {"name": "b.c", "apart": 0.5}],
    "few": [1],
    "one": {"name": "d"},
}


def test_a_line_with_a_star_is_written_for_each_entry():
    text = "| n |\n| {p: networks.*.name} | {p: networks.*.apart:.0e} |\n{p: one.name}"
    shown = tables.rendered(text, {"p": NETWORKS})
    assert shown == "| n |\n| a | 3e-07 |\n| b.c | 5e-01 |\nd"
    assert tables.rendered("x\n{p: networks.*.name}\ny", {"p": {"networks": []}}) == "x\ny"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{p: one.*.name}", r"p: one is no list; take out the \* of {p: one\.\*\.\.\.\.}"),
        ("{p: networks.*.name} {p: few.*.name}", "its lists differ in length"),
        ("{p: none.*.name}", "there is no 'none'"),
        ("{q: networks.*.name}", "there is no file q"),
        ("{p: networks.*.nam}", "there is no 'nam'"),
    ],
)
def test_a_star_is_of_a_list(text, message):
    with pytest.raises(BadInput, match=message):
        tables.rendered(text, {"p": NETWORKS})


PAGE = """# Page

<!-- from r=kept.json
| | top-1 |
|---|---|
| KD | {r: kd.accuracy} |
-->
<!-- end -->

{r: kd.accuracy} stays, and so does the rest.
"""


def test_pages_are_written_checked_and_written_once(workdir, result, capsys):
    page = workdir / "README.md"
    page.write_text(PAGE)
    assert command.main(["check", str(page)]) == 1
    assert "+| KD | 71.0 ± 1.0 |" in capsys.readouterr().out
    assert page.read_text() == PAGE
    assert command.main(["write", str(page)]) == 0
    once = page.read_text()
    table = "| | top-1 |\n|---|---|\n| KD | 71.0 ± 1.0 |\n"
    assert once == PAGE.replace("-->\n<!-- end -->", f"-->\n{table}<!-- end -->")
    assert command.main(["write", str(page)]) == 0
    assert page.read_text() == once
    assert command.main(["check", str(page)]) == 0
    page.write_text(once.replace("71.0", "72.0"))
    assert command.main(["check", str(page)]) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("r=kept.json", "r=gone.json", "README.md:3: .*gone.json"),
        ("r=kept.json", "kept.json", "README.md:3: kept.json: write NAME=FILE"),
        (
            "r: kd.accuracy} |",
            "s: kd.accuracy} |",
            "README.md:3: {s: kd.accuracy}: there is no file s",
        ),
        (
            "r: kd.accuracy} |",
            "r: kd.acuracy} |",
            "README.md:3: {r: kd.acuracy}: a row has no 'acuracy'; did you mean accuracy",
        ),
        (
            "r: kd.accuracy} |",
            "r: kt over kd} |",
            "README.md:3: .*there is no row 'kt'; did you mean kd",
        ),
        ("r: kd.accuracy} |", "r: nothing} |", "README.md:3: {r: nothing}: there is no 'nothing'"),
    ],
)
def test_what_is_not_there_is_named(workdir, result, old, new, message):
    page = workdir / "README.md"
    page.write_text(PAGE.replace(old, new, 1))
    with pytest.raises(BadInput, match=message):
        tables.written(page)
