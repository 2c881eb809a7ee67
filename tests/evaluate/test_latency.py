import dataclasses
import gzip
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import kdjax
from kdjax.commands import exits
from kdjax.commands import latency as command
from kdjax.evaluate import Latency, interleaved, latency
from kdjax.export import ONNX, litert_call, onnx_call, write_litert
from kdjax.types import BadInput, Field


def main(arguments):
    """The exit status of `kdjax latency`."""
    try:
        exits.run(lambda: command.main(arguments))
    except SystemExit as stop:
        return stop.code
    return 0


def test_latency_counts_each_call_once_and_no_warmup():
    calls = []
    found = latency(lambda: calls.append(0), warmup=3, repeats=20, min_seconds=0.0)
    assert (found.repeats, found.warmup, len(calls)) == (20, 3, 23)


def test_warmup_is_not_in_the_samples():
    calls = itertools.count()
    # Only the first two calls are slow, as compilation would be; with them the 95th of 20 is not 0.
    found = latency(
        lambda: time.sleep(0.2 if next(calls) < 2 else 0), warmup=2, repeats=20, min_seconds=0.0
    )
    assert next(calls) == 22
    assert found.ms_p95 < 200


def test_units_are_milliseconds_and_percentiles_are_of_all_samples():
    calls = itertools.count()
    # A fifth of the calls is slow: the median is not, the 95th percentile is.
    found = latency(
        lambda: time.sleep(0.02 if next(calls) % 5 == 0 else 0.002),
        warmup=0,
        repeats=20,
        min_seconds=0.0,
    )
    assert 2 <= found.ms_p50 < found.ms_p95
    assert found.ms_p95 >= 20


class _Later:
    """A result that is ready only some time after the call returned."""

    def __init__(self, seconds):
        self.seconds = seconds

    def block_until_ready(self):
        time.sleep(self.seconds)
        return self


def test_a_sample_waits_for_the_result_wherever_it_is():
    found = latency(lambda: {"out": [_Later(0.005)]}, warmup=0, repeats=5, min_seconds=0.0)
    assert found.ms_p50 >= 5


def test_results_of_jax_and_of_others_can_be_timed():
    double = jax.jit(lambda x: 2 * x)
    for call in (lambda: double(jnp.ones(3)), lambda: [np.ones(3)], lambda: None):
        assert latency(call, warmup=1, repeats=5, min_seconds=0.0).ms_p50 > 0


def test_a_slow_call_ends_with_five_samples_and_one_warmup():
    found = latency(
        lambda: time.sleep(0.02), warmup=50, repeats=1000, min_seconds=0.0, max_seconds=0.01
    )
    assert (found.repeats, found.warmup) == (5, 1)


def test_the_cap_lies_between_five_samples_and_all():
    found = latency(
        lambda: time.sleep(0.005), warmup=0, repeats=10_000, min_seconds=0.0, max_seconds=0.1
    )
    assert 5 <= found.repeats <= 20


def test_fewer_repeats_than_five_are_honoured():
    assert latency(lambda: None, repeats=2, min_seconds=0.0, max_seconds=0.0).repeats == 2


def test_whole_seconds_may_be_integers():
    assert latency(lambda: None, repeats=2, min_seconds=0, max_seconds=2).repeats == 2


def test_a_fast_call_is_sampled_for_min_seconds():
    start = time.perf_counter()
    found = latency(lambda: time.sleep(0.001), warmup=0, repeats=1, min_seconds=0.05)
    assert time.perf_counter() - start >= 0.05
    assert found.repeats > 1


def test_interleaved_takes_turns_in_order():
    turns = []
    calls = {name: lambda name=name: turns.append(name) for name in "bac"}
    found = interleaved(calls, warmup=2, repeats=3, min_seconds=0.0)
    assert "".join(turns) == "bac" * 5
    assert list(found) == ["b", "a", "c"]
    assert {(timed.repeats, timed.warmup) for timed in found.values()} == {(3, 2)}


