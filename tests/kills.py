"""Runs that are killed and begun again, again and again, against one that never was.

python -m tests.kills --kills=100 --seed=0
python -m tests.kills --kills=3 --stages=student --aims=file --keep=DIR

A run is the command line with `tests/every_kind.py`, in a fork of this process, which has imported
all of it and started no thread of jax. It is killed by SIGKILL, begun again by the same command,
perhaps killed again, and in the end left to finish. A kill is aimed in one of three ways:

    time    at a moment drawn evenly from the time that is left of the run
    file    as soon as a file or a folder of some name is there: a checkpoint that is being written
            has one, so has a chunk of a cache, a manifest, a model's file
    line    at a line of the modules that write files, drawn evenly from those that are run

Then everything is compared with what the undisturbed run left, bit for bit:

    files       of the stages by their bytes: caches, exported models, features, metrics.jsonl
    arrays      of what Orbax wrote, by their names and their stored bytes: parameters, early
                parameters, whole states with masks, moments and averages. Its other files have
                times and random names in them.
    scalars     as TensorBoard shows them, (tag, step, value)
    figures     of manifests and the report, but for times and what is measured: see `_MEASURED`

One line a run, one for all; the exit status is 1 if anything differs.
"""

import argparse
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import tensorstore as ts
from tensorboardX.proto import event_pb2

import kdjax
from kdjax.commands import exits
from kdjax.commands import run as command

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "tests" / "every_kind.py"

AIMS = ("time", "file", "line")

FILES = {
    "a checkpoint begun": r"/checkpoints/\d+\.orbax-checkpoint-tmp",
    "a checkpoint written": r"/checkpoints/\d+$",
    "early parameters begun": r"/early\.orbax-checkpoint-tmp",
    "parameters begun": r"/variables\.orbax-checkpoint-tmp",
    "parameters written": r"/variables$",
    "a log begun": r"/events\.out\.tfevents",
    "a log written": r"/metrics\.(jsonl|tmp)$",
    "a cache begun": r"/cache/ids/",
    "a chunk": r"/cache/teacher_\w+/c/\d",
    "a cache finished": r"/cache/manifest\.json",
    "features": r"/features_\w+\.npy",
    "a model's file": r"\.(onnx|stablehlo|tflite)",
    "a manifest": r"/stages/[^/]+/manifest\.json",
    "the report": r"/report\.(json|html)",
}
"""What a kill may wait for: what it is, and the name of a file or a folder."""

MODULES = (
    "commands/report.py",
    "commands/run.py",
    "pipeline/running.py",
    "report/page.py",
    "artifacts/artifact.py",
    "stages/cache.py",
    "stages/evaluate.py",
    "stages/export.py",
    "fitting/fit.py",
    "teacher/storage.py",
    "teacher/writer.py",
    "train/checkpoints.py",
    "train/loop.py",
    "train/recorder.py",
    "train/storage.py",
)
"""In whose lines a kill may come."""

_MEASURED = re.compile(
    r"wall_seconds|asked_seconds|live_seconds|saved_hours|real_time_factor|"
    r"\w*(latency|bulk)_ms\w*|peak_memory_bytes|"
    # Of Orbax's folder, a few bytes more or less each time; and the list of the files with their
    # hashes. What is in them is compared itself.
    r"bytes_on_disk|files|sha256|own_hash"
)

_CODE = str(Path(kdjax.__file__).parent) + os.sep


@dataclasses.dataclass
class Compared:
    """How much was compared, and what differs."""

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    differences: list[str] = dataclasses.field(default_factory=list)

    def same(self, what: str, name: str, found: Any, wanted: Any) -> None:
        self.counts[what] += 1
        if found != wanted:
            self.differences.append(f"{name}: {_apart(found, wanted)}")


def _apart(found: Any, wanted: Any) -> str:
    """Where two differ, in a line."""
    match found, wanted:
        case None, _:
            return "missing"
        case _, None:
            return "not in the undisturbed run"
        case dict(), dict():
            keys = sorted(key for key in found | wanted if found.get(key) != wanted.get(key))
            where = [f"{key}: {_apart(found.get(key), wanted.get(key))}" for key in keys[:3]]
            return "; ".join(where) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        case list(), list():
            lengths = f"{len(found)} for {len(wanted)} entries, " * (len(found) != len(wanted))
            pairs = enumerate(zip(found, wanted, strict=False))
            first = next((i for i, (a, b) in pairs if a != b), min(len(found), len(wanted)))
            at = (_apart(x[first], y[first]) for x, y in [(found, wanted)] if first < len(x))
            return f"{lengths}first at {first} {next(at, '') if first < len(wanted) else ''}"
        case bytes(), bytes():
            return f"{len(found)} and {len(wanted)} bytes, not the same"
    return f"{found!r} for {wanted!r}"[:200]


