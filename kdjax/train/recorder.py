"""What a run writes down as it goes: metrics.jsonl, TensorBoard, progress; and whether it still lives."""

import json
import math
import sys
import time
from collections.abc import Mapping

import jax
import numpy as np
import tensorboardX
from etils import epath
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kdjax import files
from kdjax.types import BadInput, StorageFailed


class Diverged(RuntimeError):
    """A loss is no longer a number; the message names the step and the term."""


class Recorder:
    """Writes the metrics of one run.

    `metrics.jsonl` has one object a line, `{"step": 100, "loss": ..., ...}`: the mean of the steps
    since the line before. It is cut back to `start` when a run is resumed, so that no step stands
    twice. Only the first process writes; every process looks at what it is given.
    """

    def __init__(
        self, folder: epath.PathLike, *, name: str, start: int, stop: int, log_every_steps: int
    ):
        """Opens the record of a run of steps `start` to `stop` in `folder`."""
        self._path = epath.Path(folder) / "metrics.jsonl"
        self._lines = [line for line in read(self._path) if line["step"] <= start]
        self._every, self._stop = log_every_steps, stop
        self._sums: dict[str, float] = {}
        self._count, self._recorded = 0, start
        self._written = time.monotonic()
        self._writes = jax.process_index() == 0
        if self._writes:
            self._board = tensorboardX.SummaryWriter(str(folder), purge_step=start)
            self._progress = _Progress(name, start=start, stop=stop)

    def due(self, step: int) -> bool:
        """A line is due once the metrics up to `step` are written: they are worth a transfer."""
        return step // self._every > self._recorded // self._every

    def write(self, first_step: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Takes the metrics of consecutive steps, [steps] each; the first is that of `first_step`.

        Raises:
          Diverged: one of them is not finite.
        """
        _check_finite(first_step, metrics)
        for i in range(len(metrics["loss"])):
            for name, values in metrics.items():
                self._sums[name] = self._sums.get(name, 0.0) + float(values[i])
            self._count += 1
            step = self._recorded = first_step + i
            if step % self._every == 0 or step == self._stop:
                self._line(step)

    def _line(self, step: int) -> None:
        line = {"step": step, **{name: s / self._count for name, s in self._sums.items()}}
        self._lines.append(line)
        self._sums, self._count = {}, 0
        if not self._writes:
            return
        if not self._board_writes():
            raise StorageFailed(
                f"{self._path.parent}: what TensorBoard reads cannot be written any more; make room, "
                "then run the same command again: what is done stays done"
            )
        for name, value in line.items():
            if name != "step":
                self._board.add_scalar(name, value, step)
        self._progress.show(step, line["loss"])
        if time.monotonic() - self._written > 10:
            self._flush()

    def _flush(self) -> None:
        # Written whole: an object store cannot append, and a reader never sees half a line.
        text = "".join(json.dumps(line) + "\n" for line in self._lines)
        files.write(self._path, text.encode())
        self._written = time.monotonic()

    def close(self) -> None:
        """Writes what is left."""
        if not self._writes:
            return
        self._progress.close()
        self._flush()
        if self._board_writes():
            self._board.close()

    def _board_writes(self) -> bool:
        """Whether the thread that writes for TensorBoard lives: a dead one is waited for for ever."""
        writer = getattr(self._board.file_writer, "event_writer", None)
        worker = getattr(writer, "_worker", None)
        return worker is not None and worker.is_alive()


def read(path: epath.PathLike) -> list[dict[str, int | float]]:
    """The lines of a metrics.jsonl, none where it does not exist.

    Raises:
      BadInput: one of them is no line of metrics.
      StorageFailed: the storage does not give the file.
    """
    path = epath.Path(path)
    with files.storing(path):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return []
    found = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            entry = json.loads(line)
            int(entry["step"])
        except (ValueError, TypeError, KeyError):
            raise BadInput(
                f"{path}: line {number} is not one of metrics; delete {path} and run the same command "
                "again: the log then begins at the newest checkpoint"
            ) from None
        found.append(entry)
    return found


def _check_finite(first_step: int, metrics: Mapping[str, np.ndarray]) -> None:
    bad = {name: np.flatnonzero(~np.isfinite(values)) for name, values in metrics.items()}
    bad = {name: int(where[0]) for name, where in bad.items() if where.size}
    if not bad:
        return
    # The term says more than the total that it spoils, and both more than a norm.
    name = min(bad, key=lambda n: (bad[n], not n.startswith("loss/"), n != "loss"))
    value = float(metrics[name][bad[name]])
    shown = "NaN" if math.isnan(value) else "infinite"
    raise Diverged(
        f"step {first_step + bad[name]}: {name} is {shown}; lower the learning rate, or look at "
        "what feeds this term (the last checkpoint before it is kept)"
    )


class _Progress:
    """A bar in a terminal, one line a minute elsewhere."""

    def __init__(self, name: str, *, start: int, stop: int):
        self._name, self._start, self._stop = name, start, stop
        self._begun = self._said = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn(f"{name:<12}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[loss]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(name, total=stop, completed=start, loss="")
            self._bar.start()

    def show(self, step: int, loss: float) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=step, loss=f"loss {loss:.4f}")
        elif time.monotonic() - self._said > 60:
            self._said = time.monotonic()
            rate = (step - self._start) / (self._said - self._begun)
            left = (self._stop - step) / rate
            print(
                f"{self._name}: step {step} of {self._stop}, loss {loss:.4f}, "
                f"{rate:.3g} steps/s, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
