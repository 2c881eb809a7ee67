import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax.data.feed import chunks
from kdjax.train import (
    Checkpoints,
    Diverged,
    Recorder,
    TrainState,
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
