import pytest

from kdjax.report import Row, Score


@pytest.fixture(scope="session")
def make_row():
    """A row in which only what the test is about has to be said.

    `accuracy`, `accuracy_ci95` and `accuracy_per_seed` are of its first score, `recall_macro` and
    `f1_macro` of the others.
    """

    def make(stage="student", **changes):
        ci95, each = (changes.pop(f"accuracy_{name}", None) for name in ("ci95", "per_seed"))
        scores = {}
        if (accuracy := changes.pop("accuracy", None)) is not None:
            scores["accuracy"] = Score(accuracy, ci95, each)
        for name in ("recall_macro", "f1_macro"):
            if (value := changes.pop(name, None)) is not None:
                scores[name] = Score(value)
        fields = {
            "model": "cnn",
            "params": 1000,
            "nonzero_params": 1000,
            "bytes_on_disk": None,
            "flops": None,
            "scores": scores,
            "primary": "accuracy" if "accuracy" in scores else None,
            "seeds": 1,
            "latency_ms_p50": None,
            "latency_ms_p95": None,
            "runtime": None,
            "threads": None,
            "batch": None,
        }
        return Row(stage=stage, **{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def line(make_row):
    """A small pipeline: a teacher, two students and two files of one of them."""
    timed = {"threads": 1, "batch": 1}
    return [
        make_row(
            "teacher",
            model="resnet",
            params=64_000,
            nonzero_params=64_000,
            bytes_on_disk=256_000,
            flops=8_000_000,
            accuracy=0.98,
            recall_macro=0.979,
            f1_macro=0.978,
            accuracy_ci95=(0.97, 0.986),
        ),
        make_row("pruned", accuracy=0.9, sparsity=0.8, nonzero_params=200, bytes_on_disk=4100),
        make_row("cached", notes="no model of its own"),
        make_row(
            "files",
            model="cnn fp32",
            bytes_on_disk=4200,
            flops=20_000,
            accuracy=0.951,
            accuracy_ci95=(0.94, 0.96),
            accuracy_per_seed=(0.95, 0.952),
            seeds=2,
            latency_ms_p50=0.04,
            latency_ms_p95=0.05,
            runtime="onnxruntime",
            **timed,
        ),
        make_row(
            "files",
            model="cnn int8",
            bytes_on_disk=1400,
            flops=20_000,
            accuracy=0.949,
            latency_ms_p50=0.02,
            latency_ms_p95=0.03,
            runtime="onnxruntime",
            **timed,
        ),
    ]
