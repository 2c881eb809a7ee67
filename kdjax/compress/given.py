"""What `--data` and `--labels` name: where it is, and whether a network can see it and learn of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdjax import config, data, parse, paths
from kdjax.compress.budget import Budget
from kdjax.contexts import build
from kdjax.data import Dataset, sources
from kdjax.report import units
from kdjax.types import BadInput


class Asked(NamedTuple):
    """The arguments, see `kdjax.commands.words.compress`."""

    weights: str
    data: str
    budget: Budget
    labels: str
    encoder: str | None
    minutes: float
    test_share: float
    skip_broken: bool
    seed: int


def source_of(asked: Asked) -> dict[str, Any]:
    """The config of what `--data` names, without the size of pictures.

    Raises:
      BadInput: there is no such place, or it is of another kind.
    """
    place, cut = Path(paths.parse(asked.data, field="--data")), {"test_share": asked.test_share}
    shared = {**cut, "skip_broken": asked.skip_broken}
    if not place.exists():
        raise BadInput("--data", f"{place} is not there", "name a folder or a file that is")
    root = str(place.absolute())
    if asked.labels not in ("auto", "none", "first", "last"):
        if not asked.labels.endswith(".csv"):
            raise BadInput(
                "--labels", f"{asked.labels!r}", "give auto, none, first, last, or a .csv table"
            )
        table = Path(paths.parse(asked.labels, field="--labels"))
        if not table.is_file():
            raise BadInput("--labels", f"{table} is not there", "name a table that is")
        return {"kind": "csv", "root": str(table.absolute()), **shared}
    inside = [place] if place.is_file() else [p for p in sorted(place.iterdir()) if p.is_file()]
    kind = _kind(place, {path.suffix.lower() for path in inside})
    if kind == "folder":
        return {"kind": kind, "root": root, "labels": asked.labels, **shared}
    if asked.labels in ("first", "last"):
        fault = f"{asked.labels} is of folders of pictures, and {place} is read as {kind}"
        raise BadInput("--labels", fault, "give auto, none, or a .csv table")
    unlabelled = {"label": None} if asked.labels == "none" else {}
    return {"kind": kind, "root": root, **unlabelled, **(cut if kind == "npz" else shared)}


def _kind(place: Path, endings: set[str]) -> str:
    """Of the source of a file, or of a folder with files of these endings."""
    if endings & {".arrow", ".parquet"}:
        return "arrow"
    if ".tar" in endings:
        return "tar"
    if not place.is_file():
        return "folder"
    if (ending := place.suffix.lower()) in (".csv", ".npz"):
        return ending[1:]
    raise BadInput(
        "--data",
        f"{place} is a file of a kind that is not read so",
        "give a folder of pictures, .tar files, Arrow, Parquet or .npz files, or a .csv table",
    )


def read(of_data: Mapping[str, Any], kept: data.Kept, *, flag: str) -> dict[str, Dataset]:
    """Both splits; messages call what they are of by this flag.

    Raises:
      AlreadySplit, BadInput: see `kdjax.contexts.build.dataset`.
    """
    made = parse.parse(config.Data, of_data, "data")
    try:
        return {split: build.dataset(made, split, kept=kept) for split in ("train", "test")}
    except sources.AlreadySplit:
        raise
    except BadInput as error:  # which names a field of a config that the user has not written
        mend = error.mend.replace("set skip_broken=True", "give --skip_broken")
        mend = mend.replace(" labels=", " --labels=").replace("test_share=", "--test_share=")
        raise BadInput(flag, error.fault, mend) from None


def check_seen(train: Dataset, test: Dataset, *, channels: int) -> None:
    """Raises `BadInput` where a network of so many channels cannot see the examples."""
    found = [(field.dtype, field.shape) for field in train.fields.values()]
    if len(found) != 1 or found[0][0] != "uint8" or len(found[0][1]) != 3:
        said = ", ".join(f"{dtype} {list(shape)}" for dtype, shape in found)
        raise BadInput(
            "--data",
            f"the examples of {train.name} are {said}, and no pictures",
            "save them as uint8 [n, height, width, channel]",
        )
    if (own := found[0][1][-1]) != channels:
        raise BadInput(
            "--data",
            f"the pictures of {train.name} have {units.count(own, 'channel')}, and the network "
            f"sees {channels}",
            f"save them with {channels}, the last axis",
        )
    if train.fields != test.fields:
        both = (str(next(iter(one.fields.values())).shape) for one in (train, test))
        fault = f"the pictures of {train.name} and {test.name} are of {' and '.join(both)}"
        raise BadInput("--data", fault, "save them in one size")


def check_classes(dataset: Dataset) -> None:
    """Raises `BadInput` where the labels are no classes between which a network may choose."""
    mend = "give --labels=none, with which they are not needed"
    if not isinstance(dataset.target, data.Classes):
        fault = f"those of {dataset.name} are {dataset.target}, and no classes"
        raise BadInput("--labels", fault, mend)
    if len(np.unique(dataset.labels[dataset.shown])) < 2:
        raise BadInput("--labels", f"all of {dataset.name} are of one class", mend)
