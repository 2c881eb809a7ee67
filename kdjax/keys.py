"""Every random choice about an example is a pure function of (seed, stream, view, id).

The key of an example never sees the batch, the device or the step, so batch size, device count,
order and resumption change nothing about a view, and `(id, view)` is all a cache must store.
"""

import hashlib

import jax
from jaxtyping import Array, Int, Key, UInt32


def stream_id(name: str) -> int:
    """Stable 31-bit number of a stream of views, usually the name of the stage that draws it."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1


def stream(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """The key of one stream: `key` is `jax.random.key(seed)`."""
    return jax.random.fold_in(key, stream_id(name))


def example(
    stream_key: Key[Array, ""],
    view: Int[Array, ""] | UInt32[Array, ""] | int,
    id: UInt32[Array, ""],
) -> Key[Array, ""]:
    """The key of view `view` of the example `id`."""
    return jax.random.fold_in(jax.random.fold_in(stream_key, view), id)
