import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tensorboardX.proto import event_pb2

from kdjax.data.feed import chunks
from kdjax.train import (
    Checkpoints,
    Diverged,
    Interrupted,
    Recorder,
    TrainState,
    interruption,
    make_run_steps,
    make_train_step,
    train,
)
from kdjax.train.parallel import mapped, single
from kdjax.train.recorder import read

STOP = 23


def values(first, end):
    """What the steps `first` to `end` are fed; small integers, so that float32 is exact."""
    return np.arange(first + 1, end + 1, dtype=np.float32) % 5


def product(params, state, batch, key):
    loss = params["w"] * batch["value"].mean()
    return loss, (state.model_state, {"loss/product": loss})


def ran(
    folder,
    *,
    dispatch_steps=1,
    stop=STOP,
    every=4,
    poison=None,
    way=single,
    handed=None,
    log_every_steps=1,
):
    """Trains from the newest checkpoint of `folder`; the value of step `poison` is not a number."""
    parallel, tx = way(), optax.sgd(1.0)
    step = make_train_step(product, tx, axis_name=parallel.axis_name)
    run_steps = parallel.compile(make_run_steps(lambda resident, feed, key: feed, step))
    checkpoints = Checkpoints(folder / "checkpoints")
    start = TrainState.start({"params": {"w": jnp.float32(100.0)}}, tx)
    state = checkpoints.latest(parallel.replicate(start))

    def feeds():
        for first, end in chunks(int(state.step), stop, dispatch_steps):
            fed = values(first, end)
            if poison is not None and first < poison <= end:
                fed[poison - 1 - first] = np.nan
            if handed is not None:
                handed.append(end)
            yield end, {"value": np.repeat(fed[:, None], 8, axis=1)}

    recorder = Recorder(
        folder,
        name="t",
        start=int(state.step),
        stop=stop,
        log_every_steps=log_every_steps,
        kept=checkpoints.record,
    )
    try:
        state = train(
            state,
            run_steps=run_steps,
            resident={},
            feeds=feeds(),
            key=parallel.replicate(jax.random.key(0)),
            parallel=parallel,
            recorder=recorder,
            checkpoints=checkpoints,
            checkpoint_every_steps=every,
            stop=stop,
        )
    finally:
        recorder.close()
        checkpoints.close()
    return state


def events(folder):
    """`{(tag, step): value}` of all event files, in which nothing stands twice."""
    found = {}
    for path in folder.glob("events.out.tfevents.*"):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                assert (value.tag, event.step) not in found
                found[value.tag, event.step] = value.simple_value
    return found


@functools.cache
def never_stopped(log_every_steps):
    """The bytes of the log, and its events, of a run that nothing stopped."""
    with tempfile.TemporaryDirectory() as folder:
        ran(Path(folder), log_every_steps=log_every_steps)
        return (Path(folder) / "metrics.jsonl").read_bytes(), events(Path(folder))


@pytest.mark.parametrize("log_every_steps", [1, 3, 5, 100])
@pytest.mark.parametrize("flushed", [True, False])
def test_the_log_of_a_killed_run_is_that_of_one_never_killed(tmp_path, log_every_steps, flushed):
    """As a kill leaves it: a checkpoint, and of the log what stood there then, or later lines too."""
    text, scalars = never_stopped(log_every_steps)
    ran(tmp_path, stop=14, every=4, log_every_steps=log_every_steps)
    log = tmp_path / "metrics.jsonl"
    if flushed:
        log.write_text(log.read_text() + '{"step": 14, "lo')
    else:
        kept = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= 12]
        log.write_text("".join(line + "\n" for line in kept))
    ran(tmp_path, every=4, log_every_steps=log_every_steps)
    assert log.read_bytes() == text
    assert events(tmp_path) == scalars


def test_the_log_is_whole_when_an_older_checkpoint_is_taken(tmp_path):
    text, scalars = never_stopped(5)
    ran(tmp_path, stop=14, every=4, log_every_steps=5)
    shutil.rmtree(tmp_path / "checkpoints/12/arrays")
    ran(tmp_path, every=4, log_every_steps=5)
    assert (tmp_path / "metrics.jsonl").read_bytes() == text
    assert events(tmp_path) == scalars


def test_lines_that_are_written_before_a_checkpoint_are_there_when_it_is(tmp_path):
    ran(tmp_path, stop=14, every=4, log_every_steps=1)
    for step in saved(tmp_path):
        record = json.loads((tmp_path / f"checkpoints/{step}/record.json").read_text())
        assert record["record"]["lines"] == step


def test_of_a_damaged_log_the_lines_that_are_none_are_left_out_and_said(tmp_path, capsys):
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(b'{"step": 1, "loss": 2}\n[1]\nhello\n\xff\xfe\n{"loss": 1}\n{"step": 2, "lo')
    assert read(log) == [{"step": 1, "loss": 2}]
    (line,) = capsys.readouterr().err.splitlines()
    assert "not of this log is left out: 5 of its lines, the first is line 2" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("dispatch_steps", [1, 5])
