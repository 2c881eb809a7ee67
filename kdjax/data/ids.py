"""Ids of examples: unique unsigned integers, of whatever tells the examples of a set apart."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt32

from kdjax.types import BadInput


def unique_ids(ids: Sequence[int | np.integer | bytes | str]) -> UInt32[np.ndarray, " n"]:
    """Stable uint32 ids: integers as they are where they fit, a hash of anything else.

    Two ids with one hash are told apart by hashing again, in the order of the ids themselves, so
    that the result does not depend on the order of the records.

    Raises:
      BadInput: an id stands twice.
    """
    texts = [id if isinstance(id, bytes) else str(id).encode() for id in ids]
    if len(set(texts)) != len(texts):
        raise BadInput(
            "data.id_key", "an id stands twice in the split", "name a feature that does not"
        )
    if all(isinstance(id, int | np.integer) and 0 <= id < 2**32 for id in ids):
        return np.asarray(ids, np.uint32)
    taken: dict[int, bytes] = {}
    for text in sorted(texts):
        salt = 0
        while (number := _hash(text, salt)) in taken:
            salt += 1
        taken[number] = text
    number_of = {text: number for number, text in taken.items()}
    return np.asarray([number_of[text] for text in texts], np.uint32)


def _hash(text: bytes, salt: int) -> int:
    digest = hashlib.blake2b(text, digest_size=4, salt=salt.to_bytes(8, "big"))
    return int.from_bytes(digest.digest(), "big")
