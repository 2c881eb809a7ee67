"""Plain values into frozen dataclasses, and every fault named by the path of its field."""

import ast
import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from kdjax.choice import Choice, choices
from kdjax.ranges import in_float32
from kdjax.spelling import article, close, cut, shown, suggestion
from kdjax.types import BadInput, Fault


def parse_arg(arg: str | None, **defaults: bool | int | float | str) -> dict[str, Any]:
    """`"runlocal,labels=10"` -> `defaults` updated, each value cast to its default's type.

    Raises:
      BadInput: an argument is not among `defaults`, or cannot be cast.
    """
    values = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        name, _, text = item.partition("=")
        if name not in defaults:
            raise BadInput(name, "unknown argument", suggestion(name, defaults))
        kind = type(defaults[name])
        try:
            if kind is bool:
                values[name] = {"": True, "true": True, "false": False}[text.lower()]
            else:
                values[name] = kind(text)
        except (KeyError, ValueError):
            raise BadInput(name, f"{text!r} is not {article(kind.__name__)}") from None
    return values


def override(values: dict[str, Any], path: str, text: str, kind: Any = None) -> None:
    """Sets `values[a][b]` for the path `a.b`, in place, from the text of a command line.

    What is on the way is copied: where the values have one dict in several places, one alone changes.

    An item of a list is a name, too: `sweep.0.temperature`, or `sweep[0].temperature`. Text that is no
    Python literal is a string. Whether the field exists, and takes such a value, is for `parse` to say.

    Args:
      values: plain values: dicts, lists, tuples and what is in them.
      path: of the field.
      text: its value.
      kind: the type that `parse` will build, as far as it is known: what the values leave at a default
        that has fields begins as that default does.

    Raises:
      BadInput: the path runs through something that has no fields, or past the end of a list.
    """
    *parents, last = re.sub(r"\[(\w+)\]", r".\1", path).split(".")
    inside: Any = values
    for i, name in enumerate(parents):
        key, at = _key(inside, name, parents[:i]), ".".join(["config", *parents[: i + 1]])
        kind, default = _inner(kind, inside, name)
        found = inside.get(key) if isinstance(inside, dict) else inside[key]
        if found is None:
            found = plain(default) if isinstance(default, Mapping | tuple) or _is(default) else {}
        found = _spelled(kind, found)
        if not isinstance(found, dict | list | tuple):
            raise BadInput(at, f"has no field {last!r}")
        # Its own: a config file may have used one dict in several places.
        inside[key] = inside = dict(found) if isinstance(found, dict) else list(found)
    inside[_key(inside, last, parents)] = literal(text)


