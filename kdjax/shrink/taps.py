"""What goes into each product of a function: its activations, seen by running the jaxpr."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, Float

from kdjax.jaxprs import inlined, is_product
from kdjax.shrink.tracing_types import Contraction
from kdjax.types import PyTree


class Seen(NamedTuple):
    """Of the activations that one contraction sums over, by position, over all else.

    Attributes:
      low, high: smallest and largest value.
      mean_abs: mean of the absolute values.

    Each has the axes of `Contraction.weight_axes`.
    """

    low: Float[Array, "..."]
    high: Float[Array, "..."]
    mean_abs: Float[Array, "..."]


def activations(
    function: Callable[..., Any],
    contractions: Sequence[Contraction],
    variables: PyTree,
    *inputs: Any,
) -> dict[int, Seen]:
    """What each of the contractions sums over, by its number; `jit` it.

    Args:
      function: what `find_groups` was asked about; `contractions` are its.
      contractions: those to look at.
      variables: of the function.
      *inputs: arrays of the shapes that the groups were found with, but for the batch.
    """
    wanted = {contraction.number: contraction for contraction in contractions}
    seen: dict[int, Seen] = {}
    jaxpr = jax.make_jaxpr(function)(variables, *inputs)
    _walk(jaxpr, jax.tree.leaves((variables, *inputs)), wanted, seen, [0])
    return seen


def _walk(jaxpr: Any, values: Sequence[Any], wanted, seen, count: list[int]) -> list[Any]:
    """Evaluates as `jax.core.eval_jaxpr`, numbering the products as `Trace` does."""
    known: dict[Any, Any] = {}
    if hasattr(jaxpr, "consts"):
        known.update(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
        jaxpr = jaxpr.jaxpr
    known.update(zip(jaxpr.invars, values, strict=True))

    def read(variable):
        return variable.val if isinstance(variable, core.Literal) else known[variable]

    for equation in jaxpr.eqns:
        operands = [read(variable) for variable in equation.invars]
        if (inside := inlined(equation)) is not None:
            found = _walk(inside, operands, wanted, seen, count)
        else:
            if is_product(equation):
                if (contraction := wanted.get(count[0])) is not None:
                    seen[count[0]] = _see(operands[contraction.operand], contraction)
                count[0] += 1
            params = equation.primitive.get_bind_params(equation.params)
            found = equation.primitive.bind(*operands, **params)
            found = found if equation.primitive.multiple_results else [found]
        known.update(zip(equation.outvars, found, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _see(values: Any, contraction: Contraction) -> Seen:
    values = jnp.moveaxis(
        jnp.asarray(values, jnp.float32),
        contraction.activation_axes,
        range(len(contraction.activation_axes)),
    )
    rest = tuple(range(len(contraction.activation_axes), values.ndim))
    return Seen(values.min(rest), values.max(rest), jnp.abs(values).mean(rest))
