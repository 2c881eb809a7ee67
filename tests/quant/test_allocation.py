import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from kdjax.quant import allocate
from kdjax.types import BadInput

HURTS = {"a": {"float": 0.0, "int8": 0.1, "int4": 3.0}, "b": {"float": 0.0, "int8": 0.2}}
COSTS = {"a": {"float": 40.0, "int8": 10.0, "int4": 5.0}, "b": {"float": 400.0, "int8": 100.0}}


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (440, {"a": "float", "b": "float"}),
        (439, {"a": "int8", "b": "float"}),
        (140, {"a": "float", "b": "int8"}),
        (139, {"a": "int8", "b": "int8"}),
        (105, {"a": "int4", "b": "int8"}),
    ],
)
def test_by_hand(budget, expected):
    assert allocate(HURTS, COSTS, budget=budget) == expected


def test_what_cannot_be_met_says_what_could():
    with pytest.raises(BadInput, match=r"budget: 104 cannot be met; .* cost 105$"):
        allocate(HURTS, COSTS, budget=104)


def test_what_hurts_nothing_is_cheap_and_noise_is_no_gain():
    hurts = {"a": {"float": 0.0, "int8": 0.0, "int4": -0.1}, "b": {"float": 0.0, "int8": -0.2}}
    assert allocate(hurts, COSTS, budget=1e9) == {"a": "int4", "b": "int8"}


_numbers = st.floats(0, 10)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.lists(st.tuples(_numbers, _numbers), min_size=1, max_size=3), min_size=1, max_size=4
    ),
    st.floats(0, 1),
)
def test_it_is_the_best_of_all(table, share):
    hurts = {str(i): {str(j): h for j, (h, _) in enumerate(row)} for i, row in enumerate(table)}
    costs = {str(i): {str(j): c for j, (_, c) in enumerate(row)} for i, row in enumerate(table)}
    least = sum(min(row.values()) for row in costs.values())
    budget = least + share * (sum(max(row.values()) for row in costs.values()) - least) + 1e-3
    found = allocate(hurts, costs, budget=budget)
    assert sum(costs[layer][choice] for layer, choice in found.items()) <= budget * (1 + 1e-6)
    every = [
        sum(hurts[layer][choice] for layer, choice in zip(hurts, chosen, strict=True))
        for chosen in itertools.product(*hurts.values())
        if sum(costs[layer][choice] for layer, choice in zip(hurts, chosen, strict=True)) <= budget
    ]
    hurt = sum(hurts[layer][choice] for layer, choice in found.items())
    scale = sum(h for row in hurts.values() for h in row.values())
    assert hurt <= min(every) + 1e-5 * max(scale, 1e-30)
