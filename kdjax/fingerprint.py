"""What a thing is, as a short hash of its content: never of a path, a time or Python's `hash`."""

import hashlib
import json
from typing import Any

import numpy as np

from kdjax import tree
from kdjax.types import PyTree


def of_json(value: Any) -> str:
    """Hash of plain data (dicts, lists, numbers, strings), blind to the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def of_arrays(arrays: PyTree) -> str:
    """Hash of every leaf's name, dtype, shape and bytes."""
    digest = hashlib.sha256()
    for name, leaf in sorted(tree.named_leaves(arrays).items()):
        leaf = np.asarray(leaf)
        digest.update(f"{name}:{leaf.dtype}{leaf.shape};".encode())
        digest.update(np.ascontiguousarray(leaf).view(np.uint8).data if leaf.size else b"")
    return digest.hexdigest()[:16]
