"""Weights in the place of random numbers, where an encoder begins from nothing."""

import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from kdjax import config, data, parse, weights
from kdjax.artifacts import tensors
from kdjax.artifacts.model import EncoderSpec, Spec
from kdjax.contexts.context import Context
from kdjax.data import sources
from kdjax.fitting import layers
from kdjax.fitting.pictures import seen_otherwise
from kdjax.types import BadInput, Variables, under

_TELLS = 5e-4
"""Two means of a channel that differ by more are different."""


def held(context: Context, spec: Spec | EncoderSpec, variables: Variables) -> weights.Mapped | None:
    """The weights that the encoder of a stage begins with, held against it; None where it has none.

    Only the headers of files are read; before anything runs also the values, which must be finite.

    Args:
      context: of the stage.
      spec: of its model.
      variables: of it, or their shapes.

    Raises:
      BadInput: they are not there, are no such encoder's, or were trained on pictures that were made
        ready in another way, or on texts by another tokenizer.
    """
    c = spec.encoder.imported
    if c is None:
        return None
    with under(context.path), under("encoder", spec.encoder.weights_field):
        network = tensors.named(spec, variables)
        found = weights.mapped(c.found(), network, layout=c.layout, skip=c.skip)
        if not c.own_preprocessing:
            _check_preprocessing(found, spec)
            _check_tokenizer(found, context.splits.train)
        if context.ahead:
            found.check_values()
    return found


def begun(context: Context, spec: Spec | EncoderSpec, variables: Variables) -> Variables:
    """First variables of a stage, with the weights that its encoder begins with where it has some.

    A classifier is taken, too, where the task has as many classes.

    Args:
      context: of the stage; `ahead`, nothing is taken.
      spec: of its model.
      variables: random ones.

    Raises:
      BadInput: as `held` and `layers.begun`; or a value is not finite.
    """
    if spec.encoder.begun_from is not None:
        return layers.begun(context, spec, variables)
    found = held(context, spec, variables)
    if found is None or context.ahead:
        return variables
    if jax.process_index() == 0:
        print(f"{context.name}: {found.published.source}: {found.account}", file=sys.stderr)
        if (line := _sees(context, spec, found, spec.encoder.imported)) is not None:
            print(f"{context.name}: {line}", file=sys.stderr)
    with under(context.path), under("encoder", spec.encoder.weights_field):
        return tensors.put(variables, *found.read())


def account(context: Context, stage: config.Stage, said: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest of a stage says of the weights that its encoder began with: nothing, or all.

    Args:
      context: of the stage.
      stage: its config.
      said: what else the manifest says, with the model that was left.
    """
    encoder = getattr(stage, "encoder", None)
    if not isinstance(encoder, config.Encoder) or (c := encoder.imported) is None:
        return {}
    whole = said.get("model") or said.get("sweep", {}).get("model")
    kind, plain = (EncoderSpec, said["encoder_model"]) if whole is None else (Spec, whole)
    spec = parse.parse(kind, plain, f"{context.folder}: model")
    with under(context.path), under("encoder", encoder.weights_field):
        network = tensors.named(spec, spec.abstract())
        found = weights.mapped(c.found(), network, layout=c.layout, skip=c.skip)
    known = found.preprocessing
    made_ready: dict[str, Any] = {} if known is None else {"preprocessing": known.plain()}
    if (line := _sees(context, spec, found, c)) is not None:
        made_ready["seen_otherwise"] = line
    return {"weights": {"source": c.source, **found.account.plain(), **made_ready}}


def _sees(
    context: Context,
    spec: Spec | EncoderSpec,
    found: weights.Mapped,
    c: config.Imported | None,
) -> str | None:
    """How the model sees pictures otherwise than the weights want it; None where it does not."""
    images, wanted = spec.inputs.images, found.preprocessing
    if c is None or c.own_preprocessing or wanted is None or len(images) != 1:
        return None
    return seen_otherwise(wanted, images[0], context.splits.frame)


def _check_tokenizer(found: weights.Mapped, dataset: data.Dataset) -> None:
    """Holds the tokens of the data against those of the tokenizer beside the weights."""
    own, place = dataset.beside.get(sources.TOKENIZER), found.published.tokenizer
    if own is None or place is None:
        return
    apart = sources.unlike(own.decode(), sources.tokenizer(place))
    if apart is not None:
        raise BadInput(
            "config.data.source.tokenizer",
            f"{apart} in that of the data and in {place}, with which the weights were trained",
            f"give tokenizer={place}, or give the weights own_preprocessing=True if yours is meant",
        )


def _check_preprocessing(found: weights.Mapped, spec: Spec | EncoderSpec) -> None:
    """Holds the mean and the std of the data against those that the weights were trained with."""
    wanted, images = found.preprocessing, spec.inputs.images
    if wanted is None or len(images) != 1:
        return
    image = images[0]
    for name in ("mean", "std"):
        own, theirs = (np.asarray(getattr(each, name)) for each in (image, wanted))
        channels = {image.shape[-1], own.size, theirs.size} - {1}
        if len(channels) > 1 or np.allclose(own, theirs, rtol=0, atol=_TELLS):
            continue
        raise BadInput(
            f"config.data.{name}",
            f"{getattr(image, name)}, and {found.published.tensors.place} was trained with "
            f"{getattr(wanted, name)}",
            f"set config.data.mean={list(wanted.mean)} and config.data.std={list(wanted.std)}, or give "
            "the weights own_preprocessing=True if yours are meant",
        )
