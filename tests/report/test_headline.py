import dataclasses

import pytest

from kdjax.report import aggregate, wilson
from kdjax.report.headline import headline, within_tolerance
from kdjax.report.rows import gain


def said(rows, parity=(), twins=()):
    return [
        tuple(text.replace("\u00a0", " ") for text in (claim.value, claim.what, claim.detail))
        for claim in headline(rows, parity, twins)
    ]


def test_golden(line):
    assert said(line) == [
        ("98.0 %", "accuracy of the largest model: teacher", "95 % interval 97.0–98.6, 1 seed"),
        (
            "96.8 %",
            "of that accuracy kept by the smallest file: files cnn int8",
            "94.9 %, −3.1 points; 1 seed",
        ),
        ("64×", "fewer parameters than teacher", "1 k instead of 64 k"),
        ("400×", "less arithmetic than teacher", "20 kFLOP instead of 8 MFLOP"),
        (
            "3.0×",
            "smaller file than files cnn fp32 with as many parameters: files cnn int8",
            "1.40 kB instead of 4.20 kB; accuracy −0.2 points",
        ),
        (
            "2.0×",
            "faster than files cnn fp32: files cnn int8",
            "median 0.020 ms (onnxruntime) instead of 0.040 ms (onnxruntime), 1 thread, batch 1",
        ),
        ("80.0 %", "of the prunable weights are gone: pruned", "accuracy 90.0 %"),
    ]


def test_nothing_measured_says_nothing(make_row):
    assert headline([]) == []
    assert headline([make_row(), make_row("teacher")]) == []


def test_one_row(make_row):
    assert said([make_row(accuracy=0.9)]) == [
        ("90.0 %", "accuracy of the largest model: student", "1 seed")
    ]
    claims = said([make_row(accuracy=0.9, bytes_on_disk=2500)])
    assert claims[1] == ("2.50 kB", "on disk", "1 k parameters")


def test_of_equally_small_models_the_better_one_is_meant(make_row):
    rows = [
        make_row("scratch", accuracy=0.8, bytes_on_disk=100),
        make_row("distilled", accuracy=0.9, bytes_on_disk=100),
        make_row("teacher", accuracy=0.95, bytes_on_disk=900),
    ]
    assert said(rows)[1][1].endswith("distilled")


def test_of_models_of_one_size_none_is_the_smallest(make_row):
    rows = [
        make_row("many_labels", accuracy=0.99, bytes_on_disk=1_000_500),
        make_row("few_labels", accuracy=0.6, bytes_on_disk=1_000_000),
    ]
    assert [(value, what.rpartition(" ")[2]) for value, what, _ in said(rows)] == [
        ("99.0 %", "many_labels"),
        ("1.00 MB", "disk"),
    ]


def test_latencies_of_different_settings_are_not_compared(make_row):
    timed = {"latency_ms_p50": 4.0, "threads": 1, "runtime": "r"}
    one = make_row("one", accuracy=0.9, batch=1, **timed)
    many = make_row("many", accuracy=0.8, batch=64, **{**timed, "latency_ms_p50": 1.0})
    assert not any("faster" in what for _, what, _ in said([one, many]))
    same = dataclasses.replace(many, batch=1)
    assert any("faster" in what for _, what, _ in said([one, same]))


def test_zero_accuracy_divides_nothing(make_row):
    rows = [make_row("a", accuracy=0.0, bytes_on_disk=9), make_row("b", accuracy=0.0)]
    assert said(rows)[0][0] == "0.0 %"


