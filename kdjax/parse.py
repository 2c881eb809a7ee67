"""Plain values into frozen dataclasses, and every fault named by the path of its field."""

import argparse
import ast
import contextlib
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn

from kdjax.types import BadInput


class Arguments(argparse.ArgumentParser):
    """Flags of a small command: bad ones end as other bad input does, in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises `BadInput`."""
        raise BadInput(f"{message}; see --help")


def parse_arg(arg: str | None, **defaults: bool | int | float | str) -> dict[str, Any]:
    """`"runlocal,labels=10"` -> `defaults` updated, each value cast to its default's type.

    Raises:
      BadInput: an argument is not among `defaults`, or cannot be cast.
    """
    values = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        name, _, text = item.partition("=")
        if name not in defaults:
            raise BadInput(f"--config=FILE:{name}: unknown argument{nearest(name, defaults)}")
        kind = type(defaults[name])
        try:
            if kind is bool:
                values[name] = {"": True, "true": True, "false": False}[text.lower()]
            else:
                values[name] = kind(text)
        except (KeyError, ValueError):
            raise BadInput(
                f"--config=FILE:{name}: {text!r} is not {_article(kind.__name__)}"
            ) from None
    return values


def override(values: dict[str, Any], path: str, text: str) -> None:
    """Sets `values[a][b]` for the path `a.b`, in place, from the text of a command line.

    Text that is no Python literal is a string. Whether the field exists, and takes such a value, is
    for `parse` to say.

    Raises:
      BadInput: the path runs through something that has no fields.
    """
    *parents, last = path.split(".")
    for i, name in enumerate(parents):
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise BadInput(f"config.{'.'.join(parents[: i + 1])}: has no field {last!r}")
    try:
        values[last] = ast.literal_eval(text)
    except (SyntaxError, TypeError, ValueError):
        values[last] = {"true": True, "false": False, "none": None}.get(text.lower(), text)


def parse(kind: Any, value: Any, path: str = "config") -> Any:
    """Builds the type `kind` (a dataclass, as a rule) out of plain values.

    Raises:
      BadInput: a field is unknown, missing or ill-typed; the line has its path, and the nearest
        known name.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _parse_union(args, value, path)
    if origin is Literal:
        if value not in args or isinstance(value, bool) != isinstance(args[0], bool):
            known = ", ".join(map(str, args))
            raise BadInput(f"{path}: {value!r} is not one of {known}{_close(value, args)}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise BadInput(f"{path}: expected {_title(kind)}, found {_shown(value)}")
        items = args[:1] * len(value) if args[-1] is Ellipsis else args
        if len(items) != len(value):
            raise BadInput(f"{path}: expected {len(items)} values, found {len(value)}")
        pairs = zip(items, value, strict=True)
        return tuple(parse(item, v, f"{path}[{i}]") for i, (item, v) in enumerate(pairs))
    if origin is Mapping or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if not isinstance(value, Mapping):
            raise BadInput(f"{path}: expected fields, found {_shown(value)}")
        return {
            parse(args[0], name, path): parse(args[1], v, f"{path}.{name}")
            for name, v in value.items()
        }
    if dataclasses.is_dataclass(kind):
        return _parse_fields(kind, value, path)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise BadInput(f"{path}: expected {_title(kind)}, found {_shown(value)}")
    if kind is float and not math.isfinite(value):
        raise BadInput(f"{path}: {value} is not a finite number")
    return value


def _parse_fields(kind: Any, value: Any, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise BadInput(f"{path}: expected the fields of {_title(kind)}, found {_shown(value)}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in value:
        if name not in fields:
            raise BadInput(f"{path}.{name}: unknown field{nearest(name, fields)}")
    for name, field in fields.items():
        optional = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
        if name not in value and not optional:
            raise BadInput(f"{path}.{name}: missing; it takes {_title(hints[name])}")
    return kind(**{name: parse(hints[name], v, f"{path}.{name}") for name, v in value.items()})


def _parse_union(members: Sequence[Any], value: Any, path: str) -> Any:
    if value is None and types.NoneType in members:
        return None
    members = [member for member in members if member is not types.NoneType]
    if len(members) == 1:
        return parse(members[0], value, path)
    fields = [member for member in members if dataclasses.is_dataclass(member)]
    if len(fields) < len(members) and not (fields and isinstance(value, Mapping)):
        for member in members:
            if member not in fields:
                with contextlib.suppress(BadInput):
                    return parse(member, value, path)
        titles = " or ".join(map(_title, members))
        raise BadInput(f"{path}: expected {titles}, found {_shown(value)}")
    if len(fields) == 1:  # a number, say, or the fields of a schedule of it
        return parse(fields[0], value, path)
    members = fields
    tag, by_tag = _tags(members)
    if not isinstance(value, Mapping):
        raise BadInput(f"{path}: expected fields, with {tag!r} among them, found {_shown(value)}")
    if tag not in value:
        raise BadInput(f"{path}.{tag}: missing; it is one of {', '.join(by_tag)}")
    return parse(by_tag[parse(Literal[tuple(by_tag)], value[tag], f"{path}.{tag}")], value, path)


def _tags(members: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """The field that tells the dataclasses of a union apart, and who has which value of it."""
    tag, by_tag = "", {}
    for member in members:
        for name, hint in typing.get_type_hints(member).items():
            if name in ("kind", "name", "recipe") and typing.get_origin(hint) is Literal:
                tag = name
                by_tag[typing.get_args(hint)[0]] = member
    return tag, by_tag


def nearest(name: object, known: Iterable[object]) -> str:
    """`"; did you mean X?"`, or all known names where none is near."""
    known = [str(k) for k in known]
    return _close(name, known) or f"; known: {', '.join(known)}"


def _close(name: object, known: Iterable[object]) -> str:
    close = difflib.get_close_matches(str(name), map(str, known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _title(kind: Any) -> str:
    args = [a for a in typing.get_args(kind) if a is not types.NoneType]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_title(arg) for arg in args)
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(str, args))
    if typing.get_origin(kind) is tuple:
        several = {"an integer": "integers", "a number": "numbers", "a text": "texts"}
        return f"a list of {several.get(_title(args[0]), _title(args[0]))}"
    return _article(getattr(kind, "__name__", str(kind)))


def _article(name: str) -> str:
    words = {"int": "an integer", "float": "a number", "str": "a text", "bool": "True or False"}
    return words.get(name, name)


def _shown(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"


def plain(value: Any, *, fingerprint: bool = False) -> Any:
    """A parsed config as plain data; without the fields that say only where and how."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name), fingerprint=fingerprint)
            for field in dataclasses.fields(value)
            if not fingerprint or field.metadata.get("fingerprint", True)
        }
    if isinstance(value, Mapping):
        return {name: plain(v, fingerprint=fingerprint) for name, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v, fingerprint=fingerprint) for v in value]
    return value
