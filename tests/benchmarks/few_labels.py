"""What the recipe for few labels buys, on sets that it was not tuned for. Prints JSON.

  python tests/benchmarks/few_labels.py --workdir=DIR --data_dir=TFDS
  python tests/benchmarks/few_labels.py --workdir=DIR --data_dir=TFDS --sets=spoken --labels=10 --seeds=1

Each set and number of labels a class is one run of `configs/few_labels.py` in a folder of its own: begun
again, the same command goes on. Test accuracies in %, last step, mean and standard deviation over the
seeds, and the student's differences to the others seed by seed, with a 95 % interval of Student's t where
there are three seeds or more.

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
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from result import show
from scipy import signal, stats

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


def accuracies(report: dict[str, Any]) -> dict[str, list[float]]:
    """Of each row, seed by seed, in %."""
    rows = {row["stage"]: row for row in report["rows"]}
    return {
        name: [100 * x for x in row["accuracy_per_seed"] or [row["accuracy"]]]
        for name, row in rows.items()
        if row["accuracy"] is not None
    }


def compared(student: list[float], other: list[float]) -> dict[str, Any]:
    """Student over the other, seed by seed."""
    found = [a - b for a, b in zip(student, other, strict=True)]
    said: dict[str, Any] = {"mean": statistics.fmean(found), "by_seed": found}
    if len(found) > 2:
        reach = stats.t.ppf(0.975, len(found) - 1) * statistics.stdev(found) / len(found) ** 0.5
        said["interval_95"] = [said["mean"] - reach, said["mean"] + reach]
    return said


def run(name: str, labels: int, args: argparse.Namespace) -> dict[str, Any]:
    """One run of the recipe, to its report."""
    data_dir = made(name, Path(args.workdir), args.data_dir)
    workdir = Path(args.workdir, f"{name}_{labels}")
    arg = f"name={name},labels={labels},seeds={args.seeds},effort={args.effort}"
    begun = time.perf_counter()
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
    found = accuracies(report)
    seconds = report["run"]["wall_seconds"]
    return {
        "accuracy": {
            row: {"mean": statistics.fmean(x), "sd": statistics.stdev(x) if len(x) > 1 else None}
            for row, x in found.items()
        },
        "student_over": {
            row: compared(found["student"], x) for row, x in found.items() if row != "student"
        },
        "minutes_a_seed": sum(seconds.values()) / 60 / args.seeds,
        "minutes_this_time": (time.perf_counter() - begun) / 60,
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
