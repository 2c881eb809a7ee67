"""`kdjax tables`: writes the tables of pages from kept results; nothing in them is typed by hand.

Its arguments, and what it says of itself: `kdjax.commands.words.tables`.
"""

import difflib
import json
import pathlib
from collections.abc import Sequence

from kdjax import files
from kdjax.commands import words
from kdjax.report import results, tables
from kdjax.types import BadFile


def main(given: Sequence[str]) -> int:
    """Keeps, joins, writes or checks.

    Returns:
      The exit status: 1 where a page is not as it would be written.

    Raises:
      BadInput: a run is not done, or a file is missing or has not what a page asks for.
      StorageFailed: a page or a file cannot be written.
    """
    args = words.tables().parse_args(given)
    if args.command in ("keep", "join"):
        if args.command == "keep":
            found = results.kept(tables.read(args.workdir / "report.json"))
        else:
            found = results.joined({str(path): tables.read(path) for path in _once(args.files)})
        text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
        files.write(args.out, f"{text}\n".encode())
        return 0
    stale = 0
    for page in args.pages:
        old, new = tables.text_of(page), tables.written(page)
        if old == new:
            continue
        if args.command == "write":
            files.write(page, new.encode())
            continue
        stale = 1
        lines = difflib.unified_diff(
            old.splitlines(), new.splitlines(), str(page), "as written", n=0
        )
        print("\n".join(lines))
    return stale


def _once(paths: Sequence[pathlib.Path]) -> Sequence[pathlib.Path]:
    if again := [path for i, path in enumerate(paths) if path in paths[:i]]:
        raise BadFile(again[0], "named twice", "name each file once")
    return paths
