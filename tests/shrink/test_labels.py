import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.shrink.labels import Labels

SIZE = 6


def together(labels, vector, other):
    """Which index of one vector falls with which of another."""
    return np.equal.outer(labels.roots(vector), labels.roots(other))


def components(count, pairs):
    """Connected components by plain search: the least member of each."""
    least = list(range(count))
    changed = True
    while changed:
        changed = False
        for a, b in pairs:
            low = min(least[a], least[b])
            changed |= least[a] != low or least[b] != low
            least[a] = least[b] = low
    return np.array(least)


ties = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8)


@settings(max_examples=60, deadline=None)
@given(ties=ties, seed=st.integers(0, 2**16))
def test_ties_are_connected_components(ties, seed):
    random = np.random.default_rng(seed)
    axes, pairs = [], []
    labels = Labels()
    for _ in range(5):
        axes.append(labels.new(SIZE))
    for a, b in ties:
        # Also vectors in which a label comes twice, as a concatenation with itself makes them.
        left, right = (random.integers(0, SIZE, SIZE) for _ in range(2))
        labels.tie((axes[a][left],), (axes[b][right],))
        pairs += [(a * SIZE + i, b * SIZE + j) for i, j in zip(left, right, strict=True)]
    found = labels.roots(np.concatenate(axes))
    expected = components(5 * SIZE, pairs)
    np.testing.assert_array_equal(np.equal.outer(found, found), np.equal.outer(expected, expected))


@settings(max_examples=40, deadline=None)
@given(ties=ties, frozen=st.lists(st.integers(0, 4), max_size=2), order=st.randoms())
def test_the_order_of_ties_does_not_matter(ties, frozen, order):
    """Nor does the order of the operands, nor whether something was frozen before or after."""

    def units(steps):
        labels = Labels()
        axes = [labels.new(SIZE) for _ in range(5)]
        halves = [labels.split(axes[0], 2), labels.split(axes[1], 3)]
        for kind, a, b in steps:
            if kind == "tie":
                labels.tie((axes[a],), (axes[b],))
            else:
                labels.freeze((axes[a],), "no")
        labels.settle()
        every = [*axes, *(part for half in halves for part in half)]
        tied = [u for vector in every for u in labels.units(vector)]
        # The labels are any numbers: what counts is which indices have one in common, and which none.
        first = {}
        return [[first.setdefault(u, len(first)) for u in sorted(of)] == [] for of in tied], [
            [bool(set(a) & set(b)) for b in tied] for a in tied
        ]

    steps = [("tie", a, b) for a, b in ties] + [("freeze", a, a) for a in frozen]
    shuffled = [
        (kind, *((a, b) if order.random() < 0.5 else (b, a)))
        for kind, a, b in order.sample(steps, len(steps))
    ]
    assert units(steps) == units(shuffled)


@settings(max_examples=40, deadline=None)
@given(ties=ties, frozen=st.integers(0, 4))
def test_what_is_frozen_freezes_all_it_is_tied_to(ties, frozen):
    labels = Labels()
    axes = [labels.new(SIZE) for _ in range(5)]
    labels.freeze((axes[frozen],), "the reason")
    for a, b in ties:
        labels.tie((axes[a],), (axes[b],))
    labels.settle()
    joined = components(5, ties)
    for i, axis in enumerate(axes):
        same = joined[i] == joined[frozen]
        assert labels.why(axis) == ("the reason" if same else None)
        assert labels.units(axis) == ([[]] * SIZE if same else [[u] for u in labels.roots(axis)])


def test_the_first_reason_stays():
    labels = Labels()
    axis = labels.new(3)
    labels.freeze((axis,), "first")
    labels.freeze((axis,), "second")
    assert labels.why(axis) == "first"


def test_some_of_an_axis_may_fall():
    labels = Labels()
    axis = labels.new(4)
    labels.freeze((axis[:2],), "no")
    labels.settle()
    assert labels.why(axis) is None
    assert labels.units(axis) == [[], [], [axis[2]], [axis[3]]]


