"""Your own network, arrays and views: a teacher, a student, and a small int8 file that is checked.

Copy this file and put your own into `arrays`, `Network` and `seen`, which know nothing of kdjax but
what they call. Here they are scikit-learn's handwritten digits, with 20 labels per class, and a plain
convolutional network. You may leave out any end of the line: no stage needs a later one.

  kdjax --config=configs/own_model.py --workdir=DIR
  kdjax --config=configs/own_model.py:weights=MINE.safetensors --workdir=DIR

With `weights` the teacher begins with a trained network, with the names of its module
(`kdjax.weights.write` writes them, and kdjax/weights says how), and with a linear probe of it.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from sklearn import datasets

from kdjax import data, views
from kdjax.parse import parse_arg


def arrays(split: str) -> data.Dataset:
    """Pictures [n, height, width, channel], uint8, and labels [n], -1 where there is none."""
    pixels, labels = datasets.load_digits(return_X_y=True)
    images = np.round(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    chosen = (np.arange(len(images)) % 5 == 0) == (split == "test")
    return data.from_arrays(images[chosen], labels[chosen], classes=10, name=split)


class Network(nn.Module):
    """From pictures [batch, height, width, channel] to features [batch, dim]: any linen module."""

    width: int

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Convolutions, each of twice as many channels at half the size."""
        x = image
        for i in range(3):
            x = nn.Conv(self.width * 2**i, (3, 3), use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
            x = nn.avg_pool(x, (2, 2), (2, 2)) if i < 2 else x
        return x.mean((1, 2))


def seen(
    key: jax.Array, image: jax.Array, *, size: tuple[int, int], pixels: int = 1, noise: float = 0.05
) -> jax.Array:
    """One view of a picture, in 0 to 1: it is drawn anew for each example and step."""
    shift_key, noise_key = jax.random.split(key)
    view = views.shift(shift_key, views.resize(image, size=size), pixels=pixels)
    return jnp.clip(view + noise * jax.random.normal(noise_key, view.shape), 0.0, 1.0)


def line(
    *,
    source: dict[str, Any],
    teacher: dict[str, Any],
    student: dict[str, Any],
    recipe: dict[str, Any],
    steps: int,
    batch: int,
    cached: int,
    labels: int | None,
    looked_at: int = 256,
) -> ConfigDict:
    """The run of one's own pieces.

    Args:
      source: of the data.
      teacher: the large encoder, with its weights or without.
      student: the small one.
      recipe: of the views that all learn from.
      steps: of each stage that trains.
      batch: of these.
      cached: views of each picture that the teacher is asked about.
      labels: of a class that may be used; None for all.
      looked_at: training pictures by which channels, and the ranges of int8, are chosen.
    """

    def training(rate: float) -> dict[str, Any]:
        cosine = dict(name="cosine", warmup_steps=min(50, steps // 4))
        adamw = dict(name="adamw", learning_rate=rate, weight_decay=1e-2, schedule=cosine)
        return dict(steps=steps, batch=batch, optimizer=adamw, log_every_steps=max(1, steps // 20))

    begun = "weights" in teacher
    distilled = dict(kind="distill", cache="cache", temperature=2.0)
    gradual = dict(name="gradual", sparsity=0.5, begin_step=0, end_step=steps // 2)
    c = ConfigDict()
    c.name = "own_model"
    c.data = dict(name="arrays", source=source, labels_per_class=labels)
    stages = dict(
        teacher=dict(
            kind="finetune",
            encoder=teacher,
            head="probe" if begun else "random",
            views=recipe,
            **training(1e-4 if begun else 3e-3),
        ),
        cache=dict(kind="cache", teacher="teacher", recipe=recipe, views=cached),
        student=dict(distilled, encoder=student, **training(3e-3)),
        # What the teacher is worth: the same network in as many steps, without it.
        scratch=dict(kind="finetune", encoder=student, views=recipe, **training(3e-3)),
        # Half of the weights become zeros, which says what the student can do without ...
        pruned=dict(
            distilled,
            start_from="student",
            prune=dict(gradual, every_steps=max(1, steps // 50)),
            **training(1e-3),
        ),
        # ... and half of the channels go: smaller arrays, which any runtime likes.
        shrunk=dict(kind="shrink", model="pruned", sparsity=0.5, multiple=8, examples=looked_at),
        small=dict(distilled, start_from="shrunk", **training(1e-3)),
        int8=dict(kind="quantize", model="small", calibration_examples=looked_at),
        # Each file is run on all test pictures, and refused where it answers otherwise than its model.
        float_file=dict(kind="export", model="small", formats=["onnx"]),
        file=dict(kind="export", model="int8", formats=["onnx"]),
    )
    c.stages = ConfigDict(stages, sort_keys=False)  # the report's rows stand in this order
    return c


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, weights="", labels=20, steps=1000, runlocal=False)
    short = args["runlocal"]
    weights = dict(weights=args["weights"]) if args["weights"] else {}
    return line(
        source=dict(function=arrays),
        teacher=dict(function=Network, width=32, **weights),
        student=dict(function=Network, width=16),
        recipe=dict(function=seen),
        steps=4 if short else args["steps"],
        batch=64 if short else 128,
        cached=2 if short else 8,
        labels=args["labels"],
    )
