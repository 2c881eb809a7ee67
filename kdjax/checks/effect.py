"""Fields that nothing reads beside others: a value that is given and changes nothing is refused."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from kdjax import config
from kdjax.types import BadInput


def check_effect(run: config.Run) -> None:
    """Whether every field that has been given another value than its default is looked at.

    A choice decides that: a name, or a field that stands in for others. A weight, a share or a
    probability of zero turns a part off as well, but the rest of that part may stay, to turn it on
    again.

    Args:
      run: the config.

    Raises:
      BadInput: a field has no effect; the line has its path, and what it goes with.
    """
    for path, node in _nodes(run, "config"):
        defaults = {field.name: field.default for field in dataclasses.fields(node)}
        for name, why in _unread(node):
            if (given := getattr(node, name)) != defaults[name]:
                raise BadInput(f"{path}.{name}", f"{given!r} has no effect, {why}", "leave it out")


def _nodes(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """All configs inside one, with their paths."""
    if dataclasses.is_dataclass(node):
        yield path, node
        inside = {f".{field.name}": getattr(node, field.name) for field in dataclasses.fields(node)}
    elif isinstance(node, Mapping):
        inside = {f".{name}": value for name, value in node.items()}
    elif isinstance(node, tuple):
        inside = {f"[{i}]": value for i, value in enumerate(node)}
    else:
        return
    for name, value in inside.items():
        yield from _nodes(value, path + name)


def _unread(node: Any) -> Iterator[tuple[str, str]]:
    """Names of the fields that nothing reads beside the others, and why."""
    match node:
        case config.Views():
            yield from node.unread()
        case config.Data(source=config.Source()):
            for name in ("image_key", "label_key", "id_key"):
                yield name, "as the data come from source"
        case config.Data(name="digits"):
            for name in ("image_key", "label_key", "id_key"):
                yield name, "as digits is embedded and no prepared dataset"
        case config.Gradual():
            yield from _unread_of_pruning(node)
        case config.Distill(logits=logits) if not logits.reads_temperature:
            yield "temperature", f"as logits={logits.name} does not look at it"
        case config.Quantize() if node.calibration != "percentile":
            yield "percentile", f"as calibration is {node.calibration}"
        case config.Layers(weights=None):
            yield "scale", "as these layers stay in float"
        case config.Sensitivity(sparsities=()):
            yield "score", "as there are no sparsities"
        case config.Linear(strengths=(_,)):
            yield "validation", "as one strength needs none to choose"


def _unread_of_pruning(c: config.Gradual) -> Iterator[tuple[str, str]]:
    if c.schedule != "periodic":
        yield "rounds", f"as schedule is {c.schedule}"
    if isinstance(c.pattern, config.Units):
        for name in ("score", "allocation", "prunable"):
            yield name, "as a pattern of units has its own, and takes what belongs to them"
    if isinstance(c.pattern, config.NM):
        yield "allocation", "as a pattern of N of M has one sparsity"
