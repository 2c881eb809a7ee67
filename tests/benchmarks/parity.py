"""How far our networks are from those of other libraries, as the tests of parity find it.

    pip install -e '.[export,dev,parity]'
    python tests/benchmarks/parity.py tests/benchmarks/results/parity.json

runs the tests of parity in `tests/weights` and keeps a row of each network that agrees, from which
`kdjax tables write kdjax/weights/README.md` makes the table of the page. With files or names of tests
behind it, these alone are run, and other rows stay as they are: of the same versions, or it is refused.
"""

import argparse
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LIBRARIES = ("torch", "torchvision", "timm", "transformers", "jax", "flax")


class Rows:
    """Of a session of pytest: one of each network that agrees, with its test.

    Args:
      out: the file, written anew after each test: a session that was stopped leaves what it found.
      versions: of the libraries.
      kept: rows that stay.
    """

    def __init__(self, out: Path, versions: dict[str, str], kept: list[dict[str, Any]]):
        self._out, self._versions = out, versions
        self._rows = kept

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and not report.skipped:
            test, found = report.nodeid, []
            if report.passed:
                found = [row for name, row in report.user_properties if name == "parity"]
            rest = [row for row in self._rows if row["test"] != test]
            self._rows = rest + [{**row, "test": test} for row in found]
            self._write()

    def _write(self) -> None:
        networks = sorted(self._rows, key=lambda row: (row["source"], row["test"], row["name"]))
        found = {
            "command": "python tests/benchmarks/parity.py tests/benchmarks/results/parity.json",
            "versions": self._versions,
            "largest": {
                name: max((row[name] for row in networks), default=0.0)
                for name in ("evaluation", "gradients")
            },
            "networks": networks,
        }
        self._out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="the JSON file")
    parser.add_argument(
        "tests", nargs="*", default=[], help="files or names of tests; all by default"
    )
    args = parser.parse_args()
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    versions["python"] = platform.python_version()
    kept = []
    if args.tests and args.out.exists():
        before = json.loads(args.out.read_text("utf-8"))
        if before["versions"] != versions:
            parser.error(f"{args.out} is of {before['versions']}, and these are {versions}")
        kept = before["networks"]
    rows = Rows(args.out, versions, kept)
    where = args.tests or sorted(map(str, ROOT.glob("tests/weights/test_*_parity.py")))
    return int(pytest.main(["-v", "-m", "thorough", f"--rootdir={ROOT}", *where], plugins=[rows]))


if __name__ == "__main__":
    sys.exit(main())
