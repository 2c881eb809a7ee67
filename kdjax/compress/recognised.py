"""Which network published weights are of: the one whose every variable has its tensor."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import config, parse, tree, weights
from kdjax.choice import choices
from kdjax.config.encoders import Encoder
from kdjax.models import Compute
from kdjax.types import BadInput
from kdjax.weights import Preprocessing, Published, layouts


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
        wants = _wants(published, made)
        weights.mapped(published, named(made, wants))
        return {**encoder}, wants
    tried: list[str] = []
    for given in candidates(published):
        made = parse.parse(config.Encoder, given)
        wants = _wants(published, made)
        try:
            weights.mapped(published, named(made, wants))
        except BadInput:
            tried.append(made.title)
            continue
        return {**given}, wants
    likely = ", ".join(dict.fromkeys(one.family for one in _likely(published)))
    said = published.architecture
    raise BadInput(
        "--weights",
        f"{published.tensors.place} is no network that is known here"
        + (f"; it says it is {said}" if said else "")
        + (
            f"; its names are those of {likely}, and of none of {', '.join(tried)}" if tried else ""
        ),
        "give its config, --encoder='{\"name\": ...}' (see kdjax --fields=all)",
    )


def candidates(published: Published) -> Iterator[Mapping[str, Any]]:
    """What a file of kdjax says that it is; configs of the networks of the families that names look like."""
    said = published.written.get("model")
    own = said.get("encoder") if isinstance(said, Mapping) and not said.get("widths") else None
    if isinstance(own, Mapping):
        yield {
            name: value for name, value in own.items() if name != "weights" and value is not None
        }
    families = {one.of for one in _likely(published)}
    for kind in choices(config.Encoder):
        assert issubclass(kind, Encoder)
        for given in kind.published:
            module = parse.parse(config.Encoder, given).module(Compute())
            if isinstance(module, tuple(families)):
                yield given


def _likely(published: Published) -> list[weights.Layout]:
    names = list(published.tensors.said)
    return [one for one in layouts.layouts() if one.name != "kdjax" and one.looks_like(names)]


def _wants(published: Published, encoder: Encoder) -> Preprocessing:
    """What the files beside the weights say, what is known of the layout, or what is usual."""
    if (said := published.preprocessing) is not None:
        return said
    if encoder.published_size != 224:
        return Preprocessing(size=(encoder.published_size,) * 2, crop=1.0)
    module = encoder.module(Compute())
    own = [one for one in _likely(published) if isinstance(module, one.of)]
    known = (one.preprocessing for one in own if one.preprocessing is not None)
    return next(known, Preprocessing())


def classifier(
    published: Published, encoder: Encoder, size: tuple[int, int]
) -> tuple[int, tuple[str, ...]]:
    """How many classes the classifier in the files has, and what they are called, where it is said.

    Args:
      published: the weights.
      encoder: whose they are.
      size: of the pictures that it was trained on.

    Returns:
      The number, 0 where there is no classifier; names in their order, or none.
    """
    wants = dataclasses.replace(_wants(published, encoder), size=size)
    found = weights.mapped(published, named(encoder, wants))
    rules = [name for rule in found.layout.head for name in rule.theirs]
    tensors = published.tensors.said
    shapes = [tensors[found.full[name]].shape for name in rules if name in found.full]
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
    module = encoder.module(Compute())
    image = jax.ShapeDtypeStruct((1, *wants.size, len(wants.mean)), jnp.float32)
    shapes = jax.eval_shape(
        lambda key, x: module.init(key, x, train=True), jax.random.key(0), image
    )
    return weights.Named(
        module=module,
        encoder=tree.named_leaves(shapes),
        head=None,
        title=encoder.title,
        size=wants.size,
    )