def compare(found: Path, wanted: Path) -> Compared:
    """What a run left in `found`, against the undisturbed one in `wanted`."""
    compared = Compared()
    ours, theirs = _contents(found), _contents(wanted)
    for name in sorted(ours.keys() | theirs.keys()):
        (what, here), (of, there) = ours.get(name, ("", None)), theirs.get(name, ("", None))
        if here is None or there is None:
            compared.same(what or of, name, here and b"", there and b"")
            continue
        here, there = here(), there()
        if isinstance(there, dict) and what in ("arrays", "scalars"):
            for key in sorted(here.keys() | there.keys()):
                compared.same(what, f"{name}: {key}", here.get(key), there.get(key))
        else:
            compared.same(what, name, here, there)
    return compared


def _contents(workdir: Path) -> dict[str, tuple[str, Callable[[], Any]]]:
    """`{name: (what it is, how to read it)}` of all that a run left."""
    found: dict[str, tuple[str, Callable[[], Any]]] = {}
    events: dict[str, list[Path]] = defaultdict(list)
    for folder, folders, names in os.walk(workdir):
        here, name = Path(folder), os.path.relpath(folder, workdir)
        if "_METADATA" in names:
            found[name] = "arrays", lambda here=here: _arrays(here)
            folders.clear()
            continue
        if name == "." and "compiled" in folders:
            folders.remove("compiled")
        for file in names:
            path, key = here / file, os.path.normpath(f"{name}/{file}")
            if ".tfevents." in file:
                events[name].append(path)
            elif file == "_CHECKPOINT_METADATA" or file == "report.html":
                found[key] = "files", lambda: b""  # has times in it
            elif file in ("report.json", "record.json") or (
                file == "manifest.json" and here.parent.name == "stages"
            ):
                found[key] = "figures", lambda path=path: _figures(path, workdir)
            elif file == "metrics.jsonl":
                found[key] = "files", lambda path=path: path.read_text().splitlines()
            else:
                found[key] = "files", path.read_bytes
    for name, paths in events.items():
        found[f"{name}/tfevents"] = "scalars", lambda paths=paths: _scalars(sorted(paths))
    return found


def _arrays(folder: Path) -> dict[str, bytes]:
    """`{name: shape, dtype and stored bytes}` of what Orbax wrote there."""
    store = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{folder}/"}).result()
    parts: dict[str, list[bytes]] = defaultdict(list)
    for key in sorted(store.list().result()):
        parts[key.rpartition(b"/")[0].decode()] += [key, store[key]]
    return {name: b"\n".join(found) for name, found in parts.items()}


def _figures(path: Path, workdir: Path) -> Any:
    """Of a manifest or a report, without what no two runs have alike."""

    def kept(value: Any) -> Any:
        match value:
            case {"examples": n, "seconds": _, **others} if not others:  # what a cache has asked
                return n
            case dict():
                return {k: kept(v) for k, v in value.items() if not _MEASURED.fullmatch(k)}
            case list():
                return [kept(item) for item in value]
        return value

    return kept(json.loads(path.read_text().replace(str(workdir), "WORKDIR")))


def _scalars(paths: Sequence[Path]) -> dict[str, list[tuple[int, float]]]:
    """`{tag: (step, value) in order}` as TensorBoard shows them.

    A file of a run that goes on begins with the step before which all is as it was: what stands in
    the files before it at that step or later is not shown.
    """
    shown: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for path in paths:
        for event in _events(path.read_bytes()):
            if event.session_log.status == event_pb2.SessionLog.START:
                for points in shown.values():
                    points[:] = [point for point in points if point[0] < event.step]
            for value in event.summary.value:
                shown[value.tag].append((event.step, value.simple_value))
    return dict(shown)


def _events(data: bytes) -> Iterator[event_pb2.Event]:
    """Of a TFRecord file; a last record that is not whole is none."""
    at = 0
    while at + 12 <= len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        if at + 16 + size > len(data):
            return
        yield event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
        at += 16 + size


@dataclasses.dataclass(frozen=True)
class Kill:
    """Where one comes.

    `never`, with a `count` of 0 its lines are counted; `time`: after `moment` seconds; `file`:
    `moment` seconds after the `count`-th name is there that fits `FILES[name]`; `line`: at the
    `count`-th line of `MODULES` that is run.
    """

    aim: str
    moment: float = 0.0
    name: str = ""
    count: int = 1

    def __str__(self) -> str:
        match self.aim:
            case "time":
                return f"after {self.moment:.2f} s"
            case "file":
                return f"{self.name} ({self.count})"
        return f"line {self.count}"


