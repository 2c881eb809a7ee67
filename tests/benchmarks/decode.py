"""How fast pictures are read, against what a step needs, and whether a step waits for them. Prints JSON.

  python tests/benchmarks/decode.py

Each kind of picture is written to a temporary folder and read as a run reads it. The processor's time of
all threads is taken, so that neither the disk nor what else runs on the machine counts.

  pictures_a_cpu_second   decoded, resized and cropped, by one core
  waited                  share of the time that a step waits for its batch, where the steps of a device
                          (here a sleep) take up `load` of what the cores can decode at the same time: a
                          tenth of it at most is what the arithmetic allows where `load` is well below 1
"""

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from result import show

from kdjax import alone
from kdjax.data import Dataset, sources, stream_feeds

KINDS: dict[str, dict[str, Any]] = {
    "JPEG 500x375 to 224": {"shape": (375, 500), "format": "JPEG", "size": 224, "crop": 0.875},
    "the same, draft": {
        "shape": (375, 500),
        "format": "JPEG",
        "size": 224,
        "crop": 0.875,
        "draft": True,
    },
    "JPEG 256x256 to 224": {"shape": (256, 256), "format": "JPEG", "size": 224, "crop": 0.875},
    "JPEG 1600x1200 to 224": {"shape": (1200, 1600), "format": "JPEG", "size": 224, "crop": 0.875},
    "JPEG 1600x1200 to 224, draft": {
        "shape": (1200, 1600),
        "format": "JPEG",
        "size": 224,
        "crop": 0.875,
        "draft": True,
    },
    "PNG 32x32": {"shape": (32, 32), "format": "PNG", "size": 32},
}


def write(folder: Path, shape: tuple[int, int], format: str, n: int) -> None:
    """Pictures with as much detail as photographs: noise of all scales, and of single pixels."""
    random = np.random.default_rng(0)
    for i in range(n):
        whole = np.zeros((*shape, 3))
        for octave in range(2, 8):
            coarse = random.normal(size=(2**octave, 2**octave, 3)) * 2.0 ** (6 - 0.8 * octave)
            for channel in range(3):
                image = Image.fromarray(coarse[..., channel].astype(np.float32))
                whole[..., channel] += np.asarray(image.resize(shape[::-1], 2))
        whole += random.normal(scale=8.0, size=whole.shape)
        picture = Image.fromarray(np.clip(whole + 128, 0, 255).astype(np.uint8))
        buffer = io.BytesIO()
        picture.save(buffer, format, quality=90)
        (folder / f"{i}.{format.lower()}").write_bytes(buffer.getvalue())


def rate(dataset: Dataset, seconds: float) -> float:
    """Pictures that a core reads in a second of its own."""
    rows, read = np.arange(len(dataset)), 0
    dataset.read(rows)
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        dataset.read(rows)
        read += len(rows)
    return read / (time.process_time() - begun)


def waited(dataset: Dataset, *, batch: int, step: float, steps: int) -> float:
    """Share of the time that steps of so many seconds wait for batches; the first 8 do not count."""
    feeds = stream_feeds(
        dataset,
        seed=0,
        batch=batch,
        share=slice(None),
        start=0,
        stop=steps,
        dispatch_steps=1,
    )
    waiting = 0.0
    begun = time.monotonic()
    for end in range(steps):
        asked = time.monotonic()
        next(feeds)
        if end == 8:
            begun, waiting = asked, 0.0
        waiting += time.monotonic() - asked
        time.sleep(step)
    return waiting / (time.monotonic() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--load", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=32)
    args = parser.parse_args()
    said: dict[str, Any] = {}
    for name, kind in KINDS.items():
        frame = {key: value for key, value in kind.items() if key not in ("shape", "format")}
        with tempfile.TemporaryDirectory() as root:
            write(Path(root), kind["shape"], kind["format"], args.pictures)
            size = sum(path.stat().st_size for path in Path(root).iterdir()) / args.pictures
            dataset = sources.folder("train", root=root, **frame)
            found = rate(dataset, args.seconds)
            step = args.batch / (args.load * alone.cores() * found)
            said[name] = {
                "bytes": round(size),
                "pictures_a_cpu_second": found,
                "step_ms": 1e3 * step,
                "waited": waited(dataset, batch=args.batch, step=step, steps=args.steps),
            }
    show({"cores": alone.cores(), "load": args.load, "batch": args.batch, "kinds": said})


if __name__ == "__main__":
    main()