def literal(text: str) -> Any:
    """A value from the text of a command line; what is no Python literal is a string."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _key(inside: Any, name: str, parents: Sequence[str]) -> Any:
    """What a part of a path is called in a dict, or in a list."""
    if not isinstance(inside, list):
        return name
    at = ".".join(["config", *parents])
    if not name.isdecimal():
        raise BadInput(at, f"has no field {name!r}", f"it is a list, whose items are {at}.0 and on")
    if int(name) >= len(inside):
        raise BadInput(
            f"{at}.{name}",
            f"there are {len(inside)} items, of which the first is {at}.0",
            "give the whole list to change their number",
        )
    return int(name)


def _inner(kind: Any, inside: Any, name: str) -> tuple[Any, Any]:
    """The type of a field of what is of type `kind`, and its default, as far as they are known."""
    kind = _chosen(kind, inside)
    if _is(kind) and (field := kind.__dataclass_fields__.get(name)) is not None:
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        return hints(kind)[name], None if default is dataclasses.MISSING else default
    args = typing.get_args(kind)
    match typing.get_origin(kind):
        case origin if origin is tuple:
            return args[0] if args[-1] is Ellipsis else args[min(int(name), len(args) - 1)], None
        case origin if isinstance(origin, type) and issubclass(origin, Mapping):
            return args[1], None
    return None, None


def _chosen(kind: Any, value: Any) -> Any:
    """The one type that a value is meant to be of, out of a union of several; None if none is."""
    kind = _bare(kind)
    members = alternatives(kind)
    if not members:
        return kind
    members = [_bare(member) for member in members]
    if isinstance(value, list | tuple):
        members = [member for member in members if typing.get_origin(member) is tuple]
        return members[0] if members else None
    members = [one for member in members for one in choices(member) or (member,) if _is(one)]
    if len(members) < 2:
        return members[0] if members else None
    if (marked := _marked(members, value)) is not None:
        return marked
    tag, by_tag = _tags(tuple(members))
    if not by_tag:
        return _plainly(members)
    said = value.get(tag) if isinstance(value, Mapping) else None
    return by_tag.get(said) if isinstance(said, str) else None


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or those of which a field takes any one (`Choice`); empty for others."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return choices(kind)


def _spelled(kind: Any, value: Any) -> Any:
    """A text that stands for one of a `Choice` by its name, as the fields that it stands for."""
    kind = _bare(kind)
    if isinstance(value, str) and isinstance(kind, type) and issubclass(kind, Choice):
        return {kind.tag: value} if kind.by_name else value
    return value


def _marked(members: Iterable[Any], value: Any) -> Any:
    """The one that a value is meant to be of by a field that it has, see `Choice`; None if none is."""
    for member in members:
        mark = getattr(member, "marked_by", None)
        if mark is not None and isinstance(value, Mapping) and mark in value:
            return member
    return None


def _plainly(members: Iterable[Any]) -> Any:
    """The one of several dataclasses without tags that is told by no field of its own."""
    (found,) = (member for member in members if getattr(member, "marked_by", None) is None)
    return found


def _is(value: Any) -> bool:
    """Whether it is a dataclass, or of one."""
    return dataclasses.is_dataclass(value)


def _bare(kind: Any) -> Any:
    """The type without its constraints."""
    while typing.get_origin(kind) is Annotated:
        kind = kind.__origin__
    return kind


@functools.cache
def hints(kind: Any) -> dict[str, Any]:
    """The types of the fields of a dataclass, with their constraints."""
    return typing.get_type_hints(kind, include_extras=True)


def parse(kind: Any, value: Any, path: str = "config") -> Any:
    """Builds the type `kind` (a dataclass, as a rule) out of plain values.

    A type may be `Annotated` with constraints of `kdjax.ranges`; of a dataclass with `bounded`, such as
    a schedule, they are meant of the fields that it names. A dataclass may have a method `faults`, which
    gives fields that do not go together, see there. The base of a `Choice` stands for each of its
    subclasses.

    Raises:
      BadInput: a field is unknown, missing, ill-typed or out of its range, or does not go with another;
        the line has its path, and the nearest known name.
    """
    if kind is Any:
        return value
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        found = parse(args[0], value, path)
        for constraint in args[1:]:
            _hold(constraint, found, path)
        return found
    if members := alternatives(kind):
        return _parse_union(members, value, path)
    if origin is Literal:
        if not any(type(value) is type(arg) and value == arg for arg in args):
            known = ", ".join(map(str, args))
            raise BadInput(path, f"{cut(value)} is not one of {known}", close(value, args))
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise BadInput(path, f"expected {title(kind)}, found {shown(value)}")
        items = args[:1] * len(value) if args[-1] is Ellipsis else args
        if len(items) != len(value):
            raise BadInput(path, f"expected {len(items)} values, found {len(value)}")
        pairs = zip(items, value, strict=True)
        return tuple(parse(item, v, f"{path}[{i}]") for i, (item, v) in enumerate(pairs))
    if origin is Mapping or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if not isinstance(value, Mapping):
            raise BadInput(path, f"expected fields, found {shown(value)}")
        return {
            parse(args[0], name, path): parse(args[1], v, f"{path}.{name}")
            for name, v in value.items()
        }
    if dataclasses.is_dataclass(kind):
        return _parse_fields(kind, value, path)
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 2**1023 else math.inf
    if type(value) is not kind:
        raise BadInput(path, f"expected {title(kind)}, found {shown(value)}")
    if kind is float and not math.isfinite(value):
        raise BadInput(path, f"{value} is not a finite number")
    if kind is float and not math.isfinite(in_float32(value)):
        raise BadInput(path, f"{value} is not a finite number in float32")
    return value


def _hold(constraint: Any, value: Any, path: str) -> None:
    """Holds a value, or the fields of it that are bounded, against a constraint of its type."""
    if _is(value):
        for name in value.bounded:
            _hold(constraint, getattr(value, name), f"{path}.{name}")
    elif (fault := constraint.fault(value)) is not None:
        raise BadInput(path, fault)


def _parse_fields(kind: Any, value: Any, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise BadInput(path, f"expected the fields of {title(kind)}, found {shown(value)}")
    known = {field.name: field for field in dataclasses.fields(kind)}
    if issubclass(kind, Choice) and kind.rest is not None:
        value = _gathered(kind.read(value, path), known, kind.rest)
    for name in value:
        if name not in known:
            raise BadInput(f"{path}.{name}", "unknown field", suggestion(name, known))
    for name, field in known.items():
        optional = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
        if name not in value and not optional:
            raise BadInput(f"{path}.{name}", "missing", f"it takes {title(hints(kind)[name])}")
    made = kind(
        **{name: parse(hints(kind)[name], v, f"{path}.{name}") for name, v in value.items()}
    )
    for fields, fault, *mend in faults(made):
        at, *others = (path if f == "." else f"{path}.{f}" for f in fields.split(", "))
        see = [f"see {', '.join(others)}"] if others else []
        raise BadInput(at, fault, "; ".join(filter(None, [*mend, *see])))
    return made


def _gathered(value: Mapping[str, Any], known: Mapping[str, Any], rest: str) -> dict[str, Any]:
    """With what is no field of the dataclass in its field `rest`."""
    more = {name: item for name, item in value.items() if name not in known or name == rest}
    own = {name: item for name, item in value.items() if name in known and name != rest}
    return {**own, rest: more}


def faults(made: Any) -> Iterator[Fault]:
    """`("field, other field", fault, mend)` of fields that do not go together, by all its classes.

    The line begins with the first field, or the dataclass itself where that is `.`, and names the others.
    """
    for cls in reversed(type(made).__mro__):
        if "faults" in vars(cls):
            yield from cls.faults(made)


def _parse_union(members: Sequence[Any], value: Any, path: str) -> Any:
    if value is None and types.NoneType in members:
        return None
    members = [member for member in members if member is not types.NoneType]
    members = [one for member in members for one in choices(member) or (member,)]
    if len(members) == 1:
        return parse(members[0], value, path)
    if (marked := _marked(members, value)) is not None:
        return parse(marked, value, path)
    fields = [member for member in members if dataclasses.is_dataclass(member)]
    if len(fields) < len(members) and not (fields and isinstance(value, Mapping)):
        for member in members:
            if member not in fields and _is_like(_bare(member), value):
                return parse(member, value, path)
        titles = " or ".join(map(title, members))
        raise BadInput(path, f"expected {titles}, found {shown(value)}")
    if len(fields) == 1:  # a number, say, or the fields of a schedule of it
        return parse(fields[0], value, path)
    members = fields
    tag, by_tag = _tags(tuple(members))
    if not by_tag:
        return parse(_plainly(members), value, path)
    by_name = all(getattr(member, "by_name", False) for member in members)
    if isinstance(value, str) and by_name:
        return parse(by_tag[parse(Literal[tuple(by_tag)], value, path)], {tag: value}, path)
    if not isinstance(value, Mapping):
        names = f"one of {', '.join(by_tag)}, or " if by_name else ""
        raise BadInput(
            path, f"expected {names}fields, with {tag!r} among them, found {shown(value)}"
        )
    if tag not in value:
        raise BadInput(f"{path}.{tag}", "missing", f"it is one of {', '.join(by_tag)}")
    return parse(by_tag[parse(Literal[tuple(by_tag)], value[tag], f"{path}.{tag}")], value, path)


def _is_like(kind: Any, value: Any) -> bool:
    """Whether a value can only be meant to be of this type, whatever is wrong inside it."""
    origin = typing.get_origin(kind)
    if origin is tuple:
        return isinstance(value, list | tuple)
    if origin is Literal:
        return type(value) in map(type, typing.get_args(kind))
    return type(value) is kind or (kind is float and type(value) is int)


@functools.cache
def _tags(members: tuple[Any, ...]) -> tuple[str, dict[str, Any]]:
    """The field that tells the dataclasses of a union apart, and who has which value of it."""
    tag, by_tag = "", {}
    for member in members:
        for name, hint in hints(member).items():
            if name in ("kind", "name", "recipe") and typing.get_origin(hint) is Literal:
                tag = name
                by_tag[typing.get_args(hint)[0]] = member
    return tag, by_tag


def title(kind: Any) -> str:
    """What a type takes, in a few words, as faults name it."""
    kind = _bare(kind)
    args = [a for a in typing.get_args(kind) if a is not types.NoneType]
    if members := [a for a in alternatives(kind) if a is not types.NoneType]:
        return " or ".join(title(member) for member in members)
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(str, args))
    if typing.get_origin(kind) is tuple:
        several = {"an integer": "integers", "a number": "numbers", "a text": "texts"}
        return f"a list of {several.get(title(args[0]), title(args[0]))}"
    return article(getattr(kind, "__name__", str(kind)))


def plain(value: Any, *, fingerprint: bool = False) -> Any:
    """A parsed config as plain data; without the fields that say only where and how."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {
            field.name: plain(getattr(value, field.name), fingerprint=fingerprint)
            for field in dataclasses.fields(value)
            if not fingerprint or field.metadata.get("fingerprint", True)
        }
        if isinstance(value, Choice) and value.rest is not None:
            found |= found.pop(value.rest)
        return found
    if isinstance(value, Mapping):
        return {name: plain(v, fingerprint=fingerprint) for name, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v, fingerprint=fingerprint) for v in value]
    return value
