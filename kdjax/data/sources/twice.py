"""What is there under two names: in two splits, or with two labels."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from kdjax.data.targets import Target


def notes_of(
    lying: Mapping[str, Int64[np.ndarray, " _"]],
    hashes: UInt8[np.ndarray, "n 32"],
    labels: Shaped[np.ndarray, "n ..."],
    target: Target,
    *,
    shown: Callable[[int], str],
    name: str,
    kind: str,
) -> list[str]:
    """What is to be said of examples of the same content.

    Args:
      lying: the rows of each split that have been read.
      hashes: of the content of each row.
      labels: of each row.
      target: what they are of.
      shown: the name of a row.
      name: of the data.
      kind: of an example, such as `picture`.
    """
    rows = np.concatenate([*lying.values()])
    split_of = np.repeat(np.arange(len(lying)), [len(own) for own in lying.values()])
    digests = np.ascontiguousarray(hashes[rows]).view("S32")[:, 0]
    order = np.argsort(digests, kind="stable")
    same = digests[order[1:]] == digests[order[:-1]]
    pairs = [(order[i], order[i + 1]) for i in np.flatnonzero(same)]
    notes = []

    def note(some: list[tuple[Any, Any]], said: str, mend: str) -> None:
        if some:
            a, b = (shown(int(rows[i])) for i in some[0])
            count = f"1 {kind} is" if len(some) == 1 else f"{len(some)} {kind}s are"
            notes.append(f"{count} {said} of {name}, such as {a}, which is {b}; {mend}")

    across = [pair for pair in pairs if split_of[pair[0]] != split_of[pair[1]]]
    note(across, "in two splits", "what is measured on them is too good: remove one of each")

    def label(i: Any) -> Any:
        return labels[rows[i]]

    within = [pair for pair in pairs if split_of[pair[0]] == split_of[pair[1]]]
    known = target.shown(labels)
    torn = [
        p for p in within if all(known[rows[i]] for i in p) and (label(p[0]) != label(p[1])).any()
    ]
    note(torn, "there twice with different labels", "remove the wrong one of each")
    note([p for p in within if p not in torn], "there twice", "remove one of each")
    return notes
