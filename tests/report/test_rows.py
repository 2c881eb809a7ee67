import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize

from kdjax.report import Row, Score, aggregate, labels, ratio_interval, wilson

CONTRACT = [
    "stage",
    "model",
    "params",
    "nonzero_params",
    "bytes_on_disk",
    "flops",
    "scores",
    "primary",
    "seeds",
    "latency_ms_p50",
    "latency_ms_p95",
    "runtime",
    "threads",
    "batch",
]
fractions = st.floats(0, 1)


def test_fields_come_in_the_order_of_the_contract():
    names = [field.name for field in dataclasses.fields(Row)]
    assert names[: len(CONTRACT)] == CONTRACT
    assert names[len(CONTRACT) :] == [
        "sparsity",
        "notes",
        "gzip_bytes",
        "peak_memory_bytes",
        "bulk_ms_p50",
        "bulk_ms_p95",
        "bulk_batch",
        "seconds",
        "real_time_factor",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"accuracy": 97.1},
        {"accuracy": math.nan},
        {"recall_macro": -0.1},
        {"f1_macro": 1.01},
        {"sparsity": 80.0},
        {"accuracy": 0.9, "accuracy_ci95": (0.9, 1.2)},
        {"accuracy": 0.9, "accuracy_per_seed": (0.9, math.nan)},
        {"scores": {"rmse": Score(math.nan, fraction=False)}},
        {"scores": {"wer": Score(-0.1, higher_is_better=False)}},
        {"scores": {"wer": Score(math.inf, higher_is_better=False)}},
        {"primary": "rmse"},
        {"bytes_on_disk": -1},
        {"latency_ms_p50": math.inf},
        {"latency_ms_p95": math.nan},
        {"peak_memory_bytes": -1},
        {"bulk_ms_p50": math.nan},
        {"real_time_factor": -0.1},
        {"seconds": math.nan},
    ],
)
def test_a_row_refuses_what_cannot_be_measured(make_row, wrong):
    with pytest.raises(ValueError, match=rf"Row\.(scores\.)?{next(iter(wrong))}"):
        make_row(**wrong)


def test_an_error_may_be_any_number(make_row):
    row = make_row(scores={"rmse": Score(12.5, higher_is_better=False, fraction=False)})
    assert row.scores["rmse"].worth == -12.5


@pytest.mark.parametrize(("fraction", "n"), [(0.5, 10), (0.9, 360), (0.971, 898), (0.01, 50)])
def test_wilson_golden(fraction, n):
    # The ends are where a z test of the fraction is just accepted: a root, not the closed formula.
    z = 1.959963984540054

    def rejected(p):
        return abs(fraction - p) - z * math.sqrt(p * (1 - p) / n)

    low = optimize.brentq(rejected, 1e-12, fraction, xtol=1e-14)
    high = optimize.brentq(rejected, fraction, 1 - 1e-12, xtol=1e-14)
    np.testing.assert_allclose(wilson(fraction, n), (low, high), atol=1e-10)


@given(fractions, st.integers(1, 10**7))
def test_wilson_law(fraction, n):
    low, high = wilson(fraction, n)
    assert 0 <= low <= fraction <= high <= 1
    assert high > low
    mirrored = wilson(1 - fraction, n)
    np.testing.assert_allclose(mirrored, (1 - high, 1 - low), atol=1e-9)
    wider = wilson(fraction, max(1, n // 4))
    assert wider[1] - wider[0] >= high - low


def test_an_error_rate_may_be_above_one(make_row):
    """More words may be inserted than were said."""
    rows = [
        make_row(scores={"wer": Score(value, higher_is_better=False)}, primary="wer")
        for value in (1.2, 1.6, 0.4)
    ]
    assert rows[0].score.limits == (0.0, math.inf)
    score = aggregate(rows).score
    np.testing.assert_allclose(score.value, 3.2 / 3)
    half = 4.302652729696144 * np.std([1.2, 1.6, 0.4], ddof=1) / math.sqrt(3)
    np.testing.assert_allclose(score.ci95, (0.0, 3.2 / 3 + half))  # and not below zero
    assert Score(0.5).limits == (0.0, 1.0)
    assert Score(0.5, fraction=False).limits == (-math.inf, math.inf)


def test_the_interval_of_a_ratio_that_is_no_fraction():
    errors, of = np.asarray([3, 1, 0, 4]), np.asarray([2, 1, 2, 1])
    ratio = errors.sum() / of.sum()
    apart = errors - ratio * of
    half = 3.182446305284263 * np.sqrt(apart.var(ddof=1) / 4) / of.mean()
    np.testing.assert_allclose(
        ratio_interval(errors, of, most=math.inf), (max(0, ratio - half), ratio + half), rtol=1e-9
    )
    assert ratio_interval(2 * of, of, most=math.inf) is None  # all alike: nothing is known of it
    assert ratio_interval(of, of) == ratio_interval(of, of, most=math.inf) == wilson(1.0, 4)


@pytest.mark.parametrize(("fraction", "n"), [(1.1, 10), (-0.1, 10), (math.nan, 10), (0.5, 0)])
def test_wilson_refuses(fraction, n):
    with pytest.raises(ValueError, match=r"fraction|n is"):
        wilson(fraction, n)


def quantile_of_student_t(probability, freedom):
    """By integrating the density and inverting; nothing of scipy.stats."""
    scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))

    def tail(x):
        density = lambda u: scale * (1 + u * u / freedom) ** (-(freedom + 1) / 2)  # noqa: E731
        return 0.5 + integrate.quad(density, 0, x, epsabs=1e-12)[0] - probability

    return optimize.brentq(tail, 0, 100, xtol=1e-12)


