"""A model as files that other runtimes read."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from kdjax import export
from kdjax.config.fields import (
    NonNegative,
    Share,
    Text,
)
from kdjax.config.formats import Format
from kdjax.config.stage import Stage
from kdjax.ranges import AtLeast, Distinct, In


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(Stage):
    """One file a format, each loaded again in its runtime and compared with the live model.

    Attributes:
      model: the stage whose model is exported.
      formats: `stablehlo` (jax.export), `onnx`, `litert` (a .tflite file; needs the extra `litert`), or
        a format of one's own. Of a quantized model `stablehlo` rounds in float; the other two have the
        integers.
      tolerance: largest difference of an output from the live one, on the test examples, relative to
        the largest live output; beyond it the stage fails.
      agreement: of a model with quantized activations, lowest agreement of the file and the live model,
        as of `quantize`. The tolerance is not for them: a sum added up in another order is rounded the
        other way now and then.
      accuracy_drop: of such a model of classes, largest fall of the test accuracy, which then decides
        instead; below zero, what it must rise by.
    """

    kind: Literal["export"]
    model: Text
    formats: Annotated[tuple[Format, ...], AtLeast(1), Distinct()] = (
        export.StableHLO(),
        export.ONNX(),
    )
    tolerance: NonNegative = 1e-4
    agreement: Share = 0.99
    accuracy_drop: Annotated[float, In("[-1, 1]")] | None = None

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return True

    def needs(self, stages: Mapping[str, Stage]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return (self.model,)
