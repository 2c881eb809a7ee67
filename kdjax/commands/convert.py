"""`kdjax convert FILE OUT`: a checkpoint of torch as safetensors, without torch and without running it.

Its arguments, and what it says of itself: `kdjax.commands.words.convert`.
"""

import collections
from collections.abc import Sequence

from kdjax.commands import words
from kdjax.weights import pickled


def main(given: Sequence[str]) -> int:
    """Converts one file, and says in one line what was in it.

    Returns:
      The exit status.

    Raises:
      BadInput: the file cannot be converted; nothing is written.
      StorageFailed: the result cannot be written.
    """
    args = words.convert().parse_args(given)
    found = pickled.convert(args.file, args.out, key=args.key, prefix=args.prefix)
    dtypes = collections.Counter(array.dtype.name for array in found.arrays.values())
    kinds = ", ".join(f"{n} {name}" for name, n in dtypes.most_common())
    said = [f"{args.out}: {len(found.arrays)} tensors ({kinds}), {found.nbytes:,} bytes"]
    if found.key:
        said.append(f"from {found.key}")
    if found.stripped:
        said.append(f"names without {found.stripped!r}")
    if found.left_out:
        more = "" if len(found.left_out) <= 8 else f" and {len(found.left_out) - 8} more"
        said.append(f"left out: {', '.join(found.left_out[:8])}{more}")
    print("; ".join(said))
    return 0
