"""Every function of kdjax checks its arguments and results in tests, each once and in few steps.

`jaxtyping.jaxtyped` binds a call's arguments to its signature and checks them before the call and again
after it, and makes its checks anew for a function inside another each time that the other is called: a
quarter of the time of the tests. Here beartype checks a function as it is, the sizes of axes are noted
only where a function has some, and functions of one body and the same types share their checks.
"""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Hashable

import jaxtyping
from beartype import beartype
from jaxtyping import _storage

_OF_JAXTYPING = jaxtyping.jaxtyped
_FUNCTION = "__beartype_func"
"""The argument of what beartype makes whose default is the function that it checks."""

_shared: dict[object, types.FunctionType] = {}


def install() -> None:
    """Has `jaxtyping.install_import_hook` use `checked`: its own decorator has no such choice."""
    jaxtyping.jaxtyped = checked


def checked(one=None, *, typechecker):
    """`one`, a function or a class, which checks what it is given and gives, as `jaxtyped` has it."""
    if one is None:
        return functools.partial(checked, typechecker=typechecker)
    if inspect.isclass(one):
        if dataclasses.is_dataclass(one) and not hasattr(one.__init__, "checked"):
            one.__init__ = checked(one.__init__, typechecker=typechecker)
            one.__init__.checked = True
        return one
    if isinstance(one, classmethod | staticmethod):
        return type(one)(checked(one.__func__, typechecker=typechecker))
    if not isinstance(one, types.FunctionType):
        return _OF_JAXTYPING(one, typechecker=typechecker)
    hints = [leaf for hint in one.__annotations__.values() for leaf in _leaves(hint)]
    sizes = [hint for hint in hints if type(hint).__module__.startswith("jaxtyping")]
    if (
        inspect.isgeneratorfunction(one)
        or any(isinstance(hint, str | typing.ForwardRef) for hint in hints)
        or any("{" in str(hint) for hint in sizes)
    ):
        return _OF_JAXTYPING(one, typechecker=typechecker)
    inner = _by_beartype(one)
    return _with_sizes(inner) if sizes else inner


def _leaves(hint):
    """All that a type is made of."""
    parts = typing.get_args(hint) if not isinstance(hint, list) else hint
    if typing.get_origin(hint) is typing.Literal or not parts:
        return [hint] if not isinstance(hint, tuple) else []
    return [leaf for part in parts for leaf in _leaves(part)]


def _with_sizes(inner):
    """`inner`, in whose types an axis has one size all through a call."""

    @functools.wraps(inner)
    def wrapped(*args, **kwargs):
        _storage.push_shape_memo({})
        try:
            return inner(*args, **kwargs)
        finally:
            _storage.pop_shape_memo()

    return wrapped


def _by_beartype(one):
    """As `beartype` has it; for a function inside another with what was made for the one before."""
    inside = "<locals>" in one.__qualname__ and not (one.__defaults__ or one.__kwdefaults__)
    if not inside or not all(isinstance(h, Hashable) for h in one.__annotations__.values()):
        return beartype(one)
    key = one.__code__, tuple(one.__annotations__.items())
    if key not in _shared:
        # With nothing of what is around this one: it is not kept alive.
        closure = tuple(types.CellType() for _ in one.__code__.co_freevars)
        alike = types.FunctionType(one.__code__, one.__globals__, one.__name__, closure=closure)
        alike.__annotations__, alike.__qualname__ = one.__annotations__, one.__qualname__
        made = beartype(alike)
        _shared[key] = None if made is alike else made
    made = _shared[key]
    if made is None:  # nothing to check
        return one
    mine = types.FunctionType(made.__code__, made.__globals__, one.__name__)
    mine.__kwdefaults__ = {**made.__kwdefaults__, _FUNCTION: one}
    return functools.update_wrapper(mine, one)
