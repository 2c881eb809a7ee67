import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.report import pareto_front

# Few values, so that ties in one or both coordinates are common.
points = st.lists(
    st.tuples(st.integers(1, 6).map(float), st.integers(0, 6).map(float)), max_size=12
)


@pytest.mark.parametrize(
    ("cost", "gain", "front"),
    [
        ([], [], []),
        ([5.0], [0.1], [0]),
        ([1.0, 2.0, 3.0], [0.5, 0.7, 0.9], [0, 1, 2]),
        ([1.0, 2.0, 3.0], [0.9, 0.7, 0.5], [0]),
        ([30.0, 10.0, 20.0, 25.0], [0.9, 0.5, 0.8, 0.7], [1, 2, 0]),
        ([1.0, 1.0, 2.0], [0.5, 0.6, 0.6], [1]),
        ([1.0, 1.0, 2.0], [0.6, 0.6, 0.7], [0, 1, 2]),
    ],
)
def test_golden(cost, gain, front):
    assert pareto_front(cost, gain) == front


@given(points)
def test_the_front_is_exactly_what_nothing_beats(pairs):
    cost, gain = [p[0] for p in pairs], [p[1] for p in pairs]
    front = pareto_front(cost, gain)

    def is_beaten(i):
        return any(
            cost[j] <= cost[i] and gain[j] >= gain[i] and (cost[j], gain[j]) != (cost[i], gain[i])
            for j in range(len(pairs))
        )

    assert sorted(front) == [i for i in range(len(pairs)) if not is_beaten(i)]
    assert [cost[i] for i in front] == sorted(cost[i] for i in front)
    assert [gain[i] for i in front] == sorted(gain[i] for i in front)