def test_a_failed_export_is_a_warning():
    good = {"max_difference": 1e-6, "tolerance": 1e-4}
    bad = {"max_difference": 0.2, "tolerance": 0.1}
    unknown = {"max_difference": 0.2}
    assert [within_tolerance(e) for e in (good, bad, unknown)] == [True, False, None]
    labels = {**unknown, "tolerance": None, "agreement": 0.97}
    assert within_tolerance({**labels, "required_agreement": 0.95}) is True
    assert within_tolerance({**labels, "required_agreement": 0.99}) is False
    assert within_tolerance({**labels, "accuracy_drop": 0.02, "allowed_drop": 0.01}) is False
    assert within_tolerance({**labels, "accuracy_drop": -0.02, "allowed_drop": 0.01}) is True
    (claim,) = headline([], [good, bad, unknown])
    assert claim.value == "1 of 2"
    assert claim.is_warning
    assert claim.detail == "largest difference 0.2"
    (claim,) = headline([], [good])
    assert not claim.is_warning
    assert headline([], [unknown]) == []


def test_of_files_judged_by_their_answers_the_answers_are_said_not_a_difference_of_logits():
    near = {"max_difference": 1e-6, "tolerance": 1e-4, "agreement": 1.0}
    integers = {
        "max_difference": 3.8,
        "agreement": 0.964,
        "accuracy_drop": 0.0,
        "allowed_drop": 0.02,
    }
    (claim,) = headline([], [near, integers])
    assert claim.detail == (
        "largest difference 1e-06; of files that are judged by their answers, at least 96.4\xa0% agree"
    )
    (claim,) = headline([], [integers])
    assert claim.detail == "of files that are judged by their answers, at least 96.4\xa0% agree"


def test_a_network_that_looks_its_answer_up_is_not_so_many_times_less_arithmetic(make_row):
    large = make_row("large", accuracy=0.9, params=2_000_000, flops=2_000_000_000)
    small = make_row("small", accuracy=0.8, params=1_000_000, flops=1_000_000)
    bag = dataclasses.replace(small, flops=800)
    assert any("arithmetic" in what for _, what, _ in said([large, small]))
    assert not any("arithmetic" in what for _, what, _ in said([large, bag]))
    assert any("parameters" in what for _, what, _ in said([large, bag]))


def test_runtimes_are_not_compared_with_one_another(make_row):
    big = make_row("big", accuracy=0.9, runtime="a", latency_ms_p50=4.0, bytes_on_disk=800)
    small = make_row("small", accuracy=0.9, runtime="b", latency_ms_p50=1.0, bytes_on_disk=100)
    assert not any("faster" in what or "as many" in what for _, what, _ in said([big, small]))
    same = dataclasses.replace(small, runtime="a")
    assert sum("faster" in what or "as many" in what for _, what, _ in said([big, same])) == 2


TWINS = [("student", "scratch")]


def _seeds(make_row, stage, accuracies, **more):
    rows = [make_row(stage, accuracy=a, accuracy_ci95=(a - 0.02, a + 0.02)) for a in accuracies]
    return dataclasses.replace(aggregate(rows), **more)


def test_the_first_line_says_what_a_teacher_was_worth_seed_by_seed(make_row):
    rows = [
        _seeds(make_row, "student", [0.91, 0.93, 0.92]),
        _seeds(make_row, "scratch", [0.85, 0.86, 0.84]),
        make_row("teacher", params=4000, accuracy=0.95),
    ]
    first, second, *_ = said(rows, twins=TWINS)
    # Differences 6, 7, 8 points: 7 -+ 4.3027 * 1 / sqrt(3).
    assert first == (
        "+7.0 points",
        "student over the same network trained on the labels alone (scratch)",
        "92.0 % against 85.0 %; 95 % interval +4.5 points to +9.5 points, 3 seeds",
    )
    assert second[1] == "accuracy of the largest model: teacher"
    assert not headline(rows, (), TWINS)[0].is_warning


@pytest.mark.parametrize(
    ("student", "scratch", "what"),
    [
        ([0.848, 0.846, 0.845], [0.872, 0.871, 0.873], "student is worse than the same network"),
        ([0.85, 0.90, 0.80], [0.84, 0.86, 0.85], "no difference that this run can tell"),
        ([0.848], [0.872], "no difference that this run can tell"),  # a test set of few
    ],
)
def test_what_did_not_work_is_said_first_and_as_a_warning(make_row, student, scratch, what):
    rows = [
        _seeds(make_row, "student", student),
        _seeds(make_row, "scratch", scratch),
        make_row("teacher", params=4000, accuracy=0.846),
    ]
    first = headline(rows, (), TWINS)[0]
    assert what in first.what
    assert first.is_warning


