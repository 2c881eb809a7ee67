"""Jaxprs as they are nested, in any version of jax."""

from collections.abc import Mapping
from typing import Any

from jax.extend import core

_CALLS = frozenset(
    [
        "checkpoint",
        "closed_call",
        "core_call",
        "custom_jvp_call",
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
