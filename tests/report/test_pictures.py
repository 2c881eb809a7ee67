import itertools
import math
import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.report import label_placement, svg
from kdjax.report.curves import loss_curve, thin
from kdjax.report.pictures import log_ticks, score_versus_latency, score_versus_size


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter("text")]


def curve(losses, **terms):
    return [
        {"step": i, "loss": loss, **{f"loss/{k}": v[i] for k, v in terms.items()}}
        for i, loss in enumerate(losses)
    ]


def test_the_same_data_gives_the_same_bytes(line):
    records = curve([math.exp(-i / 9) for i in range(30)])
    first = score_versus_size(line), score_versus_latency(line)
    curves = loss_curve("student", records, name="c")
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 7}):  # a user's own style
        loss_curve("teacher", records, name="d")
        again = score_versus_size(line), score_versus_latency(line)
    assert again == first
    assert loss_curve("student", records, name="c") == curves


def test_drawing_leaves_no_trace(line):
    before = dict(matplotlib.rcParams)
    score_versus_size(line)
    assert dict(matplotlib.rcParams) == before


def test_names_stay_text_in_the_ink_of_the_page(line):
    svg = score_versus_size(line).svg
    assert {"teacher", "pruned", "files cnn fp32", "files cnn int8", "accuracy, %"} <= set(
        texts(svg)
    )
    assert "currentColor" in svg
    assert "var(--accent" in svg
    assert "font-family" not in svg
    colours = set(re.findall(r"#[0-9a-f]{6}", svg))
    assert colours <= {"#0072b2"}  # only as the fallback of a CSS variable


def test_a_point_tells_its_figures(line):
    svg = ElementTree.fromstring(score_versus_size(line).svg)
    titles = [t.text for t in svg.iter("title")]
    assert titles[0] == "teacher: 98.0 % (95 % interval 97.0–98.6), 256 kB"
    assert len(titles) == 4
    assert svg.get("role") == "img"
    assert "teacher: 98.0 %" in svg.get("aria-label").replace("\u00a0", " ")


def test_every_reference_is_to_the_picture_itself(line):
    pictures = [score_versus_size(line), *score_versus_latency(line)]
    ids = []
    for picture in pictures:
        root = ElementTree.fromstring(picture.svg)
        ids.append({e.get("id") for e in root.iter() if e.get("id")})
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', picture.svg))
        assert used <= ids[-1]
        assert "http" not in picture.svg
    assert not ids[0] & ids[1]


def test_what_was_not_measured_is_not_drawn(make_row, line):
    assert score_versus_size([]) is None
    assert score_versus_size([make_row(accuracy=0.9, bytes_on_disk=5)]) is None
    assert score_versus_size([make_row(accuracy=0.9), make_row(bytes_on_disk=5)]) is None
    assert score_versus_latency([make_row(accuracy=0.9, latency_ms_p50=1.0)]) == []
    (picture,) = score_versus_latency(line)
    assert "teacher" not in texts(picture.svg)


def test_one_picture_for_each_setting_that_can_be_compared(make_row):
    rows = [
        make_row(
            f"{batch}{runtime}", accuracy=0.9, latency_ms_p50=1.0, batch=batch, runtime=runtime
        )
        for batch in (1, 8)
        for runtime in ("a", "b")
    ]
    one, eight = score_versus_latency(rows)
    assert one.title.endswith("batch 1")
    assert eight.title.endswith("batch 8")
    assert one.legend == eight.legend == ("● a", "■ b")


def test_names_of_any_kind_are_drawn(make_row):
    # No maths, no markup, no control character, no glyph that must be in matplotlib's font.
    rows = [
        make_row(name, accuracy=0.9, bytes_on_disk=100)
        for name in ("$x^2$", "<b>&amp;", "\x00tab\t", "学生", "\ud800", "n" * 200)
    ]
    found = texts(score_versus_size(rows).svg)
    assert {"$x^2$", "<b>&amp;", "学生"} <= set(found)
    assert "n" * 23 + "…" in found


@given(st.floats(1e-9, 1e12), st.floats(1.0, 1e9))
def test_log_ticks_law(low, ratio):
    high = low * ratio
    ticks = log_ticks(low, high)
    assert 1 <= len(ticks) <= 6
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= high for tick in ticks)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (8, 2e3, [10, 100, 1000]),
        (20, 400, [30, 100, 300]),
        (0.4, 1.2, [0.5, 0.7, 1.0]),
        (1, 1e7, [1, 100, 1e4, 1e6]),
        (1.419e6, 1.580e6, [1.45e6, 1.5e6, 1.55e6]),
    ],
)
def test_log_ticks_golden(low, high, ticks):
    assert log_ticks(float(low), float(high)) == ticks


