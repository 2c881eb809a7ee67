"""What the recipe for few labels buys, on sets that it was not tuned for, and what each part of it buys.

  python tests/benchmarks/few_labels.py --workdir=DIR --data_dir=TFDS
  python tests/benchmarks/few_labels.py --workdir=DIR --data_dir=TFDS --sets=spoken --labels=10 --seeds=1
  python tests/benchmarks/few_labels.py --workdir=DIR --data_dir=TFDS --sets=digits --without=warp,probe

Each set and number of labels a class is one run of `configs/few_labels.py` in a folder of its own: begun
again, the same command goes on. What is kept of each report (`kdjax tables keep`) is a file of `--out`.

  digits        the embedded ones
  cifar10       as TFDS has it; cifar10_grey: 28 x 28 and grey
  spoken        recordings of spoken digits (`spoken_digit:1.0.10`) as 28 x 28 spectrograms
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from scipy import signal

from kdjax.commands import tables

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


def run(name: str, labels: str, without: str, args: argparse.Namespace) -> None:
    """One run of the recipe, to its report and what is kept of it."""
    data_dir = made(name, Path(args.workdir), args.data_dir)
    of = f"{name}_{labels}" + (f"_without_{without}" if without else "")
    workdir = Path(args.workdir, of)
    arg = f"name={name},labels={labels},seeds={args.seeds}"
    if without:
        arg += f",without={without}"
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
    if tables.main(["keep", str(workdir), str(Path(args.out, f"{of}.json"))]) != 0:
        sys.exit(f"{workdir}: see above")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--data_dir", default=os.environ.get("KDJAX_DATA_DIR"))
    parser.add_argument("--sets", default="digits,spoken,cifar10_grey,cifar10")
    parser.add_argument("--labels", default="10")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--without", default="", help="a list; with an empty item: the recipe whole, too"
    )
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "few_labels"))
    args = parser.parse_args()
    Path(args.workdir).mkdir(parents=True, exist_ok=True)
    Path(args.out).mkdir(parents=True, exist_ok=True)
    for name in args.sets.split(","):
        for labels in args.labels.split(","):
            for without in args.without.split(","):
                run(name, labels, without, args)


if __name__ == "__main__":
    main()
