"""What the fields of dataclasses take, in words: for `kdjax --fields`, and for docstrings."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from kdjax.choice import Choice, choices
from kdjax.parse import alternatives, hints, title


def described(kind: Any) -> str:
    """What a type takes, in words, with its ranges: `"a number in [0, 1), or None"`."""
    args = typing.get_args(kind)
    if members := alternatives(kind):
        return ", or ".join("None" if a is types.NoneType else described(a) for a in members)
    match typing.get_origin(kind):
        case origin if origin is Annotated:
            return " ".join([described(args[0]), ", ".join(map(str, args[1:]))])
        case origin if origin is tuple:
            items = args[:1] if args[-1] is Ellipsis or len(set(args)) == 1 else args
            many = "" if args[-1] is Ellipsis else f"{len(args)} "
            return f"a list of {many}({'; '.join(map(described, items))})"
        case origin if isinstance(origin, type) and issubclass(origin, Mapping):
            return f"fields, each {described(args[1])}"
        case _:
            return _by_name(kind) or title(kind)


def _by_name(kind: Any) -> str | None:
    """Of a class that a text stands for, this text."""
    if isinstance(kind, type) and issubclass(kind, Choice) and kind.by_name:
        names = typing.get_args(hints(kind).get(kind.tag))
        return names[0] if names else None
    return None


def dataclasses_in(kind: Any) -> list[type]:
    """The dataclasses that a type is made of, itself first, each once."""
    found: dict[type, None] = {}

    def visit(kind: Any) -> None:
        if members := choices(kind):
            for member in members:
                visit(member)
        elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
            if kind not in found:
                found[kind] = None
                for field in dataclasses.fields(kind):
                    visit(hints(kind)[field.name])
        elif typing.get_origin(kind) is not Literal:
            for arg in typing.get_args(kind):
                visit(arg)

    visit(kind)
    return list(found)


def documented(kind: Any) -> str:
    """The docstring of a dataclass, those of what it is built on, and what each field takes."""
    lines = [inspect.cleandoc(kind.__doc__ or ""), ""]
    for base in kind.__mro__[1:]:
        if _is(base):
            lines += [f"{base.__name__}: {inspect.cleandoc(base.__doc__ or '')}", ""]
    lines.append("Fields:")
    for field in dataclasses.fields(kind):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        usual = "" if default is dataclasses.MISSING else f"; {_default(default)} by default"
        lines.append(f"  {field.name}: {described(hints(kind)[field.name])}{usual}")
    return "\n".join(lines)


def _is(value: Any) -> bool:
    """Whether it is a dataclass, or of one."""
    return dataclasses.is_dataclass(value)


def _default(value: Any) -> str:
    return type(value).__name__ if dataclasses.is_dataclass(value) else repr(value)
