"""What a run writes down as it goes: metrics.jsonl, TensorBoard, progress; and whether it still lives."""

import json
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kdjax import files
from kdjax.files import from_json
from kdjax.train.events import Events
from kdjax.train.storage import storing


class Diverged(RuntimeError):
    """A loss is no longer a number; the message names the step and the term.

    Attributes:
      step: at which it is not.
    """

    def __init__(self, message: str, *, step: int = 0):
        super().__init__(message)
        self.step = step


class Recorder:
    """Writes the metrics of one run.

    `metrics.jsonl` has one object a line, `{"step": 100, "loss": ..., ...}`: the mean of the steps
    since the line before; the event file of TensorBoard has the same. Both are cut back to `start`
    when a run is resumed, and a mean goes on from the sums that were kept with the checkpoint: the
    log is that of a run that was never stopped. Only the first process writes; every process looks
    at what it is given.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        *,
        name: str,
        start: int,
        stop: int,
        log_every_steps: int,
        kept: Mapping[str, Any] | None = None,
    ):
        """Opens the record of a run of steps `start` to `stop` in `folder`.

        Args:
          folder: of the stage.
          name: for the progress.
          start: the step that is resumed.
          stop: the last step.
          log_every_steps: distance of the lines.
          kept: what `keep` gave at `start`.
        """
        self._path = epath.Path(folder) / "metrics.jsonl"
        self._every, self._stop = log_every_steps, stop
        kept = kept or {}
        self._sums: dict[str, float] = dict(kept.get("sums", {}))
        self._count, self._recorded = int(kept.get("count", 0)), start
        self._written = time.monotonic()
        self._writes = jax.process_index() == 0
        self._lines: list[dict[str, int | float]] = []
        if self._writes:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lines = [line for line in read(self._path) if line["step"] <= start]
            if (missing := int(kept.get("lines", 0)) - len(self._lines)) > 0:
                print(
                    f"{self._path}: {missing} lines of the steps to {start} are not there any more",
                    file=sys.stderr,
                    flush=True,
                )
            with storing(self._path):
                self._events = Events(folder, self._lines)
            self._progress = _Progress(name, start=start, stop=stop)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self.close()
        except Exception:
            if error is None:
                raise  # otherwise what came first is what is said

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

    def keep(self) -> dict[str, Any]:
        """Writes the lines there are; what a run that is resumed here needs beside them.

        Raises:
          OSError: they cannot be written.
        """
        if self._writes:
            self._flush()
        return {"sums": dict(self._sums), "count": self._count, "lines": len(self._lines)}

    def _line(self, step: int) -> None:
        line = {"step": step, **{name: s / self._count for name, s in self._sums.items()}}
        self._lines.append(line)
        self._sums, self._count = {}, 0
        if not self._writes:
            return
        self._events.add(line)
        self._progress.show(step, line["loss"])
        if time.monotonic() - self._written > 10:
            self._flush()

    def _flush(self) -> None:
        # Written whole: an object store cannot append, and a reader never sees half a line.
        text = "".join(json.dumps(line) + "\n" for line in self._lines)
        with storing(self._path):
            files.write(self._path, text.encode())
            self._events.flush()
        self._written = time.monotonic()

    def close(self) -> None:
        """Writes what is left.

        Raises:
          OSError: it cannot be written.
        """
        if not self._writes:
            return
        self._progress.close()
        self._flush()


def read(path: epath.PathLike) -> list[dict[str, int | float]]:
    """The lines of a metrics.jsonl, none where it does not exist.

    What is no line of a log, or of no later step than the line before it, is left out, with a word on
    stderr.
    """
    path = epath.Path(path)
    if not path.exists():
        return []
    found: list[dict[str, int | float]] = []
    foreign: list[int] = []
    content = path.read_bytes().decode(errors="replace")
    for number, text in enumerate(content.split("\n"), start=1):
        if not text:
            continue
        line = _parsed(text)
        if line is None or (found and line["step"] <= found[-1]["step"]):
            foreign.append(number)
        else:
            found.append(line)
    if foreign:
        print(
            f"{path}: what is not of this log is left out: {len(foreign)} of its lines, the first is "
            f"line {foreign[0]}",
            file=sys.stderr,
            flush=True,
        )
    return found


def _parsed(text: str) -> dict[str, int | float] | None:
    """A line of the log, None where it is not one."""
    try:
        line = from_json(text)
    except ValueError:
        return None
    if not isinstance(line, dict) or type(line.get("step")) is not int or "loss" not in line:
        return None
    if not all(type(x) in (int, float) and math.isfinite(x) for x in line.values()):
        return None
    return line


def worst(metrics: Mapping[str, np.ndarray]) -> tuple[str, int] | None:
    """The name and the place of what is not finite first; None where everything is."""
    bad = {name: np.flatnonzero(~np.isfinite(values)) for name, values in metrics.items()}
    bad = {name: int(where[0]) for name, where in bad.items() if where.size}
    if not bad:
        return None
    # The term says more than the total that it spoils, and both more than a norm.
    name = min(bad, key=lambda n: (bad[n], not n.startswith("loss/"), n != "loss"))
    return name, bad[name]


def _check_finite(first_step: int, metrics: Mapping[str, np.ndarray]) -> None:
    if (found := worst(metrics)) is None:
        return
    name, at = found
    shown = "NaN" if math.isnan(float(metrics[name][at])) else "infinite"
    raise Diverged(f"step {first_step + at}: {name} is {shown}", step=first_step + at)


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
