"""The variables of a network as tensors of a layout, and what stands before the names of a layout."""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from kdjax import spelling
from kdjax.types import BadInput
from kdjax.weights import layouts
from kdjax.weights.rules import Layout, Named, bind
from kdjax.weights.tensors import named

ENCODER = "encoder"
_PARALLEL = "module."
"""Of every name, where a network was saved from inside torch's DataParallel."""


def stripped(layout: Layout, names: Iterable[str]) -> tuple[dict[str, str], str]:
    """Names in the files by those that a layout has, and the prefix that they have before them."""
    names = list(names)
    outer = _PARALLEL if names and all(name.startswith(_PARALLEL) for name in names) else ""
    inner, found = "", {}
    for name in names:
        own = name.removeprefix(outer)
        if layout.prefix and own.startswith(layout.prefix):
            inner, own = layout.prefix, own.removeprefix(layout.prefix)
        found.setdefault(own, name)
    return found, outer + inner


def own_name(name: str) -> str:
    """A variable's name as kdjax's own layout has it."""
    collection, _, path = name.partition("/")
    return f"{collection}/{ENCODER}/{path}"


def written(
    network: Named,
    layout: str,
    *,
    prefix: str | None = None,
    counters: Mapping[str, int] | None = None,
) -> dict[str, np.ndarray]:
    """The tensors of a network in a layout, by name.

    Args:
      network: with arrays.
      layout: one of its family's.
      prefix: as `Account.prefix`; None for the layout's own where there is a classifier.
      counters: as `Account.counters`; None for zeros.

    Raises:
      BadInput: it is no layout of such a network.
    """
    found = layout_of(network, layout)
    if prefix is None:
        prefix = found.prefix if network.head is not None else ""
    outer = _PARALLEL if prefix.startswith(_PARALLEL) else ""
    rules, lost = bind(found.rules(network), network.encoder)
    head_rules, lost_head = bind(found.head, network.head or ())
    if lost or lost_head:
        raise BadInput(
            "layout",
            f"{layout} has no names for {named([*map(own_name, lost), *lost_head])} of {network.title}",
            "take layout=kdjax",
        )
    result: dict[str, np.ndarray] = {}
    groups = ((prefix, rules, network.encoder), (outer, head_rules, network.head or {}))
    for before, of, leaves in groups:
        for rule in of:
            made = rule.how.out([np.asarray(leaves[name]) for name in rule.ours])
            for name, array in zip(rule.theirs, made, strict=True):
                is_outside = any(re.fullmatch(pattern, name) for pattern in found.outside)
                result[(outer if is_outside else before) + name] = np.ascontiguousarray(array)
    if found.counters and counters is None:
        means = [name for name in result if name.endswith(".running_mean")]
        counters = {f"{name.removesuffix('running_mean')}num_batches_tracked": 0 for name in means}
    counts = {name: np.array(value, np.int64) for name, value in (counters or {}).items()}
    return {**result, **counts}


def layouts_of(network: Named) -> list[Layout]:
    """All that such a network has."""
    return [one for one in layouts.layouts() if one.is_for(network.module)]


def layout_of(network: Named, name: str, *, field: str = "layout") -> Layout:
    """The layout of this name for such a network.

    Raises:
      BadInput: it has none; the line begins with `field`.
    """
    known = layouts_of(network)
    for one in known:
        if name in one.names:
            return one
    names = [each for one in known for each in one.names]
    raise BadInput(
        field, f"{name!r} is no layout of {network.title}", spelling.suggestion(name, names)
    )