def test_one_seed_has_the_interval_of_newcombe(make_row):
    # Table II of the paper, (a): 56/70 against 48/80 is 0.2, 0.0524 to 0.3339.
    rows = [
        make_row(name, accuracy=k / n, accuracy_ci95=wilson(k / n, n))
        for name, k, n in (("student", 56, 70), ("scratch", 48, 80))
    ]
    found = gain(*rows)
    assert found.difference == pytest.approx(0.2)
    assert found.ci95 == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert "+20.0" in said(rows, twins=TWINS)[0][0]


def test_a_pair_that_was_not_measured_is_passed_over(make_row):
    rows = [make_row("scratch", accuracy=0.8), make_row("dkd", accuracy=0.9)]
    assert said(rows, twins=[*TWINS, ("dkd", "scratch")]) == said(rows)


def test_a_checkpoint_is_not_compared_with_a_file(make_row):
    zip_of_zeros = {"runtime": "xla:cpu", "accuracy": 0.9}
    file = {"runtime": "onnxruntime:cpu", "accuracy": 0.9, "bytes_on_disk": 320_000}
    rows = [
        make_row("student", bytes_on_disk=312_000, **zip_of_zeros),
        make_row("pruned", bytes_on_disk=78_000, **zip_of_zeros),
        make_row("student.onnx", **file),
        make_row("pruned.onnx", **file),
    ]
    assert not any("smaller" in what for _, what, _ in said(rows))
    quantized = make_row("int8.onnx", **{**file, "bytes_on_disk": 80_000})
    assert ("4.0×", "smaller file than") in {
        (value, what[:17]) for value, what, _ in said([*rows, quantized])
    }
    larger = make_row("teacher", params=4000, bytes_on_disk=1_400_000, **zip_of_zeros)
    assert not any("smaller on disk" in what for _, what, _ in said([*rows, quantized, larger]))
    its_file = make_row("teacher.onnx", params=4000, **{**file, "bytes_on_disk": 1_600_000})
    claims = {(value, what) for value, what, _ in said([*rows, quantized, larger, its_file])}
    assert ("20×", "smaller on disk than teacher.onnx") in claims


def test_a_student_that_pixels_can_match_is_a_warning(make_row):
    pixels = _seeds(make_row, "pixels/linear", [0.9, 0.92, 0.91], model="pixels", params=0)
    rows = [
        _seeds(make_row, "student", [0.91, 0.93, 0.90]),
        _seeds(make_row, "scratch", [0.85, 0.86, 0.84]),
        pixels,
    ]
    first, second, third, *_ = headline(rows, (), TWINS)
    assert first.what.startswith("student over the same network")
    # Differences 1, 1, -1 points: 1/3 -+ 4.3027 * 2 / sqrt(3) / sqrt(3).
    assert second.is_warning
    assert second.value.replace("\u00a0", " ") == "+0.3 points"
    assert second.what == (
        "student is no better, that this run can tell, than logistic regression on the pixels: look at "
        "the views"
    )
    assert "\u22122.5" in second.detail
    assert "+3.2" in second.detail
    assert third.what == "accuracy of the largest model: student"  # and never the pixels

    def pixels_of(value, each):
        scores = {"accuracy": dataclasses.replace(pixels.score, value=value, per_seed=each)}
        return dataclasses.replace(pixels, scores=scores)

    worse = pixels_of(0.99, (0.99, 0.99, 0.99))
    assert "is worse than" in headline([*rows[:2], worse], (), TWINS)[1].what
    easy = pixels_of(0.65, (0.6, 0.7, 0.65))
    claims = headline([*rows[:2], easy], (), TWINS)
    assert not any("pixels" in claim.what for claim in claims)
