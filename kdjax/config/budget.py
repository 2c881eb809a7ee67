"""What a smaller model may cost, and what its layers are stored in."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

from kdjax import quant
from kdjax.config.fields import Positive, Regex, Share
from kdjax.ranges import In
from kdjax.types import Fault

Cost = Annotated[int, In("[1, 2^60]")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """What a smaller model may cost; one of these.

    Attributes:
      params: parameters, of a shrunk model.
      flops: operations of one example, see `kdjax.evaluate.flops`, of a shrunk model.
      bytes: of the parameters as they are stored: in float32, or in the numbers of their layer.
      latency_ms: median of one batch of `latency_batch` in ONNX Runtime, measured.
    """

    params: Cost | None = None
    flops: Cost | None = None
    bytes: Cost | None = None
    latency_ms: Positive | None = None

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        given = [name for name, most in vars(self).items() if most is not None]
        if len(given) != 1:
            fields = ", ".join([".", *(given or vars(self))])
            yield fields, f"give one of {', '.join(vars(self))}, and no other"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layers:
    """What some layers are stored and computed in; see `kdjax.quant.Rule`.

    Attributes:
      pattern: of the names of their parameters.
      weights: None leaves the layers in float.
      activations: what goes in and comes out: `int8` in ranges found once, `dynamic` by what they are
        in each call (transformers), None for weights alone.
      scale: of the weights.
      smooth: of `dynamic` activations: how much of their outliers is moved into the weights, such as 0.75
        of a transformer's; None for nothing.
    """

    pattern: Regex = ".*"
    weights: quant.WeightType | None = "int8"
    activations: quant.ActivationType | None = "int8"
    scale: Literal["absmax", "mse"] = "absmax"
    smooth: Share | None = None

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if self.smooth is not None and self.activations != "dynamic":
            yield (
                "smooth, activations",
                f"{self.smooth:g} is of ranges of the call, and activations is {self.activations}",
                "give dynamic, or leave smooth out",
            )

    @property
    def rule(self) -> quant.Rule | None:
        """The rule, None for none."""
        if self.weights is None:
            return None
        return quant.Rule(self.weights, self.activations, self.scale, self.smooth)
