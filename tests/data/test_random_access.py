"""A dataset of whatever gives one example after the other."""

import numpy as np
import pytest

from kdjax import data
from kdjax.types import BadInput, Field


def examples():
    random = np.random.default_rng(0)
    return [
        {
            "tokens": random.integers(0, 9, 4),
            "heat": random.normal(size=3),
            "shift": random.integers(-3, 3, 2),
            "image": random.integers(0, 200, (2, 2, 1), np.uint8),
            "label": i % 2,
        }
        for i in range(7)
    ]


INPUTS = ["tokens", "heat", "shift", "image"]


def of(source, **more):
    return data.from_source(source, inputs=INPUTS, classes=2, name="mine", **more)


def test_it_is_that_of_the_same_arrays():
    source = examples()
    stacked = {name: np.stack([one[name] for one in source]) for name in INPUTS}
    expected = data.from_fields(stacked, [one["label"] for one in source], classes=2)
    found = of(source)
    assert found.fields == expected.fields
    assert found.fields["tokens"] == Field((4,), "int32", int(stacked["tokens"].max()) + 1)
    rows = np.array([5, 0, 5])
    for name, array in found.read(rows).items():
        np.testing.assert_array_equal(array, expected.read(rows)[name], strict=True)
    assert of(source, below={"tokens": 50}).fields["tokens"].below == 50


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        (
            "tokens",
            np.array([0, 1, 2, 2**31]),
            "tokens of example 3 of mine go from 0 to 2147483648",
        ),
        ("heat", np.array([0.0, np.inf, 1.0]), "heat of example 3 of mine are not all finite"),
        (
            "heat",
            np.zeros(4),
            "heat of example 3 of mine is float64.4., of the first one float64.3.",
        ),
    ],
)
def test_each_example_is_looked_at(field, value, said):
    source = examples()
    source[3][field] = value
    with pytest.raises(BadInput, match=said):
        of(source)


def test_values_are_below_what_is_given():
    with pytest.raises(
        BadInput, match=r"tokens of mine go from 0 to \d, and are to be in \[0, 3\)"
    ):
        of(examples(), below={"tokens": 3})