@pytest.mark.parametrize(
    "accuracies", [(0.9, 0.92), (0.95, 0.96, 0.955), (0.81, 0.83, 0.80, 0.82, 0.85)]
)
def test_interval_over_seeds_golden(make_row, accuracies):
    values = np.array(accuracies, np.float64)
    n = len(values)
    mean = values.sum() / n
    deviation = math.sqrt(((values - mean) ** 2).sum() / (n - 1))
    half = quantile_of_student_t(0.975, n - 1) * deviation / math.sqrt(n)

    row = aggregate([make_row(accuracy=float(a)) for a in values])

    assert row.seeds == n
    assert row.score.per_seed == accuracies
    np.testing.assert_allclose(row.score.value, mean, atol=1e-15)
    expected = max(0, mean - half), min(1, mean + half)
    np.testing.assert_allclose(row.score.ci95, expected, atol=1e-9)


def test_aggregate_golden(make_row):
    timed = {"runtime": "onnxruntime", "threads": 2, "batch": 8}

    def bulk(ms):
        return {"bulk_ms_p50": ms, "bulk_ms_p95": 2 * ms, "bulk_batch": 64, "gzip_bytes": int(ms)}

    rows = [make_row(nonzero_params=200, bytes_on_disk=100, flops=50) for _ in range(3)]
    recall, f1 = Score(0.5), Score(0.4)
    changes = [
        {
            "scores": {"recall_macro": recall, "f1_macro": f1},
            "bytes_on_disk": 104,
            "nonzero_params": 203,
            "latency_ms_p50": 1.0,
            **timed,
            **bulk(7.0),
        },
        {
            "scores": {"recall_macro": recall, "f1_macro": f1},
            "sparsity": 0.8,
            "latency_ms_p50": 9.0,
            "latency_ms_p95": 10.0,
            **timed,
            **bulk(8.0),
            "notes": "b",
        },
        {
            "scores": {"recall_macro": Score(0.8)},
            "latency_ms_p50": 2.0,
            **timed,
            **bulk(12.0),
            "notes": "b",
        },
    ]
    row = aggregate([dataclasses.replace(r, **c) for r, c in zip(rows, changes, strict=True)])
    (name,) = row.scores
    assert name == "recall_macro"  # which every seed has
    assert row.scores[name].value == pytest.approx(0.6)
    assert row.scores[name].per_seed == (0.5, 0.5, 0.8)
    assert row == make_row(
        nonzero_params=201,
        bytes_on_disk=101,
        flops=50,
        scores=row.scores,
        seeds=3,
        latency_ms_p50=2.0,  # the median, not the mean of 4.0
        latency_ms_p95=10.0,  # of the one seed that has it
        notes="b",
        gzip_bytes=9,
        bulk_ms_p50=8.0,
        bulk_ms_p95=16.0,
        bulk_batch=64,
        **timed,
    )
    with pytest.raises(ValueError, match="bulk_batch"):
        aggregate([make_row(bulk_batch=32), make_row(bulk_batch=64)])


@given(st.lists(fractions, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_aggregate_laws(make_row, accuracies, random):
    rows = [make_row(accuracy=a, latency_ms_p50=1 + a) for a in accuracies]
    row = aggregate(rows)
    low, high = row.score.ci95
    assert 0 <= low <= row.score.value <= high <= 1
    assert min(accuracies) - 1e-12 <= row.score.value <= max(accuracies) + 1e-12
    if len(set(accuracies)) == 1:
        np.testing.assert_allclose((low, high), row.score.value, atol=1e-12)

    shuffled = random.sample(rows, len(rows))
    again = aggregate(shuffled)
    same = dataclasses.replace(again.score, per_seed=row.score.per_seed)
    assert dataclasses.replace(again, scores={"accuracy": same}) == row


def test_one_seed_keeps_its_own_interval(make_row):
    row = make_row(accuracy=0.9, accuracy_ci95=wilson(0.9, 100))
    assert aggregate([row]) == row


def test_an_accuracy_that_one_seed_lacks_is_not_made_up(make_row):
    row = aggregate([make_row(accuracy=0.9), make_row()])
    assert row.score is None
    assert row.scores == {}


def test_aggregate_refuses(make_row):
    with pytest.raises(ValueError, match="at least one"):
        aggregate([])
    with pytest.raises(ValueError, match="different model"):
        aggregate([make_row(), make_row(model="mlp")])
    with pytest.raises(ValueError, match="different batch"):
        aggregate([make_row(batch=1), make_row(batch=8)])
    with pytest.raises(ValueError, match="one seed"):
        aggregate([make_row(), make_row(seeds=2)])


def test_labels_are_short_and_unique(make_row):
    rows = [
        make_row("teacher"),
        make_row("export", model="fp32"),
        make_row("export", model="int8", runtime="onnxruntime"),
        make_row("export", model="int8", runtime="litert", batch=1),
        make_row("export", model="int8", runtime="litert", batch=8),
        make_row("twin"),
        make_row("twin"),
    ]
    found = labels(rows)
    assert found[:3] == ["teacher", "export fp32", "export int8 onnxruntime"]
    assert found[3:5] == ["export int8 litert batch 1", "export int8 litert batch 8"]
    assert len(set(found)) == len(rows)


names = st.sampled_from(["a", "b", "a b", "a b c", "", "#1"])


@given(st.lists(st.tuples(names, names, st.none() | names), max_size=8))
def test_labels_law(make_row, parts):
    rows = [make_row(stage, model=model, runtime=runtime) for stage, model, runtime in parts]
    assert len(labels(rows)) == len(rows)
    if len({row.stage for row in rows}) == len(rows):
        assert labels(rows) == [row.stage for row in rows]
