"""Which examples a split has: by where they lie, or by a rule of their content; cut as TFDS cuts.

The examples of a split come in the order of the hash of their content. So `train[:90%]` has its share of
every class, and adding or removing an example leaves the order of the others as it is.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from etils import epy
from jaxtyping import Bool, Int64, UInt8

from kdjax.spelling import suggestion
from kdjax.types import BadInput

with epy.lazy_imports():  # slow to import, and whole splits do without
    import tensorflow_datasets as tfds

KNOWN = ("train", "training", "test", "testing", "val", "valid", "validation", "dev")
"""Words that name a split where they stand in the name of a file or a folder."""

Rows = Int64[np.ndarray, " _"]


class AlreadySplit(BadInput):
    """A share is asked for the test, and the files say themselves what is in it."""


def of_path(path: str) -> str | None:
    """The split that the words of a relative path name, the last one; None where none does."""
    words = re.split(r"[^a-z]+", path.lower())
    return next((word for word in reversed(words) if word in KNOWN), None)


def of_paths(paths: Iterable[str], *, what: str) -> dict[str, list[str]] | None:
    """The paths of each split; None where no path names one.

    Args:
      paths: relative ones.
      what: they are of, for messages.

    Raises:
      BadInput: some name a split, and others do not.
    """
    found: dict[str | None, list[str]] = {}
    for path in paths:
        found.setdefault(of_path(path), []).append(path)
    beside = found.pop(None, [])
    if not found:
        return None
    if beside:
        known = ", ".join(sorted(map(str, found)))
        raise BadInput(
            "root",
            f"{what}: {beside[0]} names no split, where others are of {known}",
            "have train or test in its name, or move it away",
        )
    return {str(name): inside for name, inside in sorted(found.items(), key=str)}


def to_cut(inside: Collection[str], *, name: str) -> None:
    """Refuses a rule that takes a test from `train`, where there is a test, or no `train`.

    Args:
      inside: names of the splits that lie there.
      name: of the data, for messages.

    Raises:
      AlreadySplit: it has nothing to do.
    """
    if "test" in inside or "train" not in inside:
        raise AlreadySplit(
            "test_share", f"{name} has {', '.join(inside)}, which say it", "leave it out"
        )


def check_share(share: float) -> None:
    """Raises `BadInput` where it is no share that the test can have of the examples."""
    if not 0.0 <= share < 1.0:
        raise BadInput("test_share", f"{share} is not in [0, 1)", "0.1 is a tenth")


def in_test(hashes: UInt8[np.ndarray, "n 32"], share: float) -> Bool[np.ndarray, " n"]:
    """Which examples a rule takes for the test: those whose content hashes below the share.

    It looks at the content alone, so that other examples change nothing about one, and two of the same
    content are always on one side.
    """
    return _numbers(hashes) < share * 2.0**64


def parted(
    rows: Rows, hashes: UInt8[np.ndarray, "n 32"], share: float, *, name: str
) -> dict[str, Rows]:
    """These rows as `train` and `test`, by the rule.

    Args:
      rows: of examples.
      hashes: of the content of each row there is.
      share: of them that is `test`.
      name: of the data, for messages.

    Raises:
      BadInput: there is nothing in one of the two.
    """
    apart = in_test(hashes[rows], share)
    found = {"train": rows[~apart], "test": rows[apart]}
    check_apart({part: len(those) for part, those in found.items()}, share, name=name)
    return found


def check_apart(parts: Mapping[str, int], share: float, *, name: str) -> None:
    """Raises `BadInput` where a rule has left nothing in `train` or in `test`.

    Args:
      parts: how many examples there are in each.
      share: of them that is `test`.
      name: of the data, for messages.
    """
    empty = next((part for part in ("train", "test") if not parts[part]), None)
    if empty is not None:
        every = parts["train"] + parts["test"]
        raise BadInput(
            "test_share",
            f"{share:g} of the {every} examples of {name} leaves none in {empty}",
            "give more examples, or another test_share=",
        )


def _numbers(hashes: UInt8[np.ndarray, "n 32"]) -> np.ndarray:
    """The first 64 bits of each."""
    return np.ascontiguousarray(hashes[:, :8]).view(">u8")[:, 0]


def named(split: str, known: Sequence[str], *, name: str, mend: str) -> list[str]:
    """The splits that a spec is about, of those that there are.

    Args:
      split: as TFDS writes it: `train`, `train[:90%]`, `train+test`.
      known: those that there are.
      name: of the data, for messages.
      mend: what to do where one is not there.

    Raises:
      BadInput: one is not there.
    """
    found = []
    for part in split.split("+"):
        bare = re.sub(r"\[.*\]$", "", part.strip())
        if bare not in known:
            near = suggestion(bare, known)
            raise BadInput(
                "data", f"split {split!r}: {name} has {', '.join(known)}", mend or near
            )  # fmt: skip
        found.append(bare)
    return list(dict.fromkeys(found))


def mend_of(known: Collection[str]) -> str:
    """What to do where these are all splits that there are, and another one is asked for."""
    return "" if "test" in known else "give test_share=0.1 to have a tenth for the test"


def chosen(
    split: str,
    lying: Mapping[str, Rows],
    hashes: UInt8[np.ndarray, "n 32"],
    *,
    share: float,
    in_order: bool = False,
    name: str,
) -> Rows:
    """The rows of a split, of examples that lie in some or are parted by a rule.

    Args:
      split: as TFDS writes it.
      lying: the rows of each whole split, as the examples lie.
      hashes: of the content of each row there is.
      share: of `train` that is `test`, 0 for none.
      in_order: rows stay as they lie; otherwise they are in the order of their hashes.
      name: of the data, for messages.

    Raises:
      AlreadySplit: a share is asked for, and the examples lie in splits that say it.
      BadInput: there is no such split, or nothing in it, or an example is in it twice.
    """
    found = {**lying}
    if share:
        to_cut(found, name=name)
        found |= parted(found["train"], hashes, share, name=name)
    asked = named(split, [*found], name=name, mend=mend_of(found))
    whole = {key: found[key] for key in asked}
    return cut(split, whole, None if in_order else hashes, name=name)


def cut(
    split: str, rows: Mapping[str, Rows], hashes: UInt8[np.ndarray, "n 32"] | None, *, name: str
) -> Rows:
    """The rows of a split, in the order of their hashes.

    Args:
      split: as TFDS writes it.
      rows: of each whole split.
      hashes: of the content of each row there is; None leaves them in the order in which they are.
      name: of the data, for messages.

    Raises:
      BadInput: the spec cannot be read, or there is nothing in it, or an example is in it twice.
    """
    ordered = {key: own if hashes is None else _ordered(own, hashes) for key, own in rows.items()}
    if split in ordered:
        chosen = ordered[split]
    else:
        sizes = tfds.core.SplitDict(
            [
                tfds.core.SplitInfo(name=key, shard_lengths=[len(own)], num_bytes=0)
                for key, own in ordered.items()
            ]
        )
        try:
            cuts = tfds.core.ReadInstruction.from_spec(split).to_absolute(sizes)
        except (ValueError, AssertionError) as error:
            raise BadInput(
                "data", f"split {split!r} of {name}: {str(error).splitlines()[0]}"
            ) from None
        chosen = np.concatenate([ordered[one.splitname][one.from_ : one.to] for one in cuts])
    if not len(chosen):
        raise BadInput("data", f"split {split!r} of {name} has no examples", "name another split")
    if len(np.unique(chosen)) != len(chosen):
        raise BadInput(
            "data", f"split {split!r} of {name} has an example twice", "name each part once"
        )
    return chosen


def _ordered(rows: Rows, hashes: UInt8[np.ndarray, "n 32"]) -> Rows:
    """By hash, then as they were."""
    own = np.ascontiguousarray(hashes[rows]).view("S32")[:, 0]
    return rows[np.argsort(own, kind="stable")]