def test_interleaved_keeps_calls_apart():
    found = interleaved(
        {"slow": lambda: time.sleep(0.01), "fast": lambda: None}, repeats=5, min_seconds=0.0
    )
    assert found["slow"].ms_p50 >= 10
    assert found["fast"].ms_p50 < found["slow"].ms_p50


@pytest.mark.parametrize(
    "numbers",
    [
        {"warmup": -1},
        {"repeats": 0},
        {"min_seconds": -1.0},
        {"min_seconds": 2.0, "max_seconds": 1.0},
        {"max_seconds": float("nan")},
    ],
)
def test_numbers_out_of_range_are_refused(numbers):
    with pytest.raises(ValueError, match="need"):
        latency(lambda: None, **numbers)


def test_no_calls_are_refused():
    with pytest.raises(ValueError, match="no calls"):
        interleaved({})


def test_an_error_of_the_call_comes_through():
    with pytest.raises(ZeroDivisionError):
        latency(lambda: 1 / 0)


def _save(path: Path, inputs: dict[str, tuple[int, list]]) -> Path:
    """A model that returns the shape of each of its inputs, whatever their types are."""
    nodes = [helper.make_node("Shape", [name], [f"{name}_shape"]) for name in inputs]
    graph = helper.make_graph(
        nodes,
        "shapes",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [
            helper.make_tensor_value_info(f"{n}_shape", TensorProto.INT64, [len(shape)])
            for n, (_, shape) in inputs.items()
        ],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


@pytest.fixture
def image_model(tmp_path):
    return _save(tmp_path / "image.onnx", {"image": (TensorProto.FLOAT, ["N", 4, 4, 3])})


def test_onnx_call_gives_open_first_dimensions_the_batch(tmp_path):
    path = _save(
        tmp_path / "many.onnx",
        {
            "image": (TensorProto.UINT8, ["N", 4, 4, 3]),
            "token": (TensorProto.INT64, ["N", 7]),
            "unnamed": (TensorProto.FLOAT, [None, 2]),
            "kept": (TensorProto.BOOL, [2, 5]),
            "half": (TensorProto.FLOAT16, ["N"]),
            "scale": (TensorProto.DOUBLE, []),
        },
    )
    shapes = [shape.tolist() for shape in onnx_call(path, threads=1, batch=3)()]
    assert shapes == [[3, 4, 4, 3], [3, 7], [3, 2], [2, 5], [3], []]


@pytest.mark.parametrize(
    ("kind", "is_varied"),
    [
        (TensorProto.FLOAT, True),
        (TensorProto.DOUBLE, True),
        (TensorProto.UINT8, True),
        (TensorProto.INT8, False),
        (TensorProto.INT32, False),
        (TensorProto.INT64, False),
    ],
)
def test_onnx_call_makes_up_values_that_are_valid(tmp_path, kind, is_varied):
    path = tmp_path / "same.onnx"
    value = [helper.make_tensor_value_info(name, kind, ["N", 50]) for name in ("x", "y")]
    same = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([same], "same", value[:1], value[1:])
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    call = onnx_call(path, threads=1, batch=2)
    (found,) = call()
    assert bool(found.std() > 0) == is_varied
    assert found.any() == is_varied  # integers that index something are 0
    np.testing.assert_array_equal(call()[0], found)  # always the same ones
    np.testing.assert_array_equal(onnx_call(path, threads=1, batch=2)()[0], found)


def test_onnx_call_can_be_timed(image_model):
    found = latency(onnx_call(image_model, threads=1, batch=1), repeats=5, min_seconds=0.0)
    assert isinstance(found, Latency)
    assert found.ms_p50 > 0


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_onnx_call_has_the_threads_asked_for(image_model):
    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir()))
    call = onnx_call(image_model, threads=4, batch=1)
    assert len(list(tasks.iterdir())) == before + 3  # the caller is the fourth
    call()


