"""What a cache on disk costs: bytes, writing, opening, reading. Prints one JSON object.

  python tests/benchmarks/teacher_cache.py                            made-up logits, CIFAR-100's size
  python tests/benchmarks/teacher_cache.py --k=10 --classes=1000 --examples=200000
  python tests/benchmarks/teacher_cache.py --cache=WORKDIR/stages/X   a real one: bytes, open, read

Everything is read from the page cache of the operating system: what is timed is kdjax, not the disk.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from result import show

from kdjax import teacher
from kdjax.data import rows_at

_BATCH = 1024


def _seconds(call: Callable[[], object], *, repeats: int = 5) -> float:
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def _signal(args) -> teacher.Signal:
    if args.k == 0:
        return teacher.Logits(classes=args.classes)
    return teacher.TopK(classes=args.classes, k=args.k, temperatures=(4.0,))


def write(folder: str, args) -> dict[str, float]:
    """A cache of made-up logits: the teacher costs nothing, its signal is made on the device."""
    signal = _signal(args)

    @jax.jit
    def said(key):
        return signal.encode(3.0 * jax.random.normal(key, (_BATCH, args.classes)))

    keys = [jax.random.key(i) for i in range(64)]
    jax.block_until_ready(said(keys[0]))
    start = time.perf_counter()
    teacher.write(
        folder,
        ids=np.arange(args.examples, dtype=np.uint32),
        views=args.views,
        signal=signal,
        ask=lambda rows, view: said(keys[(int(rows[0]) // _BATCH + view) % 64]),
        batch=_BATCH,
        binding={"signal": teacher.describe(signal)},
    )
    seconds = time.perf_counter() - start
    return {"examples_per_second": args.examples * args.views / seconds}


def read(folder: Path) -> dict[str, float]:
    """Bytes, time to open, and epochs in training's order."""
    manifest = json.loads((folder / "manifest.json").read_text())
    expected = {
        name: value for name, value in manifest.items() if name not in ("checksums", "format")
    }
    cache = teacher.TeacherCache.open(folder, expected=expected)
    n, views = len(cache.ids), cache.views
    files = [path for path in folder.rglob("*") if path.is_file()]
    on_disk = sum(path.stat().st_size for path in files)

    def epochs(stop: int) -> None:
        fresh = teacher.TeacherCache.open(folder, expected=expected)
        for step in range(stop * n // _BATCH):
            positions = np.arange(step * _BATCH, (step + 1) * _BATCH)
            rows, at = rows_at(positions, n=n, seed=0)
            fresh.read(cache.ids[rows], at % np.uint32(views))

    opening = _seconds(lambda: teacher.TeacherCache.open(folder, expected=expected))
    reading = _seconds(lambda: epochs(views), repeats=3) - opening
    raw = sum(part.bytes for part in cache.parts.values())
    return {
        "examples": n,
        "views": views,
        "files": len(files),
        "bytes_on_disk": on_disk,
        "bytes_per_example_and_view": on_disk / n / views,
        "bytes_per_example_and_view_uncompressed": raw,
        "open_seconds": opening,
        "open_bytes_per_second": on_disk / opening,
        "read_examples_per_second": n * views / reading,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", help="folder of a finished cache stage")
    parser.add_argument("--examples", type=int, default=50_000)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--k", type=int, default=10, help="0 for all logits")
    args = parser.parse_args()
    results = {}
    if args.cache is None:
        folder = Path(tempfile.mkdtemp()) / "cache"
        results["write"] = write(str(folder), args)
    else:
        folder = Path(args.cache) / "cache"
    results["read"] = read(folder)
    show(results)


if __name__ == "__main__":
    main()
