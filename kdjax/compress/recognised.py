"""Which network published weights are of: the one whose every variable has its tensor."""

import functools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import config, parse, weights
from kdjax.compress.known import IMAGENET_SIZE, networks
from kdjax.config.encoders import Encoder
from kdjax.files import from_json
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.types import BadInput, Field, under
from kdjax.weights import Preprocessing, Published, layouts
from kdjax.weights.rules import bind


def recognised(
    published: Published, *, encoder: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], Preprocessing]:
    """The config of the network whose weights these are, and how it wants pictures.

    Args:
      published: the weights.
      encoder: its config, where the user gives it.

    Raises:
      BadInput: they are of no network that is known, or not of the one that is given.
    """
    if encoder is not None:
        made = parse.parse(config.Encoder, encoder, "--encoder")
        wants = _wants(published, made, IMAGENET_SIZE)
        pictures = {"image": Field((*wants.size, len(wants.mean)), "uint8")}
        with under("", {"encoder": "--encoder"}):
            made.given(Inputs.of(pictures, mean=wants.mean, std=wants.std))
        try:
            found = weights.mapped(published, named(made, wants))
        except weights.Misfit as error:  # whose mend is a field that a config has
            raise BadInput(error.path, error.fault, "give the encoder that it is") from None
        found.check_values()
        return {**encoder}, wants
    model = published.written.get("model")
    if isinstance(model, Mapping) and (model.get("widths") or "numbers" in published.written):
        raise BadInput(
            "--weights",
            f"{published.tensors.place} is of a network that kdjax has shrunk or quantized already",
            "give the network that it was made of",
        )
    faults: list[tuple[float, str]] = []
    for given, size in candidates(published):
        made = parse.parse(
            config.Encoder, given, f"--weights={published.tensors.place}: header: model"
        )
        wants = _wants(published, made, size)
        try:
            found = weights.mapped(published, named(made, wants))
        except BadInput as error:
            faults.append((_far(error), error.fault))
            continue
        found.check_values()
        return {**given}, wants
    said = published.architecture
    nearest = min(faults, default=(0.0, ""), key=lambda one: one[0])[1]
    raise BadInput(
        "--weights",
        f"{published.tensors.place} is no network that is known here"
        + (f"; it says it is {said}" if said else "")
        + (f"; of {len(faults)} the nearest: {nearest}" if faults else ""),
        "give its config, --encoder=\"{'name': ...}\" (see kdjax --fields=all)",
    )


def _far(error: BadInput) -> float:
    """By how many tensors weights are not those of a network."""
    if isinstance(error, weights.Misfit):
        return float(error.count)
    return 1.0 if error.path == weights.FIELD else math.inf  # of a dtype; of what config.json says


def candidates(published: Published) -> Iterator[tuple[Mapping[str, Any], int]]:
    """What a file of kdjax says that it is; networks of the families that the names look like.

    Each has the size of its pictures.
    """
    said = published.written.get("model")
    own = said.get("encoder") if isinstance(said, Mapping) and not said.get("widths") else None
    if isinstance(own, Mapping):
        yield {name: value for name, value in own.items() if name != "weights"}, IMAGENET_SIZE
    families = tuple({one.of for one in _likely(published)})
    for given, size in networks():
        if isinstance(parse.parse(config.Encoder, given).module(Compute()), families):
            yield given, size


def _likely(published: Published) -> list[weights.Layout]:
    names = list(published.tensors.said)
    return [one for one in layouts.layouts() if one.name != "kdjax" and one.looks_like(names)]


def _wants(published: Published, encoder: Encoder, size: int) -> Preprocessing:
    """What the files beside the weights say, what is known of the layout, or what is usual.

    Args:
      published: the weights.
      encoder: whose they are.
      size: of the pictures that it was trained on, where nothing says so.
    """
    if (said := published.preprocessing) is not None:
        return said
    if size != IMAGENET_SIZE:
        return Preprocessing(size=(size, size), crop=1.0)
    module = encoder.module(Compute())
    own = [one for one in _likely(published) if one.is_for(module)]
    known = (one.preprocessing for one in own if one.preprocessing is not None)
    return next(known, Preprocessing())


def classifier(
    published: Published, encoder: Encoder, wants: Preprocessing
) -> tuple[int, tuple[str, ...]]:
    """How many classes the classifier in the files has, and what they are called, where it is said.

    Args:
      published: the weights.
      encoder: whose they are.
      wants: how it wants pictures.

    Returns:
      The number, 0 where there is no classifier; names in their order, or none.
    """
    found = weights.mapped(published, named(encoder, wants))
    rules, _ = bind(found.layout.head, ("kernel", "bias"))
    names_of = [name for rule in rules for name in rule.theirs]
    tensors = published.tensors.said
    shapes = [tensors[found.full[name]].shape for name in names_of if name in found.full]
    if not shapes:
        return 0, ()
    classes = shapes[-1][-1]
    said = published.config.get("id2label")
    said = published.config.get("label_names") if said is None else said
    if isinstance(said, Mapping):
        said = [said.get(str(i), said.get(i)) for i in range(classes)]
    if not isinstance(said, list) or len(said) != classes:
        return classes, ()
    return classes, tuple(said) if all(isinstance(name, str) for name in said) else ()


def named(encoder: Encoder, wants: Preprocessing) -> weights.Named:
    """A network for its names, without a classifier."""
    text = json.dumps(parse.plain(encoder.architecture), sort_keys=True)
    return _named(text, wants.size, len(wants.mean))


@functools.lru_cache(maxsize=64)
def _named(text: str, size: tuple[int, int], channels: int) -> weights.Named:
    """Of a network of this text: each is traced once, however often it is asked about."""
    encoder = parse.parse(config.Encoder, from_json(text), "encoder")
    module = encoder.module(Compute())
    image = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    shapes = jax.eval_shape(
        lambda key, x: module.init(key, x, train=True), jax.random.key(0), image
    )
    return weights.named(module, shapes, title=encoder.title, size=size)