@pytest.mark.parametrize("alike", [True, False])
def test_pieces_lose_what_all_of_them_lose_or_nothing(alike):
    labels = Labels()
    axis = labels.new(4)
    left, right = axis[:2], axis[2:]
    labels.match([(left,), (right,)], "cut at fixed places")
    if alike:  # tied later: it is seen when all is
        labels.tie((left,), (right,))
    labels.settle()
    assert labels.why(axis) == (None if alike else "cut at fixed places")
    assert labels.units(left) == labels.units(right) == ([[u] for u in left] if alike else [[], []])


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_a_split_is_a_product(rows, columns):
    labels = Labels()
    vector = labels.new(rows * columns)
    row, column = labels.split(vector, rows)
    for index, units in enumerate(labels.units(vector)):
        assert units == sorted({row[index // columns], column[index % columns]})


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(2, 4), min_size=1, max_size=3))
def test_factors_survive_a_tie_with_what_is_flat(sizes):
    """`(a, b, c)` against one axis of `a * b * c`, as a flattening meets a dense layer."""
    labels = Labels()
    axes = tuple(labels.new(n) for n in sizes)
    flat = labels.new(int(np.prod(sizes)))
    labels.tie(axes, (flat,))
    found = labels.factors((flat,))
    assert [len(f) for f in found] == sizes
    for factor, axis in zip(found, axes, strict=True):
        assert together(labels, factor, axis).trace() == len(axis)
    places = np.stack(np.unravel_index(np.arange(len(flat)), sizes), -1)
    for place, units in zip(places, labels.units(flat), strict=True):
        assert units == sorted(labels.roots(axis)[i] for axis, i in zip(axes, place, strict=True))


def test_a_part_that_is_frozen_leaves_the_other():
    labels = Labels()
    flat = labels.new(6)
    row, column = labels.split(flat, 2)
    labels.freeze((column,), "no")
    labels.settle()
    assert labels.units(flat) == [[r] for r in np.repeat(row, 3)]
    assert labels.why(flat) is None
    labels.freeze((row,), "neither")
    labels.settle()
    assert labels.units(flat) == [[]] * 6


def test_a_whole_that_is_frozen_freezes_its_parts():
    labels = Labels()
    flat = labels.new(6)
    row, column = labels.split(flat, 2)
    labels.freeze((flat,), "no")
    labels.settle()
    assert labels.why(row) == labels.why(column) == "no"


@pytest.mark.parametrize(("one", "other"), [((2, 3), (3, 2)), ((2, 6), (3, 4))])
def test_splits_that_do_not_fit_freeze_all(one, other):
    labels = Labels()
    axes = [tuple(labels.new(n) for n in sizes) for sizes in (one, other)]
    flat = labels.new(int(np.prod(one)))
    labels.tie(axes[0], (flat,))
    labels.tie((flat,), axes[1])
    labels.settle()
    for vector in (*axes[0], *axes[1], flat):
        assert labels.why(vector) == "two splits of it do not fit together"


def test_splits_that_do_not_fit_met_out_of_order():
    """Indices tied one by one, in an order that neither split can be seen in."""
    labels = Labels()
    one, other = labels.new(6), labels.new(6)
    parts = (*labels.split(one, 2), *labels.split(other, 3))
    order = np.array([0, 3, 1, 4, 2, 5])
    labels.tie((one[order],), (other[order],))
    labels.settle()
    for vector in (*parts, one, other):
        assert labels.why(vector) == "two splits of it do not fit together"


def test_two_splits_that_fit_are_one():
    labels = Labels()
    flat, other = labels.new(6), labels.new(6)
    first, second = labels.split(flat, 2), labels.split(other, 2)
    labels.tie((flat,), (other,))
    for a, b in zip(first, second, strict=True):
        assert together(labels, a, b).trace() == len(a)


def test_splits_at_different_places_are_a_finer_one():
    labels = Labels()
    one, other = (labels.new(2), labels.new(6)), (labels.new(4), labels.new(3))
    flat = labels.new(12)
    labels.tie(one, (flat,))
    labels.tie((flat,), other)
    for axis in (one, other, (flat,)):
        assert [len(f) for f in labels.factors(axis)] == [2, 2, 3]
    labels.settle()
    assert labels.why(flat) is None


def test_length_one_has_no_factors():
    labels = Labels()
    assert labels.axis(1) == ()
    labels.tie((), ())
    assert [len(v) for v in labels.axis(5)] == [5]


def test_more_labels_than_there_was_room_for():
    labels = Labels()
    first = labels.new(1000)
    labels.freeze((first[:1],), "no")
    second = labels.new(5000)
    labels.tie((first,), (second[:1000],))
    labels.settle()
    assert labels.units(second[:1]) == [[]]
    assert labels.units(second[1:2]) == [[first[1]]]
    assert len(np.unique(labels.roots(np.concatenate([first, second])))) == 5000
