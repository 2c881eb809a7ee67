import itertools
import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.textpath import TextPath

from kdjax.report import write
from kdjax.report.groups import frozen_list, group_matrix
from kdjax.report.sensitivity import NUMBERS, sensitivity_map, sensitivity_table
from kdjax.tasks import Classification

HOSTILE = "<script>alert('x')</script>\"&\u202e\x00$x^2$/\ud800"


def described(*groups, order=""):
    """`(name, size, kept, "layer:role layer:role")` as a manifest has it, layers in this order."""
    members = [[m.split(":") for m in members.split()] for *_, members in groups]
    layers = order.split() or [m[0] for g in members for m in g]
    place = {layer: i for i, layer in enumerate(dict.fromkeys(layers))}
    return [
        {
            "name": name,
            "size": size,
            "kept": kept,
            "members": [{"layer": x, "role": role, "place": place[x]} for x, role in of],
        }
        for (name, size, kept, _), of in zip(groups, members, strict=True)
    ]


RESIDUAL = described(
    (
        "net/stem/conv",
        16,
        4,
        "net/stem/conv:out net/stem/norm:with net/a/conv:in net/b/conv:out net/b/norm:with head:in",
    ),
    ("net/a/conv", 8, 8, "net/a/conv:out net/a/norm:with net/b/conv:in"),
    order="net/stem/conv net/stem/norm net/a/conv net/a/norm net/b/conv net/b/norm head",
)
CURVES = {
    "net/stem/conv": {"0.5": 0.01, "0.25": 0.001, "0.9": 1.0},
    "net/a/conv": {"0.5": -0.2, "0.25": 0.0, "0.9": None},
}


