"""A run in one process, and in several side by side (`--jobs`), in turn. Prints JSON.

  python tests/benchmarks/jobs.py --jobs=2 --repeats=3                      the digits line, as it comes
  python tests/benchmarks/jobs.py --config=FILE --flags="--seeds=0,1"

Each run begins in a work directory of its own, with nothing compiled.
"""

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from result import show

ROOT = Path(__file__).parents[2]


def seconds(config: str, flags: list[str], *, jobs: int) -> float:
    """Of a whole run."""
    env = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-m", "kdjax.main", f"--config={config}"),
                *(f"--workdir={folder}/run", f"--jobs={jobs}", *flags),
            ],
            env=env,
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", default=str(ROOT / "configs" / "digits.py"))
    parser.add_argument("--flags", default="", type=shlex.split, help="more flags of the runs")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    taken = {"one": [], "side by side": []}
    for _ in range(args.repeats):
        taken["one"].append(seconds(args.config, args.flags, jobs=1))
        taken["side by side"].append(seconds(args.config, args.flags, jobs=args.jobs))
    one, beside = (statistics.median(each) for each in taken.values())
    show({"jobs": args.jobs, "seconds": taken, "ratio": one / beside})


if __name__ == "__main__":
    main()
