"""A dataset of encoded pictures, wherever they lie: what every source of pictures calls."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, Int64, Shaped, UInt8

from kdjax import alone, fingerprint
from kdjax.data.dataset import Dataset
from kdjax.data.ids import unique_ids
from kdjax.data.pictures import Unfit
from kdjax.data.seen import Kept
from kdjax.data.sources import splits, twice
from kdjax.data.sources.framing import Frame, framed
from kdjax.data.sources.index import Index, index, workers
from kdjax.data.targets import Target
from kdjax.types import BadInput, Field

Check = Literal["pixels", "header"]

_NAMED = 20
"""Broken pictures that a line names."""

_VERSION = 1
"""Of what is made of a picture; part of every fingerprint."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    """Encoded pictures by row, and what is known of them without looking at their pixels.

    Attributes:
      name: what they are, for messages and the report.
      keys: the picture's own name, each once. An id is of it and of the content.
      shown: row -> where a picture lies, for messages.
      content: row -> the bytes of its file. Called by several threads; an `OSError` of it, and what
        Pillow cannot read, are named with the picture.
      labels: one each, as `target` has them.
      target: what they are of.
      stamps: what says, without reading it, that a picture is what it was: size, time of its last
        writing and time of its last change in ns, and more.
      splits: rows of each split, where the pictures lie in such; None where they are all together.
      notes: what is to be said of them, in a line each.
    """

    name: str
    keys: Sequence[bytes]
    shown: Callable[[int], str]
    content: Callable[[int], bytes]
    labels: Shaped[np.ndarray, "n ..."]
    target: Target
    stamps: Int64[np.ndarray, "n k"]
    splits: Mapping[str, Int64[np.ndarray, " _"]] | None = None
    notes: tuple[str, ...] = ()


def from_encoded(
    encoded: Encoded,
    split: str,
    *,
    frame: Frame,
    test_share: float = 0.0,
    skip_broken: bool = False,
    check: Check = "pixels",
    what: Any = None,
    kept: Kept | None = None,
) -> Dataset:
    """The pictures of a split, each decoded when it is asked for, by all cores.

    Every picture is read once, here: its hash, which its id and the fingerprint are of, and whether it
    can be decoded; not at all where `kept` has that.

    An id is the hash of the picture's name and content in 32 bits. Of two with one hash the one whose
    name comes later takes the next hash, so that an id changes with another picture only where these
    two collide: once in `2**32 / n` pictures that are added to `n`.

    Args:
      encoded: the pictures.
      split: as TFDS writes it: `train`, `test[:50%]`, `train+test`.
      frame: what every picture is made into.
      test_share: of the pictures, where they have no split `test`, or of `train` where they have that:
        those whose content hashes below it are `test`, and the others `train`.
      skip_broken: leave out what cannot be decoded, and say so; otherwise it is refused.
      check: whether every picture is decoded once before anything is trained, or its header is looked
        at.
      what: the pictures are of, as plain data, for `kept`; their name by default.
      kept: what earlier starts have found.

    Raises:
      BadInput: there is no such split, or nothing in it, or pictures are broken; the line names them.
    """
    splits.check_share(test_share)
    if not len(encoded.keys):
        raise BadInput("root", f"{encoded.name} has no pictures")
    lying, by_rule = _lying(encoded, test_share)
    known = [*lying, "test"] if by_rule else [*lying]
    mend = "" if "test" in known else "give test_share=0.1 to have a tenth for the test"
    asked = splits.named(split, known, name=encoded.name, mend=mend)
    inside = np.zeros(len(encoded.keys), bool)
    for key, rows in lying.items():
        inside[rows] = key in asked or (by_rule is not None and key == by_rule)

    def wanted(row: int, digest: bytes) -> bool:
        if not inside[row]:
            return False
        if by_rule is None or {"test", by_rule} <= {*asked} or row not in ruled:
            return True
        hashes = np.frombuffer(digest, np.uint8)[None]
        return bool(splits.in_test(hashes, test_share)[0]) == ("test" in asked)

    ruled = frozenset() if by_rule is None else frozenset(lying[by_rule].tolist())
    found = index(encoded, wanted, pixels=check == "pixels", what=what or encoded.name, kept=kept)
    if by_rule is not None:
        rows = lying.pop(by_rule)
        apart = splits.in_test(found.hashes[rows], test_share)
        unread = ~found.hashes[rows].any(1)  # in neither: a rule knows nothing of their content
        lying |= {by_rule: rows[~apart | unread], "test": rows[apart | unread]}
    faults = _faults(found, frame, np.concatenate([lying[key] for key in asked]))
    notes = [*encoded.notes, *_refused(encoded, faults, skip=skip_broken)]
    whole = {
        key: np.asarray([row for row in rows if row not in faults], np.int64)
        for key, rows in lying.items()
    }
    if by_rule is not None:
        sizes = {part: len(whole[part]) for part in (by_rule, "test")}
        splits.check_apart(sizes, test_share, name=encoded.name)
    chosen = splits.cut(split, whole, found.hashes, name=encoded.name)
    notes += twice.notes_of(
        {key: rows[found.hashes[rows].any(1)] for key, rows in whole.items()},
        found.hashes,
        encoded.labels,
        encoded.target,
        shown=encoded.shown,
        name=encoded.name,
        kind="picture",
    )
    return _dataset(encoded, found, chosen, split, frame=frame, notes=tuple(notes))


def _lying(
    encoded: Encoded, test_share: float
) -> tuple[dict[str, Int64[np.ndarray, " _"]], str | None]:
    """The splits as they lie, and which of them a rule cuts a test from."""
    every = np.arange(len(encoded.keys))
    lying = {"train": every} if encoded.splits is None else {**encoded.splits}
    if not test_share:
        return lying, None
    splits.to_cut(lying, name=encoded.name)
    return lying, "train"


def _faults(found: Index, frame: Frame, rows: Int64[np.ndarray, " _"]) -> dict[int, str]:
    """What is wrong with pictures of these rows, by row."""
    faults = {row: found.faults[row] for row in rows.tolist() if row in found.faults}
    shapes, where = np.unique(found.sizes[rows], axis=0, return_inverse=True)
    for i, (height, width) in enumerate(shapes.tolist()):
        if not height:
            continue
        try:
            frame.resized(height, width)
        except Unfit as error:
            faults |= {row: str(error) for row in rows[where.ravel() == i].tolist()}
    return faults


def _refused(encoded: Encoded, faults: Mapping[int, str], *, skip: bool) -> list[str]:
    """A note of what is skipped.

    Raises:
      BadInput: it is not to be skipped.
    """
    if not faults:
        return []
    named = [f"{encoded.shown(row)} ({faults[row]})" for row in sorted(faults)[:_NAMED]]
    more = f", and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
    several = "1 picture" if len(faults) == 1 else f"{len(faults)} pictures"
    line = f"{several} of {encoded.name} cannot be used: {', '.join(named)}{more}"
    if not skip:
        raise BadInput("root", line, "mend or remove them, or set skip_broken=True")
    return [f"skipped, {line}"]


def _dataset(
    encoded: Encoded,
    found: Index,
    chosen: Int64[np.ndarray, " _"],
    split: str,
    *,
    frame: Frame,
    notes: tuple[str, ...],
) -> Dataset:
    hashes = found.hashes
    ids = unique_ids(
        [key + b"\0" + digest.tobytes() for key, digest in zip(encoded.keys, hashes, strict=True)]
    )[chosen]
    described = {
        "version": _VERSION,
        "frame": dataclasses.asdict(frame),
        "content": hashlib.sha256(hashes[chosen].tobytes()).hexdigest(),
        "ids": hashlib.sha256(ids.tobytes()).hexdigest(),
        "target": [str(encoded.target), [*getattr(encoded.target, "names", ())]],
    }
    return Dataset(
        name=f"{encoded.name} {split}",
        ids=ids,
        labels=encoded.labels[chosen],
        target=encoded.target,
        fields={"image": Field(frame.shape, "uint8")},
        read=_reader(encoded, chosen, frame),
        marked=lambda labels: fingerprint.of_json(
            described | {"labels": hashlib.sha256(labels.tobytes()).hexdigest()}
        ),
        notes=notes,
        originals=found.sizes[chosen],
    )


def _reader(
    encoded: Encoded, chosen: Int64[np.ndarray, " _"], frame: Frame
) -> Callable[[Int[np.ndarray, " b"]], dict[str, UInt8[np.ndarray, "b height width channel"]]]:
    def read(
        rows: Int[np.ndarray, " b"],
    ) -> dict[str, UInt8[np.ndarray, "b height width channel"]]:
        pixels = np.empty((len(rows), *frame.shape), np.uint8)

        def some(part: Int[np.ndarray, " k"]) -> None:
            for i in part:
                row = int(chosen[rows[i]])
                try:
                    pixels[i] = framed(encoded.content(row), frame)
                except (Unfit, OSError) as error:
                    said = getattr(error, "strerror", None) or error
                    raise BadInput(
                        "data",
                        f"{encoded.shown(row)} of {encoded.name} cannot be used any more: {said}",
                        "put it back, then run the same command again",
                    ) from None

        parts = [part for part in np.array_split(np.arange(len(rows)), alone.cores()) if len(part)]
        for _ in workers().map(some, parts):
            pass
        return {"image": pixels}

    return read
