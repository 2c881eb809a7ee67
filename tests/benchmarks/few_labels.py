"""What the recipe for few labels buys, on sets that it was not tuned for. Prints JSON.

  python tests/benchmarks/few_labels.py --workdir=DIR --data_dir=TFDS
  python tests/benchmarks/few_labels.py --workdir=DIR --data_dir=TFDS --sets=spoken --labels=10 --seeds=1

Each set and number of labels a class is one run of `configs/few_labels.py` in a folder of its own: begun
again, the same command goes on. Test accuracies in %, last step, mean and standard deviation over the
seeds, and the student's differences to the others in points, with the 95 % interval that the report has:
see `kdjax.report.rows.gain`.

  digits        the embedded ones
  cifar10       as TFDS has it; cifar10_grey: 28 x 28 and grey
  spoken        recordings of spoken digits (`spoken_digit:1.0.10`) as 28 x 28 spectrograms
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from result import show
from scipy import signal

from kdjax.report.rows import Row, gain

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.prepared_sets import encoded, write  # noqa: E402

SIDE = 28


def _grey(example: dict[str, Any]) -> np.ndarray:
    image = Image.fromarray(example["image"]).convert("L")
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _spectrogram(example: dict[str, Any]) -> np.ndarray:
    """The loudest 60 dB of a recording at 8 kHz, low frequencies below, all of its time."""
    audio = np.asarray(example["audio"], np.float32) / 32768
    audio = np.pad(audio, (0, max(0, 256 - len(audio))))
    of: Any = signal.spectrogram  # whose stubs know no detrend=False
    *_, magnitude = of(audio, 8000, nperseg=256, noverlap=192, detrend=False, mode="magnitude")
    decibels = 20 * np.log10(magnitude + 1e-9)
    level = np.clip((decibels - decibels.max() + 60) / 60, 0, 1)
    picture = Image.fromarray(np.uint8(level[::-1] * 255))
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


MADE = {"cifar10_grey": ("cifar10", _grey), "spoken": ("spoken_digit:1.0.10", _spectrogram)}
"""Sets that are made of others: of which, and how a picture is."""


def made(name: str, folder: Path, data_dir: str) -> str:
    """The directory that has the set: written there, if it is made of another."""
    if name not in MADE:
        return data_dir
    of, picture = MADE[name]
    if not (folder / name).exists():
        splits = {}
        for split in ("train", "test"):
            source: Any = tfds.data_source(of, split=split, data_dir=data_dir, download=False)
            splits[split] = [
                [
                    {
                        "id": f"{split}_{i}".encode(),
                        "image": encoded(picture(source[i])),
                        "label": int(source[i]["label"]),
                    }
                    for i in range(len(source))
                ]
            ]
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(SIDE, SIDE, 1)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        write(folder / f".{name}" / "1.0.0", features, splits)
        (folder / f".{name}").rename(folder / name)
    return str(folder)


def accuracy(row: Row) -> dict[str, Any]:
    """In %, over the seeds."""
    found = [100 * x for x in row.accuracy_per_seed or (row.accuracy or 0.0,)]
    return {"mean": statistics.fmean(found), "sd": statistics.stdev(found) if found[1:] else None}


def compared(student: Row, other: Row) -> dict[str, Any]:
    """Student over the other, in points."""
    found = gain(student, other)
    assert found is not None  # both were measured
    return {"mean": 100 * found.difference, "interval_95": [100 * x for x in found.ci95]}


def run(name: str, labels: int, args: argparse.Namespace) -> dict[str, Any]:
    """One run of the recipe, to its report."""
    data_dir = made(name, Path(args.workdir), args.data_dir)
    workdir = Path(args.workdir, f"{name}_{labels}")
    arg = f"name={name},labels={labels},seeds={args.seeds},effort={args.effort}"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "kdjax.main",
            f"--config={ROOT}/configs/few_labels.py:{arg}",
            f"--workdir={workdir}",
        ],
        check=True,
        env={**os.environ, "KDJAX_DATA_DIR": data_dir},
        cwd=ROOT,
        stdout=sys.stderr,
    )
    report = json.loads((workdir / "report.json").read_text())
    rows = {row["stage"]: Row(**row) for row in report["rows"] if row["accuracy"] is not None}
    seconds = report["run"]["wall_seconds"]
    return {
        "accuracy": {name: accuracy(row) for name, row in rows.items()},
        "student_over": {
            name: compared(rows["student"], row) for name, row in rows.items() if name != "student"
        },
        "minutes_a_seed": sum(seconds.values()) / 60 / args.seeds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--data_dir", default=os.environ.get("KDJAX_DATA_DIR"))
    parser.add_argument("--sets", default="digits,spoken,cifar10_grey,cifar10")
    parser.add_argument("--labels", default="10")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--effort", type=float, default=1.0)
    args = parser.parse_args()
    Path(args.workdir).mkdir(parents=True, exist_ok=True)
    show(
        {
            f"{name}, {labels} labels a class": run(name, int(labels), args)
            for name in args.sets.split(",")
            for labels in args.labels.split(",")
        }
    )


if __name__ == "__main__":
    main()