def chain(count, *, name="net/stage{}_block/project/conv", size=1_280):
    """Groups one after the other; all layers with long names."""
    names = [name.format(i) for i in range(count + 1)]
    return described(
        *((a, size, size // 2, f"{a}:out {b}:in") for a, b in itertools.pairwise(names))
    )


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter("text")]


def boxes(svg):
    """Where each text is, as its font is measured."""
    found = {}
    for element in ElementTree.fromstring(svg).iter("text"):
        style = dict(part.split(": ") for part in element.get("style").split("; "))
        size = float(style["font-size"].removesuffix("px"))
        x, y = float(element.get("x")), float(element.get("y"))
        width = TextPath((0, 0), element.text.replace("\u00a0", " "), size=size).get_extents().x1
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[style["text-anchor"]]
        found[len(found), element.text] = (left, y - 0.75 * size, left + width, y + 0.2 * size)
    return found


def assert_apart(svg):
    """No text on another, none cut off."""
    width, height = (float(n) for n in ElementTree.fromstring(svg).get("viewBox").split()[2:])
    found = boxes(svg)
    left, bottom, right, top = np.array([*found.values()]).T
    across = np.minimum.outer(right, right) - np.maximum.outer(left, left)
    upward = np.minimum.outer(top, top) - np.maximum.outer(bottom, bottom)
    pairs = np.argwhere(np.triu((across > 0) & (upward > 0), 1))
    assert not len(pairs), [[*found][i] for i in pairs[0]]
    for text, box in found.items():
        assert min(box) >= -1, text
        assert box[2] <= width + 1, text
        assert box[3] <= height + 1, text


def marks(svg):
    """`(x, y, filled)` of each mark."""
    return {
        (float(e.get("x")), float(e.get("y")), e.get("style").startswith("fill: var(--accent"))
        for e in ElementTree.fromstring(svg).iter("use")
    }


def path_of(svg, gid):
    """The corners of what has this id."""
    (found,) = [g for g in ElementTree.fromstring(svg).iter("g") if g.get("id") == gid]
    numbers = re.findall(r"[\d.]+", found.find("path").get("d"))
    return [(float(x), float(y)) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]


def written(directory, **changes):
    write(directory, **{"run": {}, "rows": [], "curves": {}, "parity": [], **changes})
    return (directory / "report.html").read_text(encoding="utf-8")


def shrunk(groups=RESIDUAL, **changes):
    found = {"seed": 0, "model": "student", "difference": 3e-7, "groups": groups, "frozen": {}}
    return {**found, **changes}


def measured(curves=CURVES, *, against="predictions", **changes):
    loss = Classification.losses_of.get(against, against)
    found = {"seed": 0, "model": "student", "against": against, "loss": loss, "examples": 64}
    return {**found, "curves": curves, "groups": RESIDUAL, **changes}


def test_matrix_golden():
    picture = group_matrix(RESIDUAL)
    assert picture.title == "12 of 24 units kept"
    assert picture.legend == ("● makes the units", "○ reads them")
    names = ["stem: conv, norm", "a: conv, norm", "b: conv, norm", "head"]
    bars = ["1", "4 of 16", "2", "8 of 8"]
    assert sorted(texts(picture.svg)) == sorted([*names, *bars, "1", "2", "units kept"])
    rows = [26 + 18 * (i + 0.5) for i in range(4)]
    first, second = sorted({x for x, *_ in marks(picture.svg)})
    assert second - first == pytest.approx(44, abs=0.02)
    assert marks(picture.svg) == {
        (first, rows[0], True),
        (first, rows[1], False),
        (first, rows[2], True),
        (first, rows[3], False),
        (second, rows[1], True),
        (second, rows[2], False),
    }
    assert path_of(picture.svg, "groups-tie0") == [(first, rows[0]), (first, rows[3])]
    assert path_of(picture.svg, "groups-tie1") == [(second, rows[1]), (second, rows[2])]


@pytest.mark.parametrize(("size", "kept"), [(1, 1), (1, 0), (16, 4), (3, 2)])
def test_bar_is_the_share_that_is_kept(size, kept):
    svg = group_matrix(described(("a", size, kept, "a:out b:in"))).svg
    xs = [x for x, _ in path_of(svg, "groups-bar0")]
    assert max(xs) - min(xs) == pytest.approx(90 * kept / size, abs=0.02)
    assert f"{kept} of {size}" in texts(svg)


def test_one_group():
    picture = group_matrix(described(("net/a/conv", 1, 1, "net/a/conv:out")))
    assert picture.title == "1 of 1 units kept"
    assert "net/a/conv" in texts(picture.svg)  # one name: nothing is shared with another
    assert len(marks(picture.svg)) == 1
    assert_apart(picture.svg)


def test_a_layer_that_reads_what_it_makes_shows_both():
    # Recurrent: the small full mark lies within the hollow one.
    svg = group_matrix(described(("a", 4, 2, "a:out a:in b:in"))).svg
    (row,) = {y for _, y, full in marks(svg) if full}
    assert sum(y == row for _, y, _ in marks(svg)) == 2


def test_what_goes_along_on_a_line_of_its_own_is_explained():
    picture = group_matrix(described(("a/conv", 4, 2, "a/conv:out b/gate:with c:in")))
    assert {"a/conv", "b/gate", "c"} <= set(texts(picture.svg))
    assert picture.legend[-1] == "– goes along"


@pytest.mark.parametrize("groups", [2, 12, 27, 60])
def test_no_label_of_the_matrix_lies_on_another(groups):
    svg = group_matrix(chain(groups)).svg
    assert_apart(svg)
    numbers = [text for text in texts(svg) if text.isdigit()]
    assert set(numbers) == {f"{i + 1}" for i in range(groups)}  # each is beside its bar at least
    assert len({x for x, *_ in marks(svg)}) == groups
    # Marks of neighbours do not touch either.
    xs = sorted({x for x, *_ in marks(svg)})
    widest = max(float(n) for n in re.findall(r'd="M 0 ([\d.]+) C', svg))
    assert min(b - a for a, b in itertools.pairwise(xs)) > 2 * widest


@pytest.mark.parametrize("count", [2, 5])
def test_groups_that_begin_on_one_line_share_it(count):
    fused = [(f"fused{i}", 1000, 10 * i, f"fused:out out{i}:in") for i in range(count)]
    svg = group_matrix(described(*fused, ("out0", 4, 4, "out0:out end:in"))).svg
    assert_apart(svg)
    tops = [path_of(svg, f"groups-bar{i}")[0][1] for i in range(count)]
    assert tops == sorted(set(tops))
    assert max(tops) - min(tops) < 9  # of a line of 18
    both = "0 of 1,000; 10 of 1,000"
    assert (both if count == 2 else "100 of 5,000") in texts(svg)


def test_map_golden():
    picture = sensitivity_map(CURVES)
    cells = [["0.0010", "0.010", "1.0"], ["0", "−0.20", "–"]]
    names = ["stem/conv", "a/conv", "25 %", "50 %", "90 %"]
    found = [text.replace("\u00a0", " ") for text in texts(picture.svg)]
    assert sorted(found) == sorted([*names, *cells[0], *cells[1]])
    assert picture.caption.endswith("log scale, up to 1.0.")
    # Three decades: 1 is full, 0.01 a third, 0.001 and whatever is not a rise nothing.
    opacity = [float(n) for n in re.findall(r"--second[^;]*; opacity: ([\d.]+)", picture.svg)]
    assert opacity == pytest.approx([0.65 / 3, 0.65], abs=1e-5)


@pytest.mark.parametrize(("groups", "sparsities"), [(1, 1), (60, 5), (3, 20)])
def test_no_label_of_the_map_lies_on_another(groups, sparsities):
    curves = {
        group["name"]: {(j + 1) / 100: 10.0 ** (i % 7 - 4) for j in range(sparsities)}
        for i, group in enumerate(chain(groups))
    }
    assert_apart(sensitivity_map(curves).svg)


def test_the_table_says_what_the_map_says():
    cells = re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", sensitivity_table(CURVES))
    assert [re.sub("<wbr>|\u00a0", "", cell) for cell in cells] == [
        *("Group", "25%", "50%", "90%"),
        *("net/stem/conv", "0.0010", "0.010", "1.0"),
        *("net/a/conv", "0", "−0.20", "–"),
    ]


@pytest.mark.parametrize("lost", [None, math.nan, math.inf])
def test_what_is_not_a_number_is_a_dash(lost):
    curves = {"a": {0.5: 1.0, 0.9: lost}, "b": {0.5: lost, 0.9: 2.0}, "c": {0.5: lost}, "d": {}}
    assert texts(sensitivity_map(curves).svg).count("–") == 6
    assert sensitivity_table(curves).count("<td>–</td>") == 6
    assert "nan" not in sensitivity_map(curves).svg + sensitivity_table(curves)


@pytest.mark.parametrize("curves", [{}, {"a": {}}, {"a": {0.5: None}, "b": {0.5: math.nan}}])
def test_nothing_measured_no_picture(curves):
    assert sensitivity_map(curves) is None
    assert sensitivity_table(curves) == ""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (12.4, "12"),
        (1234.5, "1,234"),
        (0.123, "0.12"),
        (0.00996, "0.0100"),
        (0.00004, "0"),
        (-0.00004, "0"),
        (-3.21, "−3.2"),
        (2.5e9, "2.5e+09"),
    ],
)
def test_increases_golden(value, said):
    assert texts(sensitivity_map({"a": {0.5: value}}).svg)[-1] == said


