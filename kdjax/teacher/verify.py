"""Runs the teachers of a finished cache again, and compares.

python -m kdjax.teacher.verify WORKDIR/stages/cache-seed0-1a2b3c4d --samples=256

Prints the largest difference over random (id, view). Exit status 0 within the tolerance, 1 beyond it, 2
where there is no such cache, or it is not of these teachers, views and examples.
"""

import argparse
import sys
from collections.abc import Sequence

from kdjax.parse import Arguments
from kdjax.stages.audit import audit
from kdjax.types import BadInput


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = Arguments(
        prog="python -m kdjax.teacher.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("cache", help="folder of a finished cache stage")
    parser.add_argument("--samples", type=int, default=256, help="pairs of id and view")
    parser.add_argument("--seed", type=int, default=0, help="of their choice")
    parser.add_argument("--data_dir", help="of TFDS datasets; KDJAX_DATA_DIR by default")
    parser.add_argument("--tolerance", type=float, help="what rounding explains by default")
    try:
        args = parser.parse_args(arguments)
        found = audit(
            args.cache,
            samples=args.samples,
            seed=args.seed,
            data_dir=args.data_dir,
            tolerance=args.tolerance,
        )
    except BadInput as error:
        print(f"kdjax: {error}", file=sys.stderr)
        return 2
    within = found.difference <= found.tolerance
    print(
        f"{found.samples} samples: largest difference {found.difference:.3g} (id {found.id}, view "
        f"{found.view}), {'within' if within else 'beyond'} {found.tolerance:.3g}; "
        f"the largest value is {found.largest:.3g}"
    )
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