def test_a_model_of_fixed_batch_runs_only_at_it(tmp_path):
    path = _save(tmp_path / "fixed.onnx", {"image": (TensorProto.FLOAT, [8, 3])})
    assert onnx_call(path, threads=1, batch=8)()[0].tolist() == [8, 3]
    with pytest.raises(BadInput, match="'image' has its batch fixed: use --batch=8"):
        onnx_call(path, threads=1, batch=1)


@pytest.mark.parametrize("name", ["threads", "batch"])
def test_onnx_call_refuses_none_of_either(image_model, name):
    with pytest.raises(BadInput, match=f"{name}: must be at least 1, not 0"):
        onnx_call(image_model, **({"threads": 1, "batch": 1} | {name: 0}))


QUICK = ["--repeats=5", "--max_seconds=0.05"]


def test_command_prints_one_line_of_json(image_model, capsys):
    assert main([str(image_model), "--batch=4", "--threads=2", *QUICK]) == 0
    out, err = capsys.readouterr()
    assert (out.count("\n"), err) == (1, "")
    line = json.loads(out)
    p50, p95 = line.pop("latency_ms_p50"), line.pop("latency_ms_p95")
    assert 0 < p50 <= p95
    assert all(len(str(ms).replace(".", "").strip("0")) <= 4 for ms in (p50, p95))
    assert line.pop("repeats") >= 5
    assert line.pop("peak_memory_bytes") > 0
    assert line == {
        "warmup": 10,
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "threads": 2,
        "batch": 4,
        "file_bytes": image_model.stat().st_size,
        "gzip_bytes": len(gzip.compress(image_model.read_bytes(), mtime=0)),
    }


def _broken(tmp_path: Path) -> Path:
    """A valid model that no made-up input can run: it gathers row 9 of its two."""
    path = tmp_path / "broken.onnx"
    graph = helper.make_graph(
        [helper.make_node("Gather", ["x", "row"], ["y"])],
        "broken",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("row", TensorProto.INT64, [1], [9])],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def _text(tmp_path: Path) -> Path:
    path = tmp_path / "text.onnx"
    path.write_text("not a model")
    return path


def _empty(tmp_path: Path) -> Path:
    path = tmp_path / "empty.onnx"
    path.write_bytes(b"")
    return path


def _cut(tmp_path: Path) -> Path:
    path = _save(tmp_path / "cut.onnx", {"image": (TensorProto.FLOAT, ["N", 4])})
    path.write_bytes(path.read_bytes()[:-20])
    return path


