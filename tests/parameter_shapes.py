"""What each parameter's initializer would give is asked once, not in every trace of every model.

flax traces the initializer whenever a module that is applied reads a parameter, to compare the shapes:
two fifths of the time that tracing a ResNet takes. Here shapes are compared as ever, but those of the
same initializer with the same arguments are remembered.
"""

import types
from collections.abc import Callable
from typing import Any

import flax.core.scope
import jax

_ASKED = ("init_args", "init_fn", "init_kwargs")
"""What the function is made of that flax asks about."""

_known: dict[Any, Any] = {}


def install() -> None:
    """Has `flax.core.scope` find shapes so."""
    flax.core.scope.jax = _Jax()


class _Jax:
    """`jax` as it is, but for `eval_shape`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jax, name)

    def eval_shape(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        code = getattr(function, "__code__", None)
        if args or kwargs or code is None or code.co_freevars != _ASKED:
            return jax.eval_shape(function, *args, **kwargs)
        init_args, init, init_kwargs = (cell.cell_contents for cell in function.__closure__)
        key = _alike(init), _alike(init_args), tuple(sorted(init_kwargs.items()))
        try:
            found = _known.get(key)
        except TypeError:  # something has no hash
            return jax.eval_shape(function)
        if found is None:
            found = _known[key] = jax.eval_shape(function)
        return found


def _alike(one: Any) -> Any:
    """What two are equal in that do the same: functions made anew of one body and of equal parts."""
    if isinstance(one, list | tuple):
        return tuple(map(_alike, one))
    if isinstance(one, types.FunctionType) and not (one.__defaults__ or one.__kwdefaults__):
        parts = (cell.cell_contents for cell in one.__closure__ or ())
        return one.__module__, one.__code__, _alike(tuple(parts))
    return one