def test_a_signal_stops_after_a_checkpoint_and_nothing_is_lost(
    tmp_path, capfd, number, dispatch_steps
):
    class Hand(list):
        def append(self, end):
            super().append(end)
            if end == 15:
                os.kill(os.getpid(), number)

    how = {"dispatch_steps": dispatch_steps, "every": 1000, "log_every_steps": 3}
    with pytest.raises(Interrupted) as raised, interruption.watched():
        ran(tmp_path, handed=Hand(), **how)
    assert raised.value.code == 128 + number
    (step,) = saved(tmp_path)
    assert 10 <= step <= 15
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"kdjax: {number.name}: stopped at step {step}; its checkpoint is kept")
    state = ran(tmp_path, **how)
    assert float(state.params["w"]) == 100 - values(0, STOP).sum()
    assert (tmp_path / "metrics.jsonl").read_bytes() == never_stopped(3)[0]


SECOND = """
import os, signal, sys, time
from kdjax.train import interruption
with interruption.watched(grace_seconds=float(sys.argv[1])):
    if sys.argv[2] == "hold":
        interruption.hold()
    print("ready", flush=True)
    while True:
        time.sleep(0.1)
"""


@pytest.mark.parametrize(
    ("grace", "hold", "signals", "said"),
    [
        ("60", "hold", 2, "ended at once"),
        ("0.5", "hold", 1, "ended without waiting any longer"),
        ("60", "no", 1, "ended; what is done stays done"),
    ],
)
def test_a_second_signal_or_the_time_limit_ends_at_once(grace, hold, signals, said):
    process = subprocess.Popen(
        [sys.executable, "-c", SECOND, grace, hold], stdout=-1, stderr=-1, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(signals):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 143
    (line,) = error.splitlines()
    assert line.startswith(f"kdjax: SIGTERM: {said}")


def saved(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def expected_losses():
    """Step by step: the loss is `w * value`, whose gradient takes `value` from `w`."""
    before = 100.0 - np.concatenate([[0.0], np.cumsum(values(0, STOP))])[:-1]
    return before * values(0, STOP)


@pytest.mark.parametrize("dispatch_steps", [1, 2, 5, 23, 40])
def test_every_step_is_taken_and_recorded_exactly_once(tmp_path, dispatch_steps):
    state = ran(tmp_path, dispatch_steps=dispatch_steps)
    assert int(state.step) == STOP
    assert float(state.params["w"]) == 100 - values(0, STOP).sum()
    lines = read(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, STOP + 1))
    assert [line["loss"] for line in lines] == expected_losses().tolist()
    assert [line["loss/product"] for line in lines] == expected_losses().tolist()


@pytest.mark.parametrize(
    ("dispatch_steps", "at"), [(1, [4, 8, 12, 16, 20]), (3, [6, 12, 18]), (10, [10, 20])]
)
def test_checkpoints_stand_at_ends_of_feeds_and_never_at_the_last_step(
    tmp_path, dispatch_steps, at
):
    ran(tmp_path, dispatch_steps=dispatch_steps)
    assert saved(tmp_path) == at[-2:]
    assert STOP not in saved(tmp_path)


@pytest.mark.parametrize("dispatch_steps", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("poison", [1, 5, 13])
def test_a_state_that_has_diverged_is_never_saved(tmp_path, dispatch_steps, poison):
    # No line is due before the last step: only the saving itself makes the loop look.
    how = {"dispatch_steps": dispatch_steps, "every": 2, "log_every_steps": 100}
    with pytest.raises(Diverged, match=rf"step {poison}: loss/product is NaN"):
        ran(tmp_path, poison=poison, **how)
    steps = saved(tmp_path)
    assert all(step < poison for step in steps)
    assert bool(steps) == (poison > dispatch_steps + 1)
    # What is left is a run to go on from.
    assert float(ran(tmp_path, **how).params["w"]) == 100 - values(0, STOP).sum()
    (line,) = read(tmp_path / "metrics.jsonl")
    assert line["step"] == STOP
    assert np.isfinite(line["loss"])


@pytest.mark.parametrize("way", [single, mapped])
@pytest.mark.parametrize("dispatch_steps", [1, 5])
def test_a_resumed_run_goes_on_with_the_feed_of_its_step(tmp_path, way, dispatch_steps):
    ran(tmp_path, stop=14, dispatch_steps=dispatch_steps, way=way)
    (*_, newest), handed = saved(tmp_path), []
    state = ran(tmp_path, dispatch_steps=dispatch_steps, way=way, handed=handed)
    assert handed == [end for _, end in chunks(newest, STOP, dispatch_steps)]
    assert float(state.params["w"]) == 100 - values(0, STOP).sum()
    lines = read(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, STOP + 1))
    assert [line["loss"] for line in lines] == expected_losses().tolist()


def test_without_checkpoints_nothing_is_saved(tmp_path):
    parallel, tx = single(), optax.sgd(1.0)
    run_steps = parallel.compile(
        make_run_steps(lambda resident, feed, key: feed, make_train_step(product, tx))
    )
    recorder = Recorder(tmp_path, name="t", start=0, stop=2, log_every_steps=1)
    state = train(
        TrainState.start({"params": {"w": jnp.float32(1.0)}}, tx),
        run_steps=run_steps,
        resident={},
        feeds=((i + 1, {"value": np.ones((1, 1), np.float32)}) for i in range(2)),
        key=jax.random.key(0),
        parallel=parallel,
        recorder=recorder,
        checkpoint_every_steps=1,
        stop=2,
    )
    recorder.close()
    assert (int(state.step), float(state.params["w"])) == (2, -1.0)
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.name[0] == "m") == [".jsonl"]


def test_no_feeds_leave_the_state_as_it_is(tmp_path):
    ran(tmp_path, stop=8, every=1)
    state = ran(tmp_path, stop=7)
    assert int(state.step) == 7
