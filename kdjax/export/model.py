"""What a file is made of: a model in evaluation, as functions and arrays."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Array, Float

from kdjax import quant
from kdjax.export.composites import with_composites
from kdjax.export.stream import Stream
from kdjax.inputs import Inputs
from kdjax.types import Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A model whose parameters are known, with BatchNorm folded into its layers.

    Attributes:
      predict: `*raw arrays -> output`, of as many arrays as there are inputs, in their order; parameters
        and preprocessing are inside. A quantized model rounds in it, in float.
      inputs: what the file is given (`inputs.fields`, raw), and how the model sees it.
      output: name of what it gives.
      forward: `(variables, inputs as the model sees them) -> output`, in float: nothing is rounded.
      variables: of `forward`.
      rules: of the layers that are quantized, by the names of their parameters; empty where none is.
      ranges: of the tensors that are rounded, by name.
      class_names: of the classes that its output has, in their order; empty where they are not known.
      stream: gives the model for pieces of an example; None of one that cannot be.
    """

    predict: Callable[..., Float[Array, "batch ..."]]
    inputs: Inputs
    output: str
    forward: Callable[[Variables, Any], Float[Array, "batch ..."]]
    variables: Variables
    rules: Mapping[str, quant.Rule] = dataclasses.field(default_factory=dict)
    ranges: Mapping[str, Float[Any, "..."]] = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    stream: Callable[[], Stream] | None = None

    @property
    def in_float(self) -> Callable[..., Float[Array, "batch ..."]]:
        """`predict` with nothing rounded in it."""
        return self.raw(lambda inputs: self.forward(self.variables, inputs))

    @property
    def with_composites(self) -> Callable[..., Float[Array, "batch ..."]]:
        """`predict` with each rounding in it a `lax.composite`, see `kdjax.export.with_composites`."""
        return self.raw(with_composites(*self._called, rules=self.rules, ranges=self.ranges))

    @property
    def plan(self) -> quant.Plan:
        """What a file that stores integers is to have."""
        return quant.plan_of(*self._called, rules=self.rules, ranges=self.ranges)

    def raw(self, function: Callable[[Any], Array]) -> Callable[..., Array]:
        """`*raw arrays -> function(inputs as the model sees them)`."""
        names = tuple(self.inputs.fields)
        return lambda *arrays: function(self.inputs.see_all(dict(zip(names, arrays, strict=True))))

    @property
    def _called(self) -> tuple[Any, ...]:
        return self.forward, self.variables, self.inputs.blank()
