import json

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from kdjax.train import Diverged, Recorder
from kdjax.train.recorder import read


def opened(folder, *, start=0, stop=100, log_every_steps=1):
    return Recorder(folder, name="r", start=start, stop=stop, log_every_steps=log_every_steps)


def write(recorder, first, losses, **more):
    named = {"loss": losses, **more}
    recorder.write(first, {name: np.asarray(values, np.float32) for name, values in named.items()})


def test_a_line_is_the_mean_of_the_steps_since_the_line_before(tmp_path):
    recorder = opened(tmp_path, log_every_steps=4, stop=10)
    write(recorder, 1, [1, 2], **{"norm/grad": [0.5, 1.5]})
    write(recorder, 3, [3, 6, 9], **{"norm/grad": [1, 1, 8]})
    write(recorder, 6, [1, 1, 1, 5, 7], **{"norm/grad": [0] * 5})
    recorder.close()
    assert read(tmp_path / "metrics.jsonl") == [
        {"step": 4, "loss": 3.0, "norm/grad": 1.0},
        {"step": 8, "loss": 3.0, "norm/grad": 2.0},
        {"step": 10, "loss": 6.0, "norm/grad": 0.0},  # the last step always has one
    ]


def test_each_line_of_the_file_is_one_object(tmp_path):
    recorder = opened(tmp_path)
    write(recorder, 1, [0.25, 0.5])
    recorder.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    assert [json.loads(line) for line in text.splitlines()] == [
        {"step": 1, "loss": 0.25},
        {"step": 2, "loss": 0.5},
    ]
    assert not list(tmp_path.glob("*.tmp"))


def test_nothing_recorded_is_an_empty_file(tmp_path):
    opened(tmp_path).close()
    assert read(tmp_path / "metrics.jsonl") == []
    assert read(tmp_path / "elsewhere.jsonl") == []


def test_a_resumed_run_cuts_back_what_stands_after_its_start(tmp_path):
    recorder = opened(tmp_path)
    write(recorder, 1, [1, 2, 3, 4, 5])
    recorder.close()
    recorder = opened(tmp_path, start=3)
    write(recorder, 4, [40, 50, 60])
    recorder.close()
    lines = read(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in lines] == [1, 2, 3, 40, 50, 60]


def test_tensorboard_has_the_same_numbers(tmp_path):
    recorder = opened(tmp_path, log_every_steps=2, stop=4)
    write(recorder, 1, [1, 2, 3, 4], **{"loss/kd": [0, 2, 4, 6]})
    recorder.close()
    found = {}
    for path in tmp_path.glob("events.out.tfevents.*"):
        for event in events(path.read_bytes()):
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    assert found == {
        ("loss", 2): 1.5,
        ("loss", 4): 3.5,
        ("loss/kd", 2): 1.0,
        ("loss/kd", 4): 5.0,
    }


def events(data):
    """The records of a TFRecord file: length, its checksum, event, its checksum."""
    while data:
        length = int.from_bytes(data[:8], "little")
        yield event_pb2.Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_a_line_is_due_when_a_multiple_has_been_passed(tmp_path):
    recorder = opened(tmp_path, log_every_steps=10)
    assert [recorder.due(step) for step in (1, 9, 10, 11, 25)] == [False, False, True, True, True]
    write(recorder, 1, [1.0] * 12)
    assert [recorder.due(step) for step in (12, 19, 20, 31)] == [False, False, True, True]
    recorder.close()
    resumed = opened(tmp_path, log_every_steps=10, start=20)
    assert [resumed.due(step) for step in (21, 29, 30)] == [False, False, True]
    resumed.close()


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"loss": [1, np.nan], "loss/kd": [1, np.nan]}, "step 12: loss/kd is NaN"),
        ({"loss": [1, np.inf], "norm/grad": [1, np.nan]}, "step 12: loss is infinite"),
        ({"loss": [1, 1], "norm/grad": [-np.inf, 1]}, "step 11: norm/grad is infinite"),
        # The earliest step first, then the term before the total before the norms.
        ({"loss": [1, np.nan], "norm/grad": [np.inf, 1]}, "step 11: norm/grad is infinite"),
        (
            {"norm/grad": [np.nan] * 2, "loss": [np.nan] * 2, "loss/ce": [1, np.inf]},
            "step 11: loss is NaN",
        ),
        (
            {"norm/grad": [np.nan] * 2, "loss": [np.nan] * 2, "loss/ce": [np.inf, 1]},
            "step 11: loss/ce is infinite",
        ),
    ],
)
def test_what_is_not_finite_is_named(tmp_path, metrics, expected):
    recorder = opened(tmp_path)
    with pytest.raises(Diverged, match=expected):
        write(recorder, 11, losses=metrics.pop("loss"), **metrics)
    recorder.close()


def test_what_was_written_before_a_divergence_stays(tmp_path):
    recorder = opened(tmp_path)
    write(recorder, 1, [1, 2])
    with pytest.raises(Diverged, match="step 4"):
        write(recorder, 3, [3, np.nan])
    recorder.close()
    lines = read(tmp_path / "metrics.jsonl")
    assert [line["loss"] for line in lines][:2] == [1, 2]
    assert all(np.isfinite(line["loss"]) for line in lines)
