"""What every source of pictures takes besides where they lie, and how labels are read."""

import os
import re
from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

import numpy as np
from jaxtyping import Int32

from kdjax import paths, views
from kdjax.data.dataset import Dataset
from kdjax.data.seen import Kept
from kdjax.data.sources.encoded import Check, Encoded, from_encoded
from kdjax.data.sources.framing import Frame, Resize
from kdjax.data.targets import UNLABELLED, Classes, Target
from kdjax.data.unlabelled import Unlabelled
from kdjax.spelling import suggestion
from kdjax.types import BadInput, Interpolation, under

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


_MOST_CLASSES = 100_000
"""That labels make by being so large, where nothing says how many there are."""


class How(TypedDict, total=False):
    """What pictures are made into, and which of them are taken; see `Frame` and `from_encoded`.

    Attributes:
      size: height and width, or one integer for both. There is no default.
      resize: see `Frame`.
      crop: likewise.
      interpolation: likewise.
      channels: likewise.
      background: likewise.
      draft: likewise.
      test_share: see `from_encoded`.
      skip_broken: likewise.
      check: likewise.
      kept: likewise.
    """

    size: int | tuple[int, int]
    resize: Resize
    crop: float
    interpolation: Interpolation
    channels: int
    background: tuple[int, int, int]
    draft: bool
    test_share: float
    skip_broken: bool
    check: Check
    kept: Kept | None


_FRAME = ("size", "resize", "crop", "interpolation", "channels", "background", "draft")


def dataset_of(encoded: Encoded, split: str, *, what: Any, **how: Unpack[How]) -> Dataset:
    """The dataset of a source's pictures, with the options that it was given.

    Raises:
      BadInput: an option is none, or see `from_encoded`.
    """
    given: dict[str, Any] = {**how}
    if "size" not in given:
        raise BadInput("size", "missing", "give height and width, such as size=(64, 64)")
    frame = {name: given.pop(name) for name in _FRAME if name in given}
    frame["size"] = views.sides(frame["size"])
    if "background" in frame:
        frame["background"] = tuple(frame["background"])
    return from_encoded(encoded, split, frame=Frame(**frame), what=what, **given)


def local(root: str | os.PathLike[str]) -> str:
    """The directory or file that a user names, on a file system.

    Raises:
      BadInput: it is none, or not there.
    """
    path = os.fspath(root)
    parsed = paths.parse(path, field="root")
    if not isinstance(parsed, paths.LocalPath):
        raise BadInput("root", f"{path} is no local path", "mount the bucket, or copy it")
    found = os.path.abspath(os.fspath(parsed))
    if not os.path.exists(found):
        raise BadInput("root", f"{found} is not there", "name a directory or a file that is")
    return found


def files_below(root: str, suffixes: tuple[str, ...], *, kind: str) -> dict[str, str]:
    """Files of these endings, by their path relative to `root`, in order; `root` itself where it is one.

    Hidden ones are left out.

    Raises:
      BadInput: there is none, or `root` is a file of another ending.
    """
    endings = " or ".join(suffixes)
    if os.path.isfile(root):
        if not root.lower().endswith(suffixes):
            raise BadInput(
                "root", f"{shown(root)} is none of {kind}", f"their names end in {endings}"
            )
        return {os.path.basename(root): root}
    found = {}
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        for name in names:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                path = os.path.join(folder, name)
                found[os.path.relpath(path, root).replace(os.sep, "/")] = path
    if not found:
        raise BadInput("root", f"{root} has no {kind}", f"its files end in {endings}")
    return dict(sorted(found.items()))


def shown(path: str) -> str:
    """A path in one line, whatever is in its name."""
    return path if path.isprintable() else ascii(path)


def classes_of(
    values: Sequence[Any],
    *,
    classes: int | None,
    names: Sequence[str] | None,
    name: str,
) -> tuple[Int32[np.ndarray, " n"], Target]:
    """Labels of classes, and what they are of.

    Args:
      values: integers from 0, -1 for none; or the names of classes, which are numbered in the order of
        the alphabet. None and the empty text are no label.
      classes: how many there are; as many as there are names, or one more than the largest, by default.
      names: of the classes in their order, where they are known.
      name: of the data, for messages.

    Raises:
      BadInput: they are no classes, or not these.
    """
    known = [None if one is None or one == "" else one for one in values]
    given = [one for one in known if one is not None]
    strange = next(
        (one for one in given if not isinstance(one, str) and not _is_integer(one)), None
    )
    if strange is not None:
        raise BadInput(
            "label", f"{strange!r} of {name} is no class", "give names, or integers from 0"
        )
    numbers = [None if one is None else integer(one) for one in known]
    texts = {str(one) for one in given} if any(isinstance(one, str) for one in given) else set()
    if texts and (numbers.count(None) > known.count(None) or texts <= {*(names or [])}):
        names = list(names) if names else sorted(texts)
        number = {text: i for i, text in enumerate(names)}
        if unknown := sorted(texts - {*number}):
            raise BadInput(
                "label", f"{unknown[0]!r} of {name} is no class", suggestion(unknown[0], names)
            )
        numbers = [None if one is None else number[str(one)] for one in known]
    most_classes = max(_MOST_CLASSES, len(known), classes or 0)
    if beyond := [one for one in numbers if one is not None and one >= most_classes]:
        raise BadInput(
            "label",
            f"{beyond[0]} of {name} would be one of {beyond[0] + 1:,} classes",
            "mend it, or say how many there are: classes=",
        )
    labels = np.asarray([UNLABELLED if one is None else one for one in numbers], np.int64)
    if (labels == UNLABELLED).all() and classes is None and not names:
        return Unlabelled().hidden(len(labels)), Unlabelled()
    most = len(names) if names else max(1, int(labels.max()) + 1)
    count = most if classes is None else classes
    if count < most:
        raise BadInput("classes", f"{count}, and {name} has {most}", f"give {most}")
    target = Classes(count, tuple(names) if names and len(names) == count else ())
    with under("", {"data": "label"}):
        return target.read(labels, n=len(labels), name=name).astype(np.int32), target


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def integer(value: Any) -> int | None:
    """An integer as tables and files write it, or one that is; None for anything else.

    `int` alone takes Python's `1_0` for 10, 1.5 for 1 and true for 1.
    """
    if isinstance(value, str):
        return int(value) if _INTEGER.fullmatch(value.strip()) else None
    return int(value) if _is_integer(value) else None


def memory() -> int:
    """Bytes that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
