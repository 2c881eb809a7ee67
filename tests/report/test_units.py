import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.report import units


def spaced(text):
    return text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (units.percent(0.971), "97.1"),
        (units.percent(1.0), "100.0"),
        (units.share(0.5), "50.0 %"),
        (units.interval((0.962, 0.9788)), "96.2–97.9"),
        (units.compact(52_300, "B"), "52.3 kB"),
        (units.compact(1_228_042), "1.23 M"),
        (units.compact(999), "999"),
        (units.compact(2_000, "B"), "2 kB"),
        (units.tick(1500, "B"), "1.5 kB"),
        (units.tick(0.03, "ms"), "0.03 ms"),
        (units.milliseconds(0.0312), "0.031 ms"),
        (units.milliseconds(12.345), "12.3 ms"),
        (units.times(6.42), "6.4×"),
        (units.times(128.4), "128×"),
        (units.points(-0.0123), "−1.2 points"),
        (units.points(0.02), "+2.0 points"),
        (units.points(-0.0001), "±0.0 points"),
        (units.duration(12.34), "12.3 s"),
        (units.duration(245), "4 min 05 s"),
        (units.duration(7400), "2 h 03 min"),
        (units.count(1, "seed"), "1 seed"),
        (units.count(3, "seed"), "3 seeds"),
        (units.fixed(12345.67, 1), "12,345.7"),
    ],
)
def test_golden(shown, expected):
    assert spaced(shown) == expected


@pytest.mark.parametrize(
    "shown",
    [
        units.percent(None),
        units.share(None),
        units.interval(None),
        units.compact(None, "B"),
        units.fixed(None, 2),
        units.duration(None),
    ],
)
def test_none_is_a_dash(shown):
    assert shown == "–"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (1.0, "")),
        ([None, 0], (1.0, "")),
        ([9610, 9000], (1.0, "")),
        ([9610, 1_200_000], (1e3, "k")),
        ([2_000_000, 9e9, None], (1e6, "M")),
        ([500, 9e9], (1.0, "")),
    ],
)
def test_prefix_of_a_column(values, expected):
    assert units.prefix(values) == expected


@given(st.floats(1, 9e14))
def test_compact_is_within_half_a_percent(value):
    number, _, prefix = units.compact(value).partition("\u00a0")
    scale = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix]
    assert float(number.replace(",", "")) * scale == pytest.approx(value, rel=5.1e-3)
