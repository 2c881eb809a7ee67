"""The loop: feed, step, record, checkpoint. It never waits for the step it has just begun."""

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from kdjax.train import interruption
from kdjax.train.checkpoints import Checkpoints
from kdjax.train.parallel import Parallel, of_all_processes
from kdjax.train.recorder import Recorder
from kdjax.train.state import TrainState
from kdjax.types import PyTree

_IN_FLIGHT = 3
"""Dispatches that may wait on the device: enough to keep it busy, few enough to bound the feeds."""


def train(
    state: TrainState,
    *,
    run_steps: Callable[..., tuple[TrainState, PyTree]],
    resident: PyTree,
    feeds: Iterable[tuple[int, PyTree]],
    key: Key[Array, ""],
    parallel: Parallel,
    recorder: Recorder,
    checkpoints: Checkpoints | None = None,
    checkpoint_every_steps: int,
    stop: int,
) -> TrainState:
    """Trains from `state.step` to the end of `feeds`.

    Args:
      state: where to begin; its buffers are donated.
      run_steps: compiled, `(state, resident, feed, key) -> (state, metrics)`.
      resident: what lives on the devices.
      feeds: `(step after it, host arrays)`, the first at `state.step`.
      key: of the run.
      parallel: how `run_steps` was compiled.
      recorder: takes the metrics of every step.
      checkpoints: where to save, None to save nothing.
      checkpoint_every_steps: distance between checkpoints, at the ends of feeds.
      stop: the last step; nothing is saved there, since the caller keeps the result.

    Raises:
      Diverged: a metric is not finite. No state after that step is saved.
      Interrupted: a signal asked for it, see `kdjax.train.interruption`. The state of that step is
        saved; of several processes all end at the same one, whichever was asked.
      OSError: a checkpoint or the log cannot be written.
    """
    step = saved = int(state.step)
    waiting: collections.deque[PyTree] = collections.deque()
    unrecorded: list[tuple[int, PyTree]] = []

    def record() -> None:
        for first, metrics in jax.device_get(unrecorded):
            recorder.write(first, {name: np.asarray(values) for name, values in metrics.items()})
        unrecorded.clear()

    # Several processes learn of it when the dispatch is done that they were asked in: nobody waits.
    signals: collections.deque[Any] = collections.deque()
    lag = 0 if jax.process_count() == 1 else _IN_FLIGHT
    if lag:
        interruption.hold()

    for end, feed in _ahead(feeds, parallel):
        state, metrics = run_steps(state, resident, feed, key)
        unrecorded.append((step + 1, metrics))
        # From here on there is something to lose; before, it may have been compiled for minutes.
        interruption.hold()
        waiting.append(metrics)
        if len(waiting) > _IN_FLIGHT:
            jax.block_until_ready(waiting.popleft())
        step = end
        if recorder.due(step):
            record()
        if checkpoints is not None:
            checkpoints.check()
        if checkpoints is not None and step < stop and step - saved >= checkpoint_every_steps:
            record()  # a state that has diverged is never saved
            checkpoints.save(step, state, record=recorder.keep())
            saved = step
        signals.append(of_all_processes(interruption.asked()))
        if len(signals) > lag and (number := int(signals.popleft())):
            break
    else:
        number = max(map(int, signals), default=0)
    record()
    if number and checkpoints is not None:
        if step != saved:
            checkpoints.save(step, state, record=recorder.keep())
        checkpoints.wait_for_all()
        what = f"stopped at step {step}; its checkpoint is kept"
        interruption.end(number, what, said=jax.process_index() == 0)
    return state


def _ahead(feeds: Iterable[tuple[int, PyTree]], parallel: Parallel) -> Iterator[tuple[int, PyTree]]:
    """The feeds, one placed on the devices while the one before it is used."""
    previous = None
    for end, feed in feeds:
        placed = end, parallel.feed(feed)
        if previous is not None:
            yield previous
        previous = placed
    if previous is not None:
        yield previous
