"""`kdjax prepare NAME`: downloads a TFDS dataset and prepares it as kdjax reads it, once.

Its arguments, and what it says of itself: `kdjax.commands.words.prepare`.
"""

import os
from collections.abc import Sequence

from kdjax.commands import words
from kdjax.data import preparing
from kdjax.export.extras import require
from kdjax.types import BadInput


def main(given: Sequence[str]) -> int:
    """Prepares one dataset, and says in one line where it is.

    Returns:
      The exit status.

    Raises:
      BadInput, StorageFailed: see `kdjax.data.preparing.prepare`.
    """
    args = words.prepare().parse_args(given)
    data_dir = os.environ.get("KDJAX_DATA_DIR") if args.data_dir is None else args.data_dir
    if data_dir is None:
        raise BadInput(
            "--data_dir", "it is not said where to prepare it", "give it, or set KDJAX_DATA_DIR"
        )
    found = preparing.there(args.name, data_dir=data_dir)
    if found is None:
        require("kdjax prepare", "tensorflow", extra="prepare")
        found = preparing.prepare(args.name, data_dir=data_dir, manual_dir=args.manual_dir)
    splits = ", ".join(f"{split} {n:,}" for split, n in found.splits.items())
    done = "was prepared before" if found.before else "is prepared"
    print(
        f"{found.folder} {done}: {splits}; in a config: data.name={found.name} "
        f"data.data_dir={data_dir}"
        + (f"; but as it is no set of pictures with classes: {found.note}" if found.note else "")
    )
    return 0