@pytest.mark.parametrize(
    ("make", "flags", "expected"),
    [
        (lambda d: d / "none.onnx", [], ["none.onnx", "no such file"]),
        (lambda d: d, [], ["no such file"]),
        (_text, [], ["text.onnx", "not a model"]),
        (_empty, [], ["empty.onnx", "not a model"]),
        (_cut, [], ["cut.onnx", "not a model"]),
        (_broken, [], ["broken.onnx", "does not run"]),
        (
            lambda d: _save(d / "open.onnx", {"image": (TensorProto.FLOAT, ["N", "height", 3])}),
            [],
            ["'image'", "dimension 1 ('height')", "fixed size"],
        ),
        (
            lambda d: _save(d / "open.onnx", {"image": (TensorProto.FLOAT, ["N", 3, None])}),
            [],
            ["'image'", "dimension 2 open", "fixed size"],
        ),
        (
            lambda d: _save(d / "words.onnx", {"word": (TensorProto.STRING, ["N"])}),
            [],
            ["'word'", "tensor(string)", "only numbers"],
        ),
        (
            lambda d: _save(d / "fixed.onnx", {"image": (TensorProto.FLOAT, [1, 3])}),
            ["--batch=2"],
            ["--batch=1"],
        ),
        (_text, ["--batch=0"], ["batch", "at least 1"]),
        (_text, ["--threads=-1"], ["threads", "at least 1"]),
        (_text, ["--batch=many"], ["--batch", "'many'"]),
        (_text, ["--repeats=0"], ["--repeats", "at least 1"]),
        (_text, ["--max_seconds=nan"], ["--max_seconds"]),
        (_text, ["--wrong"], ["--wrong", "--help"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, capfd, make, flags, expected):
    assert main([str(make(tmp_path)), *flags]) == 2
    out, err = capfd.readouterr()  # of the file descriptors: onnxruntime logs past Python
    assert out == ""
    assert err.count("\n") == 1
    for part in expected:
        assert part in err


def test_no_model_is_one_line(capsys):
    assert main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_onnxruntime_the_extra_is_named(image_model, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # how Python marks a module as absent
    assert main([str(image_model)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert 'pip install "kdjax[export]"' in err


@pytest.fixture(scope="module")
def litert_model(tmp_path_factory):
    pytest.importorskip("litert_converter", reason="needs the extra: pip install 'kdjax[litert]'")
    pytest.importorskip("ai_edge_litert", reason="needs the extra: pip install 'kdjax[litert]'")
    path = tmp_path_factory.mktemp("litert") / "model.tflite"
    weights = np.random.default_rng(0).normal(size=(48, 1000)).astype(np.float32)
    write_litert(
        lambda image: image.reshape(1, 48).astype(jnp.float32) @ weights,
        path,
        inputs={"image": Field((4, 4, 3), "uint8")},
    )
    return path


def test_a_litert_file_is_run_and_timed(litert_model, capsys):
    (logits,) = litert_call(litert_model, threads=1, batch=1)()
    assert (logits.shape, logits.dtype) == ((1, 1000), np.float32)
    assert np.abs(logits).max() > 100  # of random bytes, not of zeros
    assert main([str(litert_model), *QUICK]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["runtime"].startswith("ai-edge-litert ")
    assert (line["batch"], line["file_bytes"]) == (1, litert_model.stat().st_size)
    assert line["peak_memory_bytes"] > 48 * 1000 * 4


def test_what_litert_cannot_run_is_one_line(litert_model, tmp_path, capfd, monkeypatch):
    wrong = tmp_path / "wrong.tflite"
    wrong.write_text("not a model")
    for path, flags, expected in [
        (litert_model, ["--batch=2"], "'serving_default_image' has its batch fixed: use --batch=1"),
        (wrong, [], "not a model LiteRT can load"),
        (tmp_path / "none.tflite", [], "no such file"),
        (litert_model, ["--threads=0"], "threads: must be at least 1"),
    ]:
        assert main([str(path), *flags]) == 2
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert expected in err
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.delitem(sys.modules, "ai_edge_litert.interpreter", raising=False)
    assert main([str(litert_model)]) == 2
    assert 'pip install "kdjax[litert]"' in capfd.readouterr().err


def _dense(path, size, batch=1):
    weights = np.ones((size, size), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", size])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="only Linux says it")
def test_peak_memory_grows_with_the_weights_and_with_the_batch(tmp_path):
    small, large = _dense(tmp_path / "small.onnx", 64), _dense(tmp_path / "large.onnx", 3000)
    little = ONNX().memory(small, threads=1, batch=1)
    # The weights at least once, however the runtime packs them.
    assert ONNX().memory(large, threads=1, batch=1) > little + 3000 * 3000 * 4
    many = ONNX().memory(small, threads=1, batch=100_000)
    assert many > little + 2 * 100_000 * 64 * 4  # what goes in and what comes out
    assert ONNX().memory(tmp_path / "none.onnx", threads=1, batch=1) is None


def test_the_command_runs_without_a_warning(image_model):
    root = Path(kdjax.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "kdjax.main", "latency", str(image_model), *QUICK],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["batch"] == 1


def test_latency_is_plain_data():
    found = latency(lambda: None, repeats=2, min_seconds=0.0)
    assert json.loads(json.dumps(dataclasses.asdict(found))) == dataclasses.asdict(found)
