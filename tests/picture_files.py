"""Pictures as files of a user's: what tests of the sources write."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(seed, height=9, width=12, channels=3):
    """Colours that no two seeds have alike; smooth, so that JPEG keeps most of them."""
    random = np.random.default_rng(seed)
    coarse = random.integers(256, size=(3, 4, channels), dtype=np.uint8)
    image = Image.fromarray(coarse[..., 0] if channels == 1 else coarse)
    found = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return found.reshape(height, width, channels)


def encoded(image, format="PNG", **options):
    """The bytes of a file."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def write(root, files):
    """Files by their path below `root`: bytes, or a number that says which picture it is."""
    for name, content in files.items():
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(pixels(content)) if isinstance(content, int) else content)
    return Path(root)


def classes(root, *, each=8, names=("cat", "dog"), begin=0):
    """`each` pictures of each class, in a folder of its own."""
    for i, name in enumerate(names):
        write(root, {f"{name}/{j}.png": begin + 100 * i + j for j in range(each)})
    return Path(root)
