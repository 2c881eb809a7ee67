"""Times an ONNX or LiteRT file in its runtime on the CPU and prints one line of JSON.

  python -m kdjax.evaluate.latency MODEL.onnx --batch=1 --threads=1
  python -m kdjax.evaluate.latency MODEL.tflite

It is a `__main__` of its own, so that `kdjax.evaluate` can re-export what it runs: a module that is
both imported by its package and run with `-m` would be loaded twice, with a warning.
"""

import dataclasses
import gzip
import importlib.metadata
import json
import sys
from collections.abc import Sequence

from kdjax.evaluate.latency.litert_file import litert_call
from kdjax.evaluate.latency.memory import peak_memory
from kdjax.evaluate.latency.onnx_file import onnx_call
from kdjax.evaluate.latency.timing import latency
from kdjax.parse import Arguments
from kdjax.types import BadInput


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the latency of one file; returns the exit status, 2 for bad input.

    The line has `latency_ms_p50`, `latency_ms_p95`, `repeats`, `warmup`, `runtime`, `threads`,
    `batch`, `file_bytes` (of the file itself, not of weights it keeps in files beside it), `gzip_bytes`
    and `peak_memory_bytes` (see `peak_memory`).
    """
    parser = Arguments(
        prog="python -m kdjax.evaluate.latency",
        description="Times an ONNX or LiteRT file on the CPU; prints one line of JSON.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="MODEL.tflite is LiteRT's, all else ONNX")
    parser.add_argument("--batch", type=int, default=1, help="examples in one call")
    parser.add_argument("--threads", type=int, default=1, help="threads of one operator")
    parser.add_argument("--repeats", type=int, default=100, help="fewest samples wanted")
    parser.add_argument("--max_seconds", type=float, default=30.0, help="ends the samples early")
    try:
        args = parser.parse_args(argv)
        if args.repeats < 1 or not args.max_seconds >= 0:
            raise BadInput("--repeats must be at least 1 and --max_seconds at least 0")
        litert = args.model.endswith(".tflite")
        file_call = litert_call if litert else onnx_call
        call = file_call(args.model, threads=args.threads, batch=args.batch)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2

    taken = latency(
        call,
        repeats=args.repeats,
        min_seconds=min(0.5, args.max_seconds),
        max_seconds=args.max_seconds,
    )
    runtime = "ai-edge-litert" if litert else "onnxruntime"
    with open(args.model, "rb") as file:
        content = file.read()
    figures = dataclasses.asdict(taken)
    line = {
        "latency_ms_p50": figures.pop("ms_p50"),
        "latency_ms_p95": figures.pop("ms_p95"),
        **figures,
        "runtime": f"{runtime} {importlib.metadata.version(runtime)}",
        "threads": args.threads,
        "batch": args.batch,
        "file_bytes": len(content),
        "gzip_bytes": len(gzip.compress(content, mtime=0)),
        "peak_memory_bytes": peak_memory(args.model, threads=args.threads, batch=args.batch),
    }
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
