"""What a prepared set costs at the start of a run: the first one, and those after it. Prints JSON.

  python tests/benchmarks/start.py --data_dir=DIR                      CIFAR-10's 50,000 records
  python tests/benchmarks/start.py --data_dir=DIR --name=NAME --split=train

The processor's time of all threads is taken, and records are counted, so that neither the disk nor what
else runs on the machine counts.

  first     every record is read, and every file hashed beside it
  copied    the set lies elsewhere: every file is hashed, no record is read
  settled   a start after that: neither, but for the files' sizes and times
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from result import show

from kdjax.data import Dataset, Kept, prepared


class _Counted(Kept):
    """Counts the splits whose records are read."""

    reads = 0

    def seen(self, what, paths, read):
        def counted():
            self.reads += 1
            return read()

        return super().seen(what, paths, counted)


def start(folder: Path, name: str, split: str, data_dir: str) -> tuple[Dataset, dict[str, Any]]:
    """The split as a process finds it, and what that costs."""
    kept = _Counted(folder)
    begun = time.process_time()
    found = prepared(name, split, data_dir=data_dir, kept=kept)
    kept.write()
    seconds = time.process_time() - begun
    return found, {"cpu_seconds": seconds, "records_read": kept.reads * len(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", default=os.environ.get("KDJAX_DATA_DIR"))
    parser.add_argument("--name", default="cifar10")
    parser.add_argument("--split", default="train")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        kept, copy = Path(scratch, "kept"), Path(scratch, "sets")
        prepared(args.name, f"{args.split}[:1]", data_dir=args.data_dir)  # imports
        found, first = start(kept, args.name, args.split, args.data_dir)
        shutil.copytree(Path(args.data_dir, args.name), copy / args.name)
        time.sleep(3)  # what has just been written may be written again
        _, copied = start(kept, args.name, args.split, str(copy))
        again, settled = start(kept, args.name, args.split, str(copy))
        assert again.fingerprint == found.fingerprint
        (file,) = kept.iterdir()
        show(
            {
                "set": found.name,
                "records": len(found),
                "first": first,
                "copied": copied,
                "settled": settled,
                "us_a_record_at_first": 1e6 * first["cpu_seconds"] / len(found),
                "kept_bytes": file.stat().st_size,
            }
        )


if __name__ == "__main__":
    main()
