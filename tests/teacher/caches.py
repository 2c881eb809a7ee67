"""A small cache with another number in each place, and what tests do to the files of one."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from kdjax.teacher import Folder, TeacherCache, TopK, describe, write
from kdjax.types import BadInput

VIEWS = 3
IDS = np.array([7, 3, 4_000_000_000, 12, 0, 9, 250, 31, 77, 200], np.uint32)
SIGNAL = TopK(classes=1000, k=2, temperatures=(1.0, 4.0))
CHUNK = 4
"""Examples: three chunks of each part and view, and the last of them has but two."""

BINDING: Mapping[str, Any] = {
    "teachers": [
        {"stage": "big", "variables": "1f2e3d", "model": {"name": "cnn", "widths": [4, 8]}},
        {"stage": "other", "variables": None, "model": {"name": "vit", "depth": 2}},
    ],
    "together": "mean",
    "weights": None,
    "signal": describe(SIGNAL),
    "recipe": {"name": "crop_flip", "crop_scale": [0.6, 1.0], "flip": 0.5, "gray": False},
    "recipes_version": 1,
    "mix": {"name": "mixup", "alpha": 0.2},
    "pixels": "77aa",
    "dataset": {"name": "digits", "examples": len(IDS), "ids": "0abc", "samples": "def1"},
    "stream": "cache",
    "seed": 0,
    "views": VIEWS,
    "k": 2,
    "dtype": "float16",
    "backend": "cpu",
    "jax": "0.10.2",
}
"""As long as that of a real run, and with all that one may have: lists, nothings, flags."""


def said(ids: np.ndarray, views: np.ndarray) -> dict[str, np.ndarray]:
    """What the teacher says: another number for each place, all of them exact in float16."""
    base = (ids % 251 + views * 0.25)[:, None]
    return {
        "teacher_indices": (base * 8 + np.arange(2)).astype(np.uint16),
        "teacher_log_probs": (base - 8 * np.arange(2)).astype(np.float16),
        "teacher_log_tail": (-base / 2 - 64 * np.arange(2)).astype(np.float16),
    }


class Teacher:
    """Answers with `said`.

    Attributes:
      asked: `(rows, view)` of each time.
    """

    def __init__(self, ids: np.ndarray = IDS):
        self.ids = ids
        self.asked: list[tuple[list[int], int]] = []

    def __call__(self, rows: np.ndarray, view: int) -> dict[str, np.ndarray]:
        self.asked.append((rows.tolist(), view))
        return said(self.ids[rows], np.full(len(rows), view))


def written(folder, **changed):
    """Writes the cache, or one that differs in `changed`; gives the folder back."""
    ids = changed.get("ids", IDS)
    arguments = {
        "ids": ids,
        "views": VIEWS,
        "signal": SIGNAL,
        "ask": Teacher(ids),
        "batch": 3,
        "binding": BINDING,
        "chunk_bytes": CHUNK * SIGNAL.parts()["teacher_log_probs"].bytes,
    }
    write(folder, **{**arguments, **changed})
    return folder


def files_of(folder) -> dict[str, bytes]:
    """Every file by its name, as the store lists them."""
    files = Folder(folder)
    return {name: files.read(name) for name in files.names()}


def everything_in(folder) -> dict[str, bytes]:
    """Every file under a local folder by its name, and an entry for each folder there."""
    found = {}
    for path, _, names in os.walk(folder):
        found[os.path.relpath(path, folder) + "/"] = b""
        for name in names:
            file = os.path.join(path, name)
            with open(file, "rb") as opened:
                found[os.path.relpath(file, folder)] = opened.read()
    return found


def refused(folder, *texts: str, **changed) -> str:
    """The one line with which a reader refuses the cache; it has the texts and the mend."""
    with pytest.raises(BadInput) as error:
        TeacherCache.open(folder, **{"expected": BINDING, **changed})
    line = str(error.value)
    assert "\n" not in line
    for text in (str(folder), f"delete {folder} and run the cache stage again", *texts):
        assert text in line
    return line


def is_right(folder) -> bool:
    """Whether a reader takes it, and finds what the teacher said everywhere."""
    cache = TeacherCache.open(folder, expected=BINDING)
    for view in range(VIEWS):
        views = np.full(len(IDS), view, np.uint32)
        found = cache.read(IDS, views)
        for name, values in said(IDS, views).items():
            np.testing.assert_array_equal(found[name], values)
            assert found[name].dtype == values.dtype
    return True