def test_no_rise_no_colour():
    svg = sensitivity_map({"a": {0.5: 0.0, 0.9: -1.0}}).svg
    assert "--second" not in svg


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=60),
        st.dictionaries(st.floats(0.01, 0.99), st.none() | st.floats(), max_size=4),
        max_size=4,
    )
)
def test_map_law(curves):
    picture = sensitivity_map(curves)
    finite = [v for c in curves.values() for v in c.values() if v is not None and math.isfinite(v)]
    assert (picture is None) == (not finite)
    assert (sensitivity_table(curves) == "") == (not finite)
    if picture is not None:
        opacity = re.findall(r"--second[^;]*; opacity: ([\d.e-]+)", picture.svg)
        assert len(opacity) <= sum(value > 0 for value in finite)
        assert all(0 <= float(n) <= 0.65 for n in opacity)


def test_frozen_golden():
    frozen = {
        "params/block0/conv/kernel[0]": "a kernel's side",
        "params/block12/conv/kernel[0]": "a kernel's side",
        "params/block0/conv/kernel[1]": "a kernel's side",
        "params/head/bias[0]": "an output",
        "params/value/kernel[2]": f"no other width: {'w' * 99}",
    }
    found = frozen_list(frozen).replace("<wbr>", "")
    assert re.findall("<d[td]>(.*?)</d[td]>", found) == [
        "a kernel&#x27;s side",
        "block*/conv/kernel[0] (2), block0/conv/kernel[1]",
        "an output",
        "head/bias[0]",
        f"no other width: {'w' * 43}…",
        "value/kernel[2]",
    ]
    assert frozen_list({}) == ""


LAYERS = {
    "encoder/stem/conv/kernel": {"int8": 0.001, "int4 weights": 0.5},
    "encoder/head/kernel": {"int8": 0.002, "binary weights mse": 3.0},
}


def test_layers_by_numbers():
    picture = sensitivity_map(LAYERS, NUMBERS)
    found = texts(picture.svg)
    assert found[:2] == ["stem/conv/kernel", "head/kernel"]
    assert found[2:5] == ["int8", "int4 weights", "binary weights mse"]  # as they first come
    assert found[5:] == ["0.0010", "0.50", "–", "0.0020", "–", "3.0"]
    assert "one layer alone is quantized" in picture.title
    cells = re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", sensitivity_table(LAYERS, NUMBERS))
    assert cells[:5] == ["Layer", "int8", "int4 weights", "binary weights mse", cells[4]]
    assert cells[5:8] == ["0.0010", "0.50", "–"]
    assert_apart(picture.svg)


