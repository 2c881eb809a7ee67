"""Jaxprs as they are nested, in any version of jax."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jax.extend import core

_CALLS = frozenset(
    [
        "checkpoint",
        "closed_call",
        "core_call",
        "custom_jvp_call",
        "custom_lstm",
        "custom_vjp_call",
        "jit",
        "pjit",
        "remat",
        "remat2",
    ]
)


def loop_state(params: Mapping[str, Any]) -> tuple[int, int]:
    """How many values of a loop are constant, and how many are carried from step to step."""
    if "ft_in" in params:  # jax 0.12
        consts, carry, _ = params["ft_in"].unpack()
        return len(consts), len(carry)
    return params["num_consts"], params["num_carry"]


def inlined(equation: Any) -> Any:
    """The jaxpr that an operation does nothing but call, such as that of a `jit`; None for others."""
    if equation.primitive.name not in _CALLS:
        return None
    closed = [p for p in equation.params.values() if isinstance(p, core.ClosedJaxpr)]
    return [*closed, *core.jaxprs_in_params(equation.params)][0]


def is_followed(equation: Any) -> bool:
    """Whether an operation has jaxprs inside of it whose operations are followed by themselves."""
    return equation.primitive.name in ("scan", "cond")


def is_product(equation: Any) -> bool:
    """Whether an operation has a number among the contractions."""
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        return params["feature_group_count"] == params["batch_group_count"] == 1
    return name == "dot_general"


Value: TypeAlias = int | core.Literal
"""A value of a flat jaxpr, by its number; or a number that is written in the jaxpr itself."""


class Step(NamedTuple):
    """One operation of a flat jaxpr.

    Attributes:
      equation: it, with the variables that it had.
      operands: what it takes.
      results: what it makes.
    """

    equation: Any
    operands: tuple[Value, ...]
    results: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of its primitive."""
        return self.equation.primitive.name


class Flat(NamedTuple):
    """A jaxpr whose calls of interest have been written out.

    Attributes:
      inputs: its inputs, numbered from 0.
      consts: its constants, by number.
      steps: its operations, in order.
      outputs: its outputs.
      shapes: of every value.
    """

    inputs: tuple[int, ...]
    consts: Mapping[int, Any]
    steps: tuple[Step, ...]
    outputs: tuple[Value, ...]
    shapes: tuple[tuple[Any, ...], ...]

    def shape(self, value: Value) -> tuple[Any, ...]:
        """Of a value or a written number."""
        return self.shapes[value] if isinstance(value, int) else np.shape(value.val)

    def run(
        self,
        inputs: Sequence[Any],
        *,
        operand: Callable[[int, int, Any], Any] = lambda step, place, x: x,
        result: Callable[[int, Any], Any] = lambda number, x: x,
        apply: Callable[[int, Sequence[Any], Mapping[str, Any]], Any] = lambda step, xs, params: (
            None
        ),
    ) -> list[Any]:
        """Evaluates it, with what the hooks make of the values.

        Args:
          inputs: values of the inputs.
          operand: `(step, place, value) -> value` for this operation alone.
          result: `(number, value) -> value` of an input or a result, for all that comes after.
          apply: `(step, operands, params) -> results` in the place of this operation; None for it.
        """
        known: dict[int, Any] = dict(self.consts)
        known |= {n: result(n, x) for n, x in zip(self.inputs, inputs, strict=True)}

        def read(value: Value) -> Any:
            return known[value] if isinstance(value, int) else value.val

        for i, (equation, operands, results) in enumerate(self.steps):
            given = [operand(i, place, read(value)) for place, value in enumerate(operands)]
            found = apply(i, given, equation.params)
            if found is None:
                params = equation.primitive.get_bind_params(equation.params)
                found = equation.primitive.bind(*given, **params)
                found = found if equation.primitive.multiple_results else [found]
            known |= {n: result(n, x) for n, x in zip(results, found, strict=True)}
        return [read(value) for value in self.outputs]


def flatten(closed: core.ClosedJaxpr, *, into: Callable[[Any], bool]) -> Flat:
    """Writes out the calls of a jaxpr, also those inside of them, whose own jaxpr is `into`.

    What has a gradient of its own stays a call, or the gradient would be lost.
    """
    shapes: list[tuple[Any, ...]] = []
    consts: dict[int, Any] = {}
    steps: list[Step] = []

    def number(variable: Any) -> int:
        shapes.append(variable.aval.shape)
        return len(shapes) - 1

    def walk(jaxpr: Any, given: Sequence[Value]) -> list[Value]:
        inside = jaxpr.jaxpr if hasattr(jaxpr, "consts") else jaxpr
        known: dict[Any, Value] = dict(zip(inside.invars, given, strict=True))
        for variable, value in zip(inside.constvars, getattr(jaxpr, "consts", ()), strict=True):
            consts[n := number(variable)] = value
            known[variable] = n

        def read(variable: Any) -> Value:
            return variable if isinstance(variable, core.Literal) else known[variable]

        for equation in inside.eqns:
            operands = tuple(read(variable) for variable in equation.invars)
            called = None if equation.primitive.name.startswith("custom_") else inlined(equation)
            if called is not None and into(called):
                results = walk(called, operands)
            else:
                results = [number(variable) for variable in equation.outvars]
                steps.append(Step(equation, operands, tuple(results)))
            known |= zip(equation.outvars, results, strict=True)
        return [read(variable) for variable in inside.outvars]

    inputs = tuple(number(variable) for variable in closed.jaxpr.invars)
    outputs = walk(closed, inputs)
    return Flat(inputs, consts, tuple(steps), tuple(outputs), tuple(shapes))


def operations(jaxpr: Any) -> list[Any]:
    """All operations of a jaxpr that only calls others, in order, the calls written out."""
    inside = jaxpr.jaxpr if hasattr(jaxpr, "consts") else jaxpr
    found = []
    for equation in inside.eqns:
        called = inlined(equation)
        found += [equation] if called is None else operations(called)
    return found
