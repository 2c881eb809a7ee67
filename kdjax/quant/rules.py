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
    """

    weights: WeightType = "int8"
    activations: ActivationType | None = "int8"
    scale: Literal["absmax", "mse"] = "absmax"

    @property
    def name(self) -> str:
        """`int8`, `int8 dynamic`, `int4 weights`, `int4 weights mse`."""
        kinds: dict[ActivationType | None, str] = {
            "int8": "",
            "dynamic": "dynamic",
            None: "weights",
        }
        scale = "" if self.scale == "absmax" else self.scale
        return " ".join(filter(None, (self.weights, kinds[self.activations], scale)))


def static(rules: Mapping[str, Rule]) -> list[str]:
    """The layers whose activations have ranges that are found once."""
    return [name for name, rule in rules.items() if rule.activations == "int8"]


def choose(
    rules: Mapping[str, Rule | None],
    names: Sequence[str],
    *,
    float_layers: Sequence[str] = (),
    field: str = "rules",
) -> dict[str, Rule]:
    """The rule of each layer: that of the first pattern that matches its whole name.

    Args:
      rules: `{pattern: rule}`, None to leave what matches in float.
      names: of the parameters of the layers, such as `encoder/stem/conv/kernel`.
      float_layers: of them, those that stay in float whatever the rules say.
      field: that has the rules, for messages.

    Returns:
      `{name: rule}` of the layers that are quantized.

    Raises:
      BadInput: a pattern is no regular expression or matches no layer, or nothing is left to
        quantize.
    """
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
                    found[name] = rule
                break
    if odd := [pattern for pattern in rules if pattern not in used]:
        raise BadInput(
            f"{field}[{odd[0]!r}]",
            "matches no layer that an earlier pattern left",
            f"the layers are {', '.join(names[:3])}{(', ...' if len(names) > 3 else '')}",
        )
    if not found:
        raise BadInput(field, "nothing is left to quantize")
    return found
