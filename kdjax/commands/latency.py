"""`kdjax latency MODEL`: times an ONNX or LiteRT file in its runtime on this CPU.

Its arguments, and what it says of itself: `kdjax.commands.words.latency`.
"""

import dataclasses
import gzip
import importlib.metadata
import json
import os
from collections.abc import Sequence

from kdjax import evaluate, export
from kdjax.commands import words
from kdjax.types import BadFile, BadInput


def main(given: Sequence[str]) -> int:
    """Prints the latency of one file.

    The line has `latency_ms_p50`, `latency_ms_p95`, `repeats`, `warmup`, `runtime`, `threads`,
    `batch`, `length` where one is given, `seconds` (how long one example lasts) and `real_time_factor`
    (seconds of processing a second of sound) of a file that says its rate, `file_bytes` (of the file
    itself, not of weights it keeps in files beside it), `gzip_bytes` and `peak_memory_bytes` (see
    `kdjax.export.peak_memory`).

    Returns:
      The exit status.

    Raises:
      BadInput: the file cannot be timed.
    """
    args = words.latency().parse_args(given)
    if args.repeats < 1 or not args.max_seconds >= 0:
        raise BadInput("", "--repeats must be at least 1 and --max_seconds at least 0")
    if not os.path.isfile(args.model):
        raise BadFile(args.model, "no such file")
    runtime = export.of_file(args.model)
    how = {"threads": args.threads, "batch": args.batch}
    if args.length is not None:
        how["length"] = args.length
    call = runtime.call(args.model, **how)
    taken = evaluate.latency(
        call,
        repeats=args.repeats,
        min_seconds=min(0.5, args.max_seconds),
        max_seconds=args.max_seconds,
    )
    package = runtime.package or "kdjax"
    with open(args.model, "rb") as file:
        content = file.read()
    figures = dataclasses.asdict(taken)
    line = {
        "latency_ms_p50": _rounded(figures.pop("ms_p50")),
        "latency_ms_p95": _rounded(figures.pop("ms_p95")),
        **figures,
        **_real_time(runtime.seconds(args.model, length=args.length), taken, args.batch),
        "runtime": f"{package} {importlib.metadata.version(package)}",
        **how,
        "file_bytes": len(content),
        "gzip_bytes": len(gzip.compress(content, mtime=0)),
        "peak_memory_bytes": runtime.memory(args.model, **how),
    }
    print(json.dumps(line))
    return 0


def _real_time(seconds: float | None, taken: evaluate.Latency, batch: int) -> dict[str, float]:
    if not seconds:
        return {}
    factor = taken.real_time_factor(batch * seconds)
    return {"seconds": seconds, "real_time_factor": _rounded(factor)}


def _rounded(measured: float) -> float:
    """To four digits: the next time it is run differs by more."""
    return float(f"{measured:.4g}")