class Ended(NamedTuple):
    """How a run did: whether it was killed, how long it took, and the names that were seen."""

    killed: bool
    seconds: float
    names: set[str]


Runs = Generator[tuple[Path, Kill], Ended, Any]
"""Asks for runs: `(where, its kill) -> how it ended`."""


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    """The run that is never killed.

    Attributes:
      workdir: of it.
      seconds: that it took.
      stages: seconds of each, by the name of its folder.
      lines: of `MODULES` that its main thread ran; 0 where they were not counted, which takes long.
      names: how often each of `FILES` was there.
    """

    workdir: Path
    seconds: float
    stages: Mapping[str, float]
    lines: int
    names: Mapping[str, int]


def _names(workdir: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(workdir):
        if "compiled" in folders:
            folders.remove("compiled")
        for name in (*folders, *names):
            yield f"{folder}/{name}"
        # Nothing to wait for inside of what Orbax writes.
        inside = Path(folder).name == "checkpoints"
        folders[:] = [
            name for name in folders if not inside and not re.match(r"(variables|early)\b", name)
        ]


def _trace(limit: int | None) -> list[int]:
    """Counts the lines of `MODULES` as this thread runs them; it dies at the limit."""
    count, watched = [0], {_CODE + name.replace("/", os.sep) for name in MODULES}

    def trace(frame, event, arg):
        if frame.f_code.co_filename not in watched:
            return None
        if event == "line":
            count[0] += 1
            if count[0] == limit:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    return count


def _begin(arguments: Sequence[str], workdir: Path, *, lines: int | None = None) -> int:
    """Begins a run in a fork; gives its process.

    What it says goes to `WORKDIR.txt`; with lines of 0 it counts them, and leaves their number in
    `WORKDIR.lines`, with more it dies at that one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jax, of forks: it has not begun here
        child = os.fork()
    return child or _be(arguments, workdir, lines)


def _be(arguments: Sequence[str], workdir: Path, lines: int | None) -> NoReturn:
    said = os.open(f"{workdir}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    status: Any = 0
    try:
        count = None if lines is None else _trace(lines)
        sys.argv = ["kdjax", *arguments, f"--workdir={workdir}"]
        exits.run(lambda: command.main(sys.argv))
        sys.settrace(None)
        if count is not None:
            Path(f"{workdir}.lines").write_text(str(count[0]))
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 70
    sys.stderr.flush()
    os._exit(status)


def _status(child: int) -> int | None:
    """Status of a process, that of a shell; None while it runs."""
    found, status = os.waitpid(child, os.WNOHANG)
    if not found:
        return None
    return os.waitstatus_to_exitcode(status)


def undisturbed(workdir: Path, *, counts_lines: bool) -> Runs:
    """As `runs`, of one that is watched to its end; returns what was seen of it."""
    ended = yield workdir, Kill("never", count=int(not counts_lines))
    stages = {
        path.parent.name: json.loads(path.read_text())["wall_seconds"]
        for path in workdir.glob("stages/*/manifest.json")
    }
    names = {
        name: sum(re.search(pattern, at) is not None for at in ended.names)
        for name, pattern in FILES.items()
    }
    lines = int(Path(f"{workdir}.lines").read_text()) if counts_lines else 0
    return Undisturbed(workdir, ended.seconds, stages, lines, names)


def aimed(draw: random.Random, whole: Undisturbed, workdir: Path, aims: Sequence[str]) -> Kill:
    """A kill of the run in `workdir`, by what is left of it."""
    done = [path.parent.name for path in workdir.glob("stages/*/manifest.json")]
    seconds = whole.seconds - sum(whole.stages[name] for name in done)
    match draw.choice(aims):
        case "time":
            return Kill("time", moment=draw.uniform(0, seconds))
        case "line":
            return Kill(
                "line", count=1 + int(draw.uniform(0, seconds / whole.seconds) * whole.lines)
            )
        case _:
            name = draw.choice([name for name, count in whole.names.items() if count])
            count = draw.randint(1, whole.names[name])
            return Kill("file", draw.choice([0.0, draw.uniform(0, 0.02)]), name, count)


def run(arguments: Sequence[str], workdir: Path, kill: Kill) -> Ended:
    """Runs in `workdir` until it is killed, or to the end.

    Raises:
      SystemExit: it ended in another way.
    """
    traced = kill.aim == "line" or (kill.aim == "never" and not kill.count)
    child = _begin(arguments, workdir, lines=kill.count if traced else None)
    begun, pattern = time.monotonic(), re.compile(FILES.get(kill.name, "^$"))
    names = set(_names(workdir))
    known = sum(pattern.search(name) is not None for name in names)
    left = max(1, kill.count - known)  # what is there has been waited for before
    strikes = begun + kill.moment if kill.aim == "time" else None
    while (status := _status(child)) is None:
        if strikes is not None and time.monotonic() >= strikes:
            os.kill(child, signal.SIGKILL)
            strikes = None
        if (kill.aim == "file" and left) or kill.aim == "never":
            for name in _names(workdir):
                if name not in names:
                    names.add(name)
                    left -= pattern.search(name) is not None
                if kill.aim == "file" and not left:
                    strikes = time.monotonic() + kill.moment
                    break
        if strikes is None or strikes > time.monotonic() + 0.01:
            time.sleep(0.002)  # the processor is for the run
    if status not in (0, -signal.SIGKILL):
        said = Path(f"{workdir}.txt").read_text()[-2000:]
        raise SystemExit(f"a run in {workdir} ended with status {status}: {said}")
    names.update(_names(workdir))
    return Ended(status != 0, time.monotonic() - begun, names)


def _apart_from_here(compare: Callable[[], Compared]) -> Compared:
    """In a fork: reading starts threads, of which later forks of this process would know nothing."""
    with tempfile.TemporaryFile("w+") as file:
        child = os.fork()
        if not child:
            try:
                found = compare()
                json.dump([found.counts, found.differences], file)
                file.flush()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise SystemExit("the comparison failed")
        file.seek(0)
        counts, differences = json.load(file)
    return Compared(Counter(counts), differences)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))


def runs(args: argparse.Namespace, folder: Path, *, compiled: bool) -> Runs:
    """All runs that are needed; prints of each, and returns the exit status."""
    aims = ["file"] if args.file else args.aims.split(",")
    if not compiled:  # its seconds are not those of the others
        yield from undisturbed(folder / "compiling", counts_lines=False)
    whole = yield from undisturbed(folder / "whole", counts_lines="line" in aims)
    print(
        f"undisturbed: {whole.seconds:.1f} s, {len(whole.stages)} stages, {whole.lines:,} lines",
        flush=True,
    )
    draw, kills, begun = random.Random(args.seed), 0, 0
    total, where = Compared(), Counter[str]()
    while kills < args.kills:
        begun += 1
        workdir, struck = folder / f"run{begun}", list[Kill]()
        for _ in range(min(draw.randint(1, args.most), args.kills - kills)):
            if args.file:
                kill = Kill("file", name=args.file, count=args.count)
            else:
                kill = aimed(draw, whole, workdir, aims)
            ended = yield workdir, kill
            if not ended.killed:
                break
            struck.append(kill)
        else:
            yield workdir, Kill("time", moment=float("inf"))
        if not struck:
            continue
        compared = _apart_from_here(lambda workdir=workdir: compare(workdir, whole.workdir))
        kills += len(struck)
        where.update(kill.aim for kill in struck)
        total.counts += compared.counts
        total.differences += compared.differences
        print(
            f"run {begun}: killed {'; '.join(map(str, struck))}: {_counted(compared.counts)}, "
            f"{len(compared.differences)} differences",
            *(f"  {line}" for line in compared.differences[:20]),
            sep="\n",
            flush=True,
        )
        if not args.keep:
            shutil.rmtree(workdir)
    print(
        f"{kills} kills ({', '.join(f'{n} by {aim}' for aim, n in sorted(where.items()))}): "
        f"{_counted(total.counts)} compared, {len(total.differences)} differences"
    )
    return 1 if total.differences else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="how many")
    parser.add_argument("--most", type=int, default=4, help="kills of one run")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--aims", default=",".join(AIMS), help="of time, file, line")
    parser.add_argument("--file", choices=FILES, help="what every kill waits for, with --count")
    parser.add_argument("--count", type=int, default=1, help="how many times it is there")
    parser.add_argument("--stages", help="as those of kdjax")
    parser.add_argument("--config", default=str(CONFIG), help="as that of kdjax")
    parser.add_argument("--keep", type=Path, help="where the runs are kept, empty or not there")
    args, overrides = parser.parse_known_args()
    arguments = [f"--config={args.config}", *overrides]
    if args.stages:
        arguments.append(f"--stages={args.stages}")
    compiled = "JAX_COMPILATION_CACHE_DIR" in os.environ
    with tempfile.TemporaryDirectory(prefix="kdjax-kills-") as scratch:
        if not compiled:
            os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{scratch}/compiled"
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        folder = (args.keep or Path(scratch)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        asked, ended = runs(args, folder, compiled=compiled), None
        while True:
            try:
                workdir, kill = asked.send(ended)
            except StopIteration as end:
                return end.value
            # All of them from this line: a file of StableHLO has the stack in it.
            ended = run(arguments, workdir, kill)


if __name__ == "__main__":
    sys.exit(main())