@given(st.lists(st.floats(0, 100), min_size=1, max_size=7))
def test_spread_law(wanted):
    found = label_placement.spread(wanted, 13.0, 0.0, 100.0)
    ordered = sorted(zip(wanted, found, strict=True))
    positions = sorted(found)
    assert all(b - a >= 13 - 1e-9 for a, b in itertools.pairwise(positions))
    assert positions[0] >= -1e-9
    assert positions[-1] <= 100 + 1e-9
    for (a, x), (b, y) in itertools.pairwise(ordered):
        assert a == b or x < y


def test_spread_moves_nothing_that_has_room():
    assert label_placement.spread([50.0, 10.0, 90.0], 13.0, 0.0, 100.0) == [50.0, 10.0, 90.0]


def test_overlap():
    box = label_placement.Box(0.0, 0.0, 2.0, 2.0)
    assert label_placement.overlap(box, label_placement.Box(1.0, 1.0, 3.0, 3.0)) == 1.0
    assert label_placement.overlap(box, label_placement.Box(2.0, 0.0, 3.0, 2.0)) == 0.0


def test_thin_golden():
    np.testing.assert_array_equal(thin(np.array([1.0, 3.0, 5.0, 9.0]), 2), [[2, 7], [1, 5], [3, 9]])
    np.testing.assert_array_equal(thin(np.array([1.0, 3.0]), 5), [[1, 3]] * 3)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.integers(1, 12))
def test_thin_law(values, most):
    mean, low, high = thin(np.array(values), most)
    assert len(mean) == min(most, len(values))
    assert (low <= mean + 1e-6).all()
    assert (mean <= high + 1e-6).all()
    assert low.min() == min(values)
    assert high.max() == max(values)


def test_curve_says_what_is_drawn():
    picture = loss_curve("student", curve([2.0, math.nan, 0.5]), name="c")
    assert picture.title == "student"
    assert (
        picture.caption.replace("\u00a0", " ") == "2 → 0.5 at step 2; 1 value not finite, not drawn"
    )
    assert "linear" in loss_curve("s", curve([-1.0, 2.0]), name="c").caption
    assert loss_curve("s", curve([3.0] * 5), name="c").caption.startswith("3 → 3 at step 4")


def test_several_seeds_are_several_lines():
    one, two = curve([2.0, 1.0, 0.7]), curve([2.1, 1.2, 0.4])
    picture = loss_curve("student", one + two, name="c")
    assert picture.caption == "2 runs, the last 2.1 → 0.4 at step 2"
    strokes = [
        e
        for e in ElementTree.fromstring(picture.svg).iter("path")
        if "--accent" in e.get("style", "")
    ]
    assert len(strokes) == 2


def test_terms_are_named_where_there_are_several():
    terms = {"kd": [0.9, 0.5], "ce": [0.8, 0.3]}
    assert {"loss", "kd", "ce"} <= set(
        texts(loss_curve("s", curve([1.0, 0.5], **terms), name="c").svg)
    )
    assert "kd" not in texts(loss_curve("s", curve([1.0, 0.5], kd=[0.9, 0.5]), name="c").svg)
    many = {f"term{i}": [1.0, 0.5] for i in range(6)}
    assert "2\u00a0terms" in loss_curve("s", curve([1.0, 0.5], **many), name="c").caption


@pytest.mark.parametrize("losses", [[], [math.nan, math.inf]])
def test_no_finite_loss_no_picture(losses):
    assert loss_curve("s", curve(losses), name="c") is None
    assert loss_curve("s", [{"step": 1, "accuracy": 0.5}], name="c") is None


def test_a_long_curve_stays_small():
    long = loss_curve("s", curve([1 + math.sin(i) / 2 for i in range(20_000)]), name="c")
    assert len(long.svg) < 40_000


def test_no_name_of_a_point_stands_on_the_name_of_an_axis():
    """There are many in the corner where that is."""
    figure, axes = svg.canvas(440, 310)
    figure.subplots_adjust(left=0.09, right=0.985, top=0.92, bottom=0.145)
    axes.set_title("accuracy, %", loc="left", x=-0.075, fontsize=11)
    axes.set_xlim(0.0, 10.0)
    axes.set_ylim(0.0, 1.0)
    xs, ys = [0.4 + 0.33 * i for i in range(12)], [0.95, 0.9, 0.93] * 4
    label_placement.name_points(
        axes,
        xs,
        ys,
        [f"student{i}.onnx" for i in range(12)],
        obstacles=[(x, 0.7, x, 1.0) for x in xs],
        strong=[True] * 12,
    )
    figure.canvas.draw()
    title = next(t for t in axes.get_children() if getattr(t, "get_text", str)() == "accuracy, %")
    its = label_placement.Box(*title.get_window_extent().extents)
    for name in axes.texts:
        own = label_placement.Box(*name.get_window_extent().extents)
        assert label_placement.overlap(own, its) < 30, name.get_text()
