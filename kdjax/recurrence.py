"""The recurrence of an LSTM as one operation: a loop to XLA, and to a file what it is.

Whatever looks into a jaxpr for products, channels or costs finds the loop inside, as it does for a
function that is called; what rounds weights or writes files meets the operation as a whole.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Int

NAME = "custom_lstm"
"""Of the operation, in a jaxpr."""

KERNEL, RECURRENT, BIAS = 1, 2, 3
"""Which operands of the operation its parameters are; what goes in is the first."""


class State(NamedTuple):
    """What an LSTM takes from one step to the next.

    Attributes:
      hidden: what it gave last.
      cell: its memory.
    """

    hidden: Float[Array, "batch hidden"]
    cell: Float[Array, "batch hidden"]


def lstm(
    x: Float[Array, "batch step dim"],
    kernel: Float[Array, "dim 4 hidden"],
    recurrent: Float[Array, "hidden 4 hidden"],
    bias: Float[Array, "4 hidden"],
    *,
    length: Int[Array, " batch"] | None = None,
    state: State | None = None,
    reverse: bool = False,
    rounding: Callable[[Array], Array] | None = None,
) -> tuple[Float[Array, "batch step hidden"], State]:
    """The hidden state after each step, and what the last step leaves.

    The gates are in the order input, forget, cell, output, as PyTorch has them:
    `c = sigmoid(f) c + sigmoid(i) tanh(g)`, `h = sigmoid(o) tanh(c)`.

    Args:
      x: what goes in at each step.
      kernel: of what goes in.
      recurrent: of the hidden state.
      bias: of the sum of both.
      length: steps that each example has, at least 1: what comes behind it is padding, at which the
        result is 0 and which no state has seen. None for all.
      state: before the first step; None for zeros.
      reverse: from the last step to the first.
      rounding: of the hidden state before its product, and of nothing else.

    Reference: Hochreiter and Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735; forget gates
    are of Gers et al. 2000, https://doi.org/10.1162/089976600300015015.
    """
    operands = [x, kernel, recurrent, bias, *(state or ()), *([] if length is None else [length])]
    params = {
        "reverse": reverse,
        "rounding": rounding,
        "begun": state is not None,
        "ragged": length is not None,
    }
    shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in operands]
    with jax.disable_jit(
        False
    ):  # or a loop is as many copies of a step, and of an open length none
        inside = jax.make_jaxpr(functools.partial(_steps, **params))(*shapes)
    found, hidden, cell = _lstm.bind(*operands, inside=inside, **params)
    return found, State(hidden, cell)


def again(operands: Sequence[Array], params: Any, *, rounding: Callable[[Array], Array]) -> Any:
    """The operation of a jaxpr once more, with its hidden state rounded."""
    state = State(*operands[4:6]) if params["begun"] else None
    found, after = lstm(
        *operands[:4],
        length=operands[-1] if params["ragged"] else None,
        state=state,
        reverse=params["reverse"],
        rounding=rounding,
    )
    return [found, *after]


def _steps(
    x: Array,
    kernel: Array,
    recurrent: Array,
    bias: Array,
    *rest: Array,
    reverse: bool,
    rounding: Callable[[Array], Array] | None,
    begun: bool,
    ragged: bool,
) -> tuple[Array, Array, Array]:
    """What it is: a product with all that goes in, and a loop over the steps."""
    nothing = jnp.zeros((x.shape[0], recurrent.shape[0]), x.dtype)
    state = (rest[0], rest[1]) if begun else (nothing, nothing)
    if ragged and rounding is not None:
        return _rounded(x, kernel, recurrent, bias, state, rest[-1], reverse, rounding)
    there = None
    if ragged:
        there = jnp.expand_dims(jnp.arange(x.shape[1]), 1) < jnp.expand_dims(rest[-1], 0)

    def step(state, given):
        gates, real = given
        after = _step(state, gates, recurrent, rounding)
        if real is None:
            return after, after[0]
        real = jnp.expand_dims(real, 1)
        kept = jnp.where(real, after[0], state[0]), jnp.where(real, after[1], state[1])
        return kept, jnp.where(real, after[0], 0.0)

    given = (_gates(x, kernel, bias), there)
    (hidden, cell), found = lax.scan(step, state, given, reverse=reverse)
    return found.swapaxes(0, 1), hidden, cell


def _rounded(
    x: Array,
    kernel: Array,
    recurrent: Array,
    bias: Array,
    state: tuple[Array, Array],
    length: Array,
    reverse: bool,
    rounding: Callable[[Array], Array],
) -> tuple[Array, Array, Array]:
    """The steps as ONNX Runtime has them, which decides of what is rounded together.

    All hidden states of a batch are; those of examples that have ended are 0, and backwards all begin
    with the first step, each at its own end.
    """
    at = jnp.expand_dims(jnp.arange(x.shape[1]), 0)
    end = jnp.expand_dims(length, 1)
    order = jnp.where(at < end, end - 1 - at, at)[..., None]
    if reverse:
        x = jnp.take_along_axis(x, order, 1)

    def step(state, given):
        gates, real = given
        hidden, cell = _step(state, gates, recurrent, rounding)
        after = jnp.where(real, hidden, 0.0), cell
        return after, after

    _, every = lax.scan(step, state, (_gates(x, kernel, bias), (at < end).T[..., None]))
    found, cells = (each.swapaxes(0, 1) for each in every)
    last = [jnp.take_along_axis(each, end[..., None] - 1, 1)[:, 0] for each in (found, cells)]
    return jnp.take_along_axis(found, order, 1) if reverse else found, last[0], last[1]


def _gates(x: Array, kernel: Array, bias: Array) -> Array:
    """[step, batch, 4, hidden]: what does not depend on the step before."""
    return jnp.einsum("btf,fgh->tbgh", x, kernel) + jnp.expand_dims(bias, (0, 1))


def _step(
    state: tuple[Array, Array],
    gates: Array,
    recurrent: Array,
    rounding: Callable[[Array], Array] | None,
) -> tuple[Array, Array]:
    hidden, cell = state
    seen = hidden if rounding is None else rounding(hidden)
    total = gates + jnp.einsum("bh,hgk->bgk", seen, recurrent)
    into, forget, new, out = (total[:, i] for i in range(4))
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(into) * jnp.tanh(new)
    return jax.nn.sigmoid(out) * jnp.tanh(cell), cell


def _called(*operands: Any, inside: core.ClosedJaxpr, **params: Any) -> list[Any]:
    return core.jaxpr_as_fun(inside)(*operands)


def _abstract(*operands: Any, inside: core.ClosedJaxpr, **params: Any) -> Any:
    return list(inside.out_avals)


def _derivative(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> Any:
    """That of the loop: from here on there is no operation, but what it does."""

    def steps(*floats: Any) -> Any:
        whole = [*floats, *primals[len(floats) :]]
        return _called(*whole, **params)

    floats = [x for x in primals if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    moved = [
        jnp.zeros(jnp.shape(x), jnp.result_type(x)) if type(t) is ad.Zero else t
        for x, t in zip(floats, tangents, strict=False)
    ]
    found, along = jax.jvp(steps, floats, moved)
    return found, along


def _mapped(operands: Sequence[Any], axes: Sequence[Any], **params: Any) -> Any:
    found = jax.vmap(functools.partial(_called, **params), in_axes=tuple(axes))(*operands)
    return found, [0] * len(found)


_lstm = core.Primitive(NAME)
_lstm.multiple_results = True
_lstm.def_impl(_called)
_lstm.def_abstract_eval(_abstract)
mlir.register_lowering(_lstm, mlir.lower_fun(_called, multiple_results=True))
ad.primitive_jvps[_lstm] = _derivative
batching.primitive_batchers[_lstm] = _mapped
