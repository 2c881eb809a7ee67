"""`kdjax tables`: writes the tables of pages from kept results; nothing in them is typed by hand.

kdjax tables keep runs/digits results/digits.json    keeps what a finished run found
kdjax tables write README.md                         writes the tables of a page again
kdjax tables check README.md kdjax/quant/README.md   shows what would be written differently

A page asks for its tables in comments; `kdjax.report.tables` has the format.

Exit status 0, 1 if a page differs from what would be written (check), 2 for bad input.
"""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path

from kdjax import files
from kdjax.commands import arguments
from kdjax.report import tables


def main(given: Sequence[str]) -> int:
    """Keeps, writes or checks.

    Returns:
      The exit status: 1 where a page is not as it would be written.

    Raises:
      BadInput: a run is not done, or a file is missing or has not what a page asks for.
      StorageFailed: a page or a file cannot be written.
    """
    parser = arguments.parser("tables", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="keep|write|check")
    keep = commands.add_parser("keep", help="keep what a finished run found, as JSON")
    keep.add_argument("workdir", type=Path, help="work directory of the run")
    keep.add_argument("out", type=Path, help="the JSON file to write")
    for name, told in (("write", "write the tables again"), ("check", "show what would differ")):
        one = commands.add_parser(name, help=told)
        one.add_argument("pages", type=Path, nargs="+", help="Markdown files")
    args = parser.parse_args(given)
    if args.command == "keep":
        found = tables.kept(tables.read(args.workdir / "report.json"))
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
