"""Learning rates that differ from layer to layer, and from pattern to pattern."""

import re
from collections.abc import Callable, Mapping, Sequence

import jax
import optax

from kdjax import tree
from kdjax.train.state import BESIDE
from kdjax.types import BadInput, PyTree

_ENCODER = "encoder/"


def layers_of(names: Sequence[str]) -> dict[str, int]:
    """The layer of each parameter, 0 nearest to the input, as the names of the model's parts say it.

    Of an encoder (what is in `encoder/`, or all of a model without one), each part with a number in its
    name is a layer, `block0`, `stage1_block2`, `Conv_3`, in the order in which the model uses them:

    * What is used before the first of them is one layer, the stem; so are arrays of the encoder's own,
      such as positions and class tokens.
    * Parts that follow each other with the same numbers are one, as `Conv_0` and `BatchNorm_0` are, and
      what has the first of the next one's numbers is part of that: `downsample1` of `stage1_block0`.
    * Parts between them without a number belong to the layer before.
    * What follows the last of them (a last normalisation, a last convolution), and what is on top of the
      encoder, is not in the answer: it is of no layer.

    For a ViT this is what BEiT and MAE do, and for a ResNet what timm does.

    Args:
      names: of all parameters, in the order in which the model uses them, see
        `kdjax.models.names_in_order`.

    Raises:
      BadInput: no part has a number.

    Reference: Bao et al. 2021, https://arxiv.org/abs/2106.08254, sec. 3.2; He et al. 2021,
    https://arxiv.org/abs/2111.06377, appendix A.2.
    """
    inside = any(name.startswith(_ENCODER) for name in names)
    own = [
        name
        for name in names
        if name.startswith(_ENCODER if inside else "") and not name.startswith(f"{BESIDE}/")
    ]
    parts: dict[str, list[str]] = {}
    stem = []
    for name in own:
        part, _, rest = name.removeprefix(_ENCODER if inside else "").partition("/")
        (parts.setdefault(part, []) if rest else stem).append(name)
    numbers = {part: tuple(map(int, re.findall(r"\d+", part))) for part in parts}
    numbered = [part for part in parts if numbers[part]]
    if not numbered:
        raise BadInput(
            "optimizer.layer_decay",
            f"no part of the encoder has a number by which it is a layer: {', '.join(parts)}",
            "give optimizer.layers, patterns from the input on",
        )
    found, layer, before = dict.fromkeys(stem, 0), 0, None
    order = [*parts]
    for part in order[: order.index(numbered[-1]) + 1]:
        if now := numbers[part]:
            layer += bool(found) if before is None else not _goes_on(before, now)
            before = now
        found |= dict.fromkeys(parts[part], layer)
    return found


def _goes_on(last: tuple[int, ...], now: tuple[int, ...]) -> bool:
    """Whether parts with these numbers, one after the other, are of one layer."""
    return now[: len(last)] == last and not any(now[len(last) :])


def layers_by(patterns: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """The layer of each parameter, 0 nearest to the input, by patterns from the input on.

    The first that matches the whole name counts. A pattern with groups is a layer for each of their
    values, in the order of the numbers that they are: `encoder/block([0-9]+)/.*`.

    Args:
      patterns: of names.
      names: of all parameters. Those that no pattern matches are of no layer.

    Raises:
      BadInput: a pattern has no parameter.
    """
    keys = {}
    for name in names:
        for i, pattern in enumerate(patterns):
            if (match := re.fullmatch(pattern, name)) and not name.startswith(f"{BESIDE}/"):
                keys[name] = (i, *map(_in_order, match.groups()))
                break
    for i, pattern in enumerate(patterns):
        if all(key[0] != i for key in keys.values()):
            raise BadInput(
                f"optimizer.layers[{i}]",
                f"{pattern!r} has no parameter of this model for itself",
                f"a pattern is of whole names; the first of them is {next(iter(names), None)!r}",
            )
    places = {key: layer for layer, key in enumerate(sorted(set(keys.values())))}
    return {name: places[key] for name, key in keys.items()}


def _in_order(value: str | None) -> tuple[bool, int, str]:
    """Numbers as such, before all else."""
    return (False, int(value), "") if value and value.isdecimal() else (True, 0, value or "")


def factors(
    names: Sequence[str],
    *,
    layer_decay: float | None,
    layers: Sequence[str],
    rates: Sequence[tuple[str, float]],
) -> dict[str, float]:
    """By what the learning rate of each parameter is multiplied.

    `layer_decay ** n` for the `n`-th layer from the last one, which has `n = 1`; 1 for what is of no
    layer, such as a classifier. That times the number of the first of `rates` that matches.

    Args:
      names: of all parameters, in the order in which the model uses them.
      layer_decay: None for none.
      layers: patterns, see `layers_by`; without any see `layers_of`.
      rates: pairs of a pattern and a number. Modules beside the model have 1.

    Raises:
      BadInput: a pattern matches no parameter, or nothing is known of the layers.
    """
    found = dict.fromkeys(names, 1.0)
    if layer_decay is not None:
        depths = layers_by(layers, names) if layers else layers_of(names)
        count = 1 + max(depths.values())
        found |= {name: layer_decay ** (count - layer) for name, layer in depths.items()}
    free = [name for name in names if not name.startswith(f"{BESIDE}/")]
    taken = set()
    for i, (pattern, rate) in enumerate(rates):
        matched = {name for name in free if re.fullmatch(pattern, name)}
        if not matched - taken:
            raise BadInput(
                f"optimizer.rates[{i}]",
                f"earlier patterns took all that {pattern!r} matches, such as {min(matched)!r}"
                if matched
                else f"{pattern!r} matches no parameter of this model",
                f"a pattern is of whole names; the first of them is {next(iter(free), None)!r}",
            )
        found |= {name: found[name] * rate for name in matched - taken}
        taken |= matched
    return found


def scaled(factors: Callable[[], Mapping[str, float]]) -> optax.GradientTransformation:
    """Multiplies the update of each parameter, and so its learning rate and its decay.

    Args:
      factors: by name, see `factors`; 1 for a parameter that is not among them. Asked for at `init`.
    """

    def init(params: PyTree) -> optax.OptState:
        factors()  # refuses what is wrong before anything is trained
        return optax.init_empty_state(params)

    def update(updates, state, params=None):
        by_name = factors()
        leaves = [
            leaf if (by := by_name.get(name, 1.0)) == 1 else leaf * by
            for name, leaf in tree.named_leaves(updates).items()
        ]
        return jax.tree.unflatten(jax.tree.structure(updates), leaves), state

    return optax.GradientTransformation(init, update)
