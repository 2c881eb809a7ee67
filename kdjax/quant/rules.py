"""Which layer is stored and computed in which numbers: one rule for each pattern of names."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from kdjax.types import BadInput

WeightType = Literal["int8", "int4", "ternary", "binary"]
ActivationType = Literal["int8", "dynamic"]


@dataclasses.dataclass(frozen=True)
class Rule:
    """The numbers of a layer.

    Attributes:
      weights: of its parameter, a scale for each output channel; see `kdjax.quant.LEVELS`.
      activations: `int8` quantizes what goes in and what comes out, a range for each tensor, found
        once (static): for convolutions. `dynamic` quantizes what goes in by its least and its largest
        value in that very call, all examples of it together, and needs no calibration: for the matrix
        products of transformers, whose ranges have outliers (ONNX Runtime's convolutions of this kind
        are several times slower than in float, and are refused there; LiteRT's are fast). None leaves
        activations as they are: weight-only.
      scale: of the weights: `absmax` loses nothing to clipping, `mse` looks for the scale with the
        least squared error.
      smooth: of `dynamic` activations that go into a product of matrices: each of its inputs is divided
        by `max |x|^smooth / max |w|^(1 - smooth)`, found once, and its weights are multiplied by that, so
        that a few inputs with outliers do not set the range for all (see `kdjax.quant.smooth`).
    """

    weights: WeightType = "int8"
    activations: ActivationType | None = "int8"
    scale: Literal["absmax", "mse"] = "absmax"
    smooth: float | None = None

    @property
    def name(self) -> str:
        """`int8`, `int8 dynamic`, `int4 weights`, `int4 weights mse`."""
        kinds: dict[ActivationType | None, str] = {
            "int8": "",
            "dynamic": "dynamic",
            None: "weights",
        }
        scale = "" if self.scale == "absmax" else self.scale
        smooth = "" if self.smooth is None else f"smooth {self.smooth:g}"
        return " ".join(filter(None, (self.weights, kinds[self.activations], scale, smooth)))


def static(rules: Mapping[str, Rule]) -> list[str]:
    """The layers whose activations have ranges that are found once."""
    return [name for name, rule in rules.items() if rule.activations == "int8"]


def choose(
    rules: Mapping[str, Rule | None],
    names: Sequence[str],
    *,
    float_layers: Sequence[str] = (),
    kinds: Mapping[str, str] | None = None,
    field: str = "rules",
) -> dict[str, Rule]:
    """The rule of each layer: that of the first pattern that matches its whole name.

    Args:
      rules: `{pattern: rule}`, None to leave what matches in float.
      names: of the parameters of the layers, such as `encoder/stem/conv/kernel`.
      float_layers: of them, those that stay in float whatever the rules say.
      kinds: of layers, by name, see `kdjax.quant.graph.Layer`. A lookup takes of its rule the weights
        alone. If one of the two products of a recurrence is dynamic, so is the other.
      field: that has the rules, for messages.

    Returns:
      `{name: rule}` of the layers that are quantized.

    Raises:
      BadInput: a pattern is no regular expression or matches no layer, nothing is left to quantize, or
        a recurrence is to have ranges that are found once, or in one of its products alone.
    """
    kinds = kinds or {}
    found: dict[str, Rule] = {}
    used = set()
    for pattern in rules:
        try:
            re.compile(pattern)
        except re.error as error:
            raise BadInput(f"{field}[{pattern!r}]", f"no regular expression: {error}") from None
    for name in names:
        for pattern, rule in rules.items():
            if re.fullmatch(pattern, name):
                used.add(pattern)
                if rule is not None and name not in float_layers:
                    found[name] = _of_kind(rule, kinds.get(name, ""), name, f"{field}[{pattern!r}]")
                break
    if odd := [pattern for pattern in rules if pattern not in used]:
        raise BadInput(
            f"{field}[{odd[0]!r}]",
            "matches no layer that an earlier pattern left",
            f"the layers are {', '.join(names[:3])}{(', ...' if len(names) > 3 else '')}",
        )
    if not found:
        raise BadInput(field, "nothing is left to quantize")
    _check_recurrences(found, kinds, field)
    return found


def _check_recurrences(found: Mapping[str, Rule], kinds: Mapping[str, str], field: str) -> None:
    """Refuses a recurrence of which one product alone rounds what goes in."""
    called: dict[str, set[bool]] = {}
    for name in (name for name, kind in kinds.items() if kind == "recurrence"):
        one = f"{name.rpartition('/')[0]} {name.rpartition('#')[2] if '#' in name else ''}"
        rule = found.get(name)
        both = called.setdefault(one, set())
        both.add(rule is not None and rule.activations == "dynamic")
        if len(both) > 1:
            raise BadInput(
                field,
                f"{name} and the other product of its recurrence are not both dynamic",
                f"give one rule to both: {_both(name)!r}",
            )


def _of_kind(rule: Rule, kind: str, name: str, field: str) -> Rule:
    """What a layer of a kind takes of a rule."""
    if kind == "lookup":
        return dataclasses.replace(rule, activations=None, smooth=None)
    if kind in ("convolution", "recurrence"):
        rule = dataclasses.replace(rule, smooth=None)
    if kind == "recurrence" and rule.activations == "int8":
        raise BadInput(
            field,
            f"{name} is of a recurrent layer, and its activations have no range that is found once",
            f"give it a rule of its own before, with activations 'dynamic' or None: {_both(name)!r}",
        )
    return rule


def _both(name: str) -> str:
    """The pattern of both products of a recurrence."""
    return f"{re.escape(name.rpartition('/')[0])}/.*"
