"""Layers of another stage's encoder in the place of random numbers, where a smaller one begins."""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from kdjax import config
from kdjax.artifacts.model import EncoderSpec, Spec, encoder_of, load, with_encoder
from kdjax.contexts.context import Context
from kdjax.types import BadInput, Variables, under
from kdjax.weights.transforms import low_rank, principal

_BLOCK = re.compile(r"(?:^|(?<=/))block(\d+)(?=/)")
"""A part of a name that says of which block it is."""

_FACTORS = ("params/word/embedding", "params/word_projection/kernel")
"""Of a factorised table of tokens; the first one alone is a whole table, or a narrow one."""


def begun(context: Context, spec: Spec | EncoderSpec, variables: Variables) -> Variables:
    """First variables of a stage, with the layers that its encoder takes of another one.

    Args:
      context: of the stage; `ahead`, shapes are held against each other where they are known.
      spec: of its model, whose encoder says where the layers are.
      variables: random ones.

    Raises:
      BadInput: the other encoder has no such layers, or in other shapes.
    """
    c = spec.encoder.begun_from
    assert c is not None  # whoever asks has looked
    at = f"{context.path}.encoder.weights"
    found, read = encoder_of(context.inputs[c.stage], field=f"{at}.stage")
    inside = {name: of["encoder"] for name, of in variables.items() if "encoder" in of}
    own = traverse_util.flatten_dict(inside, sep="/")
    other = traverse_util.flatten_dict(read(), sep="/")
    with under(at):
        taken, fresh = _taken(
            c, own, _narrowed(own, other, ahead=context.ahead), exact=context.exact
        )
    if not context.ahead and jax.process_index() == 0:
        beside = f", {len(fresh)} begin at random" if fresh else ""
        print(
            f"{context.name}: {len(taken) - len(fresh)} variables of {found.encoder.title} from "
            f"{c.stage}{beside}",
            file=sys.stderr,
        )
    found = with_encoder(variables, traverse_util.unflatten_dict(taken, sep="/"))
    return _with_head(context, spec, found, at) if c.head else found


def _with_head(
    context: Context, spec: Spec | EncoderSpec, variables: Variables, at: str
) -> Variables:
    """With the head of the other stage's model, which is asked the same."""
    c = spec.encoder.begun_from
    assert c is not None
    if not isinstance(spec, Spec):
        raise BadInput(
            f"{at}.head", f"{context.name} leaves an encoder without one", "leave it out"
        )
    other, theirs = load(context.inputs[c.stage], field=f"{at}.head")
    if other.task != spec.task:
        raise BadInput(
            f"{at}.head",
            f"{c.stage} is asked {other.task.name}, and {context.name} {spec.task.name}",
            "leave it out",
        )
    found = {}
    for name, of in variables.items():
        own = {part: leaves for part, leaves in of.items() if part != "encoder"}
        for part, leaves in own.items():
            there = theirs.get(name, {}).get(part)
            shapes = [jax.tree.map(jnp.shape, each) for each in (there, leaves)]
            if context.exact and shapes[0] != shapes[1]:
                raise BadInput(
                    f"{at}.head",
                    f"{name}/{part} of {c.stage} has not the shapes of that of {context.name}",
                    "give the encoder the sizes of that of the stage, or leave it out",
                )
            own[part] = there if context.exact else leaves
        found[name] = {**of, **own}
    return found


def _narrowed(
    own: Mapping[str, Any], other: Mapping[str, Any], *, ahead: bool
) -> Mapping[str, Any]:
    """The other variables, a whole table of tokens as the two factors, or the narrow one, of the encoder.

    The factors are its truncated singular value decomposition, see `kdjax.models.BERT`; a narrow table is
    `principal` of it. `ahead`, they are those that the encoder has.
    """
    names = [name for name in _FACTORS if name in own]
    shapes = [jnp.shape(own[name]) for name in names]
    whole = other.get(_FACTORS[0])
    if not names or whole is None or _FACTORS[1] in other:
        return other
    (rows, width), (_, wide) = shapes[0], shapes[-1]
    if len(names) == len(_FACTORS):
        fits = jnp.shape(whole) == (rows, wide)
    else:
        fits = jnp.shape(whole)[0] == rows and width < jnp.shape(whole)[1]
    if not fits:
        return other  # whose shape is refused, or as it is
    made = [own[name] for name in names]
    if not ahead:
        table = np.asarray(whole)
        found = low_rank().into([table], shapes) if len(names) > 1 else [principal(table, width)]
        made = [jnp.asarray(x) for x in found]
    return {**other, **dict(zip(names, made, strict=True))}


def _taken(
    c: config.FromStage, own: Mapping[str, Any], other: Mapping[str, Any], *, exact: bool
) -> tuple[dict[str, Any], list[str]]:
    """The variables to begin with by name, and which of them stay as they are."""
    fresh = [name for name in own if c.fresh is not None and re.fullmatch(c.fresh, name)]
    if c.fresh is not None and not fresh:
        raise BadInput("fresh", f"{c.fresh!r} matches no variable, such as {next(iter(own))}")
    if c.blocks is not None:
        _check_blocks(c.stage, c.blocks, _blocks(own), _blocks(other))
    found = {**own}
    for name, value in own.items():
        if name in fresh:
            continue
        there = name if c.blocks is None else _renamed(name, c.blocks)
        if there not in other:
            raise BadInput(
                "stage",
                f"{c.stage} has no {there}, which {name} would begin as",
                "give fresh a pattern of what is to begin at random",
            )
        shapes = [list(jnp.shape(each)) for each in (other[there], value)]
        if exact and shapes[0] != shapes[1]:
            raise BadInput(
                "stage",
                f"{there} of {c.stage} is {shapes[0]}, and {name} is {shapes[1]}",
                "give the encoder the sizes of that of the stage",
            )
        found[name] = other[there] if exact else value
    return found, fresh


def _check_blocks(
    stage: str, blocks: Sequence[int], own: Sequence[int], other: Sequence[int]
) -> None:
    """Refuses blocks that are not there, and more or fewer than the encoder has."""
    for where, numbers in (("the encoder", own), (stage, other)):
        if not numbers:
            raise BadInput("blocks", f"no variable of {where} is named by a block", "leave it out")
    if len(blocks) != len(own):
        raise BadInput(
            "blocks", f"{len(blocks)}, and the encoder has {len(own)} blocks", "give one for each"
        )
    if missing := sorted({*blocks} - {*other}):
        raise BadInput(
            "blocks", f"{missing[0]}, and {stage} has {other[0]} to {other[-1]}", "take one of them"
        )


def _blocks(names: Mapping[str, Any]) -> list[int]:
    """The numbers of the blocks by which variables are named, in rising order."""
    matches = (_BLOCK.search(name) for name in names)
    return sorted({int(match[1]) for match in matches if match})


def _renamed(name: str, blocks: Sequence[int]) -> str:
    """The name that a variable has in the other encoder."""
    return _BLOCK.sub(lambda match: f"block{blocks[int(match[1])]}", name, count=1)
