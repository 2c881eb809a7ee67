"""Ranges of fields, and that what is written of them is what is held against."""

import dataclasses
import inspect
import math
import re
import typing

import pytest

from kdjax import config, explain, parse, ranges
from kdjax.config.methods.predict import BYOL
from kdjax.config.optimizers import SGD
from kdjax.types import BadInput

CASES = [
    ("[0, 1)", [0.0, 0.5, 1 - 2**-24], [-1e-9, 1.0, 1.5, math.nan, 1 - 1e-9]),
    ("(0, inf)", [2.0**-126, 1e30], [0.0, -1.0, 1e-300, math.inf, math.nan]),
    ("[1, 2^31)", [1, 2**31 - 1], [0, -1, 2**31]),
    ("[0, 1]", [0.0, 1.0], [-0.1, 1.1]),
    ("(50, 100]", [50.1, 100.0], [50.0, 100.1]),
]


@pytest.mark.parametrize(("interval", "inside", "outside"), CASES)
def test_an_interval(interval, inside, outside):
    held = ranges.In(interval)
    assert [held.fault(value) for value in inside] == [None] * len(inside)
    for value in outside:
        fault = held.fault(value)
        assert fault is not None
        assert interval in fault


def test_what_is_no_interval():
    with pytest.raises(ValueError, match="is no interval"):
        ranges.In("0 to 1")


@pytest.mark.parametrize(
    ("constraint", "right", "wrong"),
    [
        (ranges.AtLeast(1), [(1,), "x", {"a": 1}], [(), "", {}]),
        (ranges.Distinct(), [(), (1, 2), ("a",)], [(1, 1), ("a", "b", "a")]),
        (ranges.Ascending(), [(), (1,), (1, 2, 5)], [(2, 1), (1, 1)]),
        (ranges.Ascending(equal=True), [(0.5, 0.5), (0.1, 1.0)], [(1.0, 0.5)]),
        (ranges.Multiple(6, plus=2), [8, 20, 110], [9, 18]),
        (ranges.Regular(), [".*/kernel", ""], ["(", "[", "*"]),
    ],
)
def test_other_constraints(constraint, right, wrong):
    assert [constraint.fault(value) for value in right] == [None] * len(right)
    assert all(isinstance(constraint.fault(value), str) for value in wrong)


NOTATION = re.compile(r"[\[(]-?[\d.]+, (?:-?[\d.^]+|inf)[\])]")


@pytest.mark.parametrize("kind", explain.dataclasses_in(config.Run), ids=lambda kind: kind.__name__)
def test_no_range_is_written_by_hand(kind):
    """The docstring ends with what the fields take, from their types; nothing before it can disagree."""
    by_hand, _, written = inspect.getdoc(kind).rpartition("Fields:\n")
    assert by_hand
    assert not NOTATION.search(by_hand)
    assert [line.split(":")[0].strip() for line in written.splitlines()] == [
        field.name for field in dataclasses.fields(kind)
    ]
    for line, field in zip(written.splitlines(), dataclasses.fields(kind), strict=True):
        hint = parse.hints(kind)[field.name]
        if typing.get_origin(hint) is typing.Annotated and isinstance(
            hint.__metadata__[0], ranges.In
        ):
            assert hint.__metadata__[0].interval in line


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1e39, "1e+39 is not a finite number in float32"),
        (10**400, "inf is not a finite number"),
        (1 - 1e-10, "0.9999999999 is 1 in float32, which is not in [0, 1)"),
        (1.0, "1.0 is not in [0, 1)"),
    ],
)
def test_numbers_as_a_device_has_them(value, said):
    values = {"name": "sgd", "learning_rate": 0.1, "momentum": value}
    with pytest.raises(BadInput) as error:
        parse.parse(SGD, values, "config.o")
    assert str(error.value) == f"config.o.momentum: {said}"


def test_a_ramp_is_bounded_where_it_begins_and_ends():
    method = {"name": "byol", "momentum": {"begin": 0.9, "end": 1.5}}
    with pytest.raises(BadInput, match=r"^m\.momentum\.end: 1\.5 is not in \[0, 1\]"):
        parse.parse(BYOL, method, "m")