def test_the_page_shows_layers_and_units_of_a_stage(tmp_path):
    both, alone = measured(layers=LAYERS), measured({}, layers=LAYERS, against="teacher")
    text = written(tmp_path, sensitivity={"bears": both, "bits": alone})
    units, layers = (f"loss when one {what}" for what in ("group alone is", "layer alone is"))
    headings = re.findall("<h3>(.*?)</h3>", text)
    assert [h.rpartition(" ")[0] for h in headings] == [
        f"bears: {units}",
        f"bears: {layers}",
        f"bits: {layers}",
    ]
    assert "what the cached teacher says, in nats" in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_by_way_of_json_the_pictures_are_the_same():
    curves = {name: {float(s): v for s, v in curve.items()} for name, curve in CURVES.items()}
    again = json.loads(json.dumps(curves))
    assert sensitivity_map(again) == sensitivity_map(curves)
    assert sensitivity_table(again) == sensitivity_table(curves)
    assert group_matrix(json.loads(json.dumps(RESIDUAL))) == group_matrix(RESIDUAL)


def test_nothing_shrunk_nothing_in_the_page(tmp_path):
    before = written(tmp_path)
    empty = {"a": shrunk([])}
    assert "Groups of units" not in before
    assert ".sideways" not in before
    assert written(tmp_path, shrunk={}, sensitivity={}) == before
    found = json.loads((tmp_path / "report.json").read_text())
    assert list(found) == ["version", "run", "rows", "parity"]
    assert written(tmp_path, shrunk=empty, sensitivity={"b": measured({})}) == before


def test_the_page_shows_each_stage(tmp_path):
    frozen = {"params/head/bias[0]": "an output of the model"}
    text = written(
        tmp_path,
        shrunk={"half": shrunk(frozen=frozen), "less": shrunk(model="teacher")},
        sensitivity={"bears": measured(), "labelled": measured(against="labels", examples=2048)},
    ).replace("\u00a0", " ")
    headings = re.findall("<h3>(.*?)</h3>", text)
    loss = "loss when one group alone is pruned"
    kept = "12 of 24 units kept"
    assert headings == [f"bears: {loss}", f"labelled: {loss}", f"half: {kept}", f"less: {kept}"]
    folded = re.findall("<details><summary>(.*?)</summary>", text)
    assert folded == [*["The increases as a table"] * 2, "1 axis that cannot lose any, and why"]
    assert "what the whole model says, in nats, over 64 training examples. " in text
    assert "the cross-entropy with the labels, in nats, over 2,048 training examples. " in text
    assert "3e-07 of the largest output. The model is that of the stage teacher.<" in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert ".sideways" in text


@pytest.mark.parametrize(("seeds", "said"), [([], 0), ([7], 0), ([7, 8, 9], 2)])
def test_of_several_seeds_it_is_said_whose_it_is(tmp_path, seeds, said):
    found = {"shrunk": {"a": shrunk(seed=7)}, "sensitivity": {"b": measured(seed=7)}}
    text = written(tmp_path, run={"seeds": seeds}, **found)
    assert text.count("Of seed 7 alone, of 3 seeds.") == said
    assert text.count("alone, of") == said


def test_json_has_what_the_page_shows(tmp_path):
    found = {"shrunk": {"a": shrunk()}, "sensitivity": {"b": measured()}}
    written(tmp_path, **found)
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert list(data) == ["version", "run", "rows", "parity", "shrunk", "sensitivity"]
    assert {key: data[key] for key in found} == found


def test_nan_is_refused_by_place(tmp_path):
    with pytest.raises(ValueError, match=r"sensitivity\.b\.curves\.a\.0\.5 is nan"):
        written(tmp_path, sensitivity={"b": measured({"a": {0.5: math.nan}})})


def test_hostile_names_are_only_text(tmp_path):
    groups = described(("name", 4, 2, "a:out b:with c:in"), ("/name", 4, 2, "c:out d:in"))
    for group in groups:
        group["name"] += HOSTILE
        for member in group["members"]:
            member["layer"] += HOSTILE
    text = written(
        tmp_path,
        run={"seeds": [0, 1]},
        shrunk={HOSTILE: shrunk(groups, model=HOSTILE, frozen={f"{HOSTILE}[0]": HOSTILE})},
        sensitivity={HOSTILE: measured({HOSTILE: {0.5: 1.0}}, model=HOSTILE, against=HOSTILE)},
    )
    assert "<script" not in text
    assert "\u202e" not in "".join(re.findall("<svg.*?</svg>", text))
    for svg in re.findall("<svg.*?</svg>", text):
        # Quoted, a title is an attribute's value and not an attribute.
        assert {e.tag for e in ElementTree.fromstring(svg).iter()}.isdisjoint({"script", "image"})
    labels = re.findall("<div class='sideways'([^>]*)>", text)
    assert all(re.fullmatch(r"( [\w-]+='[^']*')+", label) for label in labels)
    assert len(labels) == 2
