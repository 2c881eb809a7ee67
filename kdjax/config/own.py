"""The user's own functions and modules in a config, in the place of what kdjax has.

Wherever a field takes a name of kdjax's (an encoder, the recipe of views, a self-supervised method),
it takes `function` instead, with the arguments of the function as further fields; and every stage that
trains takes `terms`, more losses by name:

    encoder=dict(function="my_models:TinyNet", widths=[8, 16])
    terms=dict(rank=dict(function=rank_hinge, weight=0.5, margin=0.1))

`function` is the object, or `"module:name"` of a module beside the config file. `kdjax.user_code` says
what of its source is part of a stage's fingerprint. The arguments are held against the signature: by
name, and by type where one is annotated as int, float, bool, str, or a tuple or an option of them.

Anything else that a config may name so is a subclass of `Own` and of the base of its kind, which calls
what `made` gives: a data source, a score.
"""

import collections.abc
import contextlib
import dataclasses
import errno
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn

from kdjax import explain, parse, spelling, user_code
from kdjax.choice import Choice
from kdjax.config.fields import Text, parts
from kdjax.types import BadInput, Fault, StorageFailed

_OF_LINEN = ("parent", "name")
_STORAGE = (errno.EDQUOT, errno.EIO, errno.ENOSPC, errno.EROFS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Own(Choice):
    """A function or a class of the user's, and its arguments; every other field is one of those.

    Attributes:
      function: it, or `"module:name"`.
      source: of it, by module; found where it is not given.
      arguments: by name.
    """

    marked_by: ClassVar[str | None] = user_code.FUNCTION
    rest: ClassVar[str | None] = "arguments"

    called_with: ClassVar[tuple[str, ...]] = ()
    """What it is called with besides, in order."""

    offered: ClassVar[tuple[str, ...]] = ()
    """What it is given by name besides, where its signature has it."""

    function: Text
    source: Mapping[str, str] = dataclasses.field(default_factory=dict)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, value: Any, path: str) -> Any:
        """With the source of its function, where it has none yet."""
        return user_code.resolved(value, folder=None, path=path)

    @property
    def name(self) -> str:
        """Of the function."""
        return self.function.partition(":")[2]

    @property
    def loaded(self) -> Any:
        """The function, or the class.

        Raises:
          BadInput: it cannot be loaded.
        """
        return user_code.load(self.function, self.source)

    def faults(self) -> Iterator[Fault]:
        """What of the arguments does not go with the signature."""
        try:
            function = self.loaded
        except BadInput as error:
            yield user_code.FUNCTION, error.fault, error.mend
            return
        if not callable(function):
            yield user_code.FUNCTION, f"{self.function} is no function"
            return
        if isinstance(function, nn.Module):
            yield (
                user_code.FUNCTION,
                f"{self.function} is a module that is made already",
                "name its class, and give its arguments as fields here",
            )
            return
        parameters, first = _parameters(function), self.called_first_with(function)
        given = [*parameters.values()][: len(first)]
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if len(given) < len(first) or any(p.kind not in positional for p in given):
            yield (
                user_code.FUNCTION,
                f"{self.function} takes ({_written(parameters)}), and it is called with "
                f"({', '.join(first)}) first",
            )
            return
        for parameter in [*parameters.values()][len(first) :]:
            if self._cannot_be_named(parameter):
                yield (
                    user_code.FUNCTION,
                    f"{self.function} takes ({_written(parameters)}), and {parameter.name} is given "
                    "by its name",
                    "leave out the /",
                )
                return
        fields = {field.name for field in dataclasses.fields(self)}
        own = self._own([*parameters.values()][len(first) :])
        for name in own:
            if name in fields and name not in self.offered:
                yield (
                    user_code.FUNCTION,
                    f"{self.function}: {name} is a field here",
                    "rename it there",
                )
        anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for name in self.arguments:
            if name not in own and not anything:
                yield (
                    name,
                    "unknown field",
                    spelling.suggestion(name, own) if own else "it takes none",
                )
        yield from self._faults_of_values(own)

    def _faults_of_values(self, own: Mapping[str, inspect.Parameter]) -> Iterator[Fault]:
        """What is missing, or of another type."""
        for name, parameter in own.items():
            kind = _plain_type(parameter.annotation)
            if name not in self.arguments:
                if parameter.default is parameter.empty:
                    takes = "a value" if kind is None else explain.described(kind)
                    yield name, "missing", f"it takes {takes}"
            elif kind is not None:
                try:
                    parse.parse(kind, self.arguments[name], name)
                except BadInput as error:
                    yield error.path, error.fault, error.mend

    def called_first_with(self, function: Callable[..., Any]) -> tuple[str, ...]:
        """What it is called with besides its arguments, in order."""
        return self.called_with

    def _own(self, named: Iterable[inspect.Parameter]) -> dict[str, inspect.Parameter]:
        """Those that a config gives."""
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return {p.name: p for p in named if p.kind in kinds and p.name not in self.offered}

    def _cannot_be_named(self, parameter: inspect.Parameter) -> bool:
        """Whether it is to be given, and takes no name."""
        given = parameter.name in (*self.arguments, *self.offered)
        is_needed = given or parameter.default is parameter.empty
        return is_needed and parameter.kind is parameter.POSITIONAL_ONLY

    def made(self, field: str, **offered: Any) -> Callable[..., Any]:
        """The function with its arguments, and with what of `offered` its signature has.

        What one of the user's raises has a line of theirs, see `explained`; an error that has none, as
        of one that is installed or that cannot be called so, is said here.

        Args:
          field: that has the function, for messages.
          **offered: by name.
        """
        function = self.loaded
        parameters = _parameters(function)
        values = {}
        for name, value in self.arguments.items():
            parameter = parameters.get(name)
            kind = None if parameter is None else _plain_type(parameter.annotation)
            values[name] = _frozen(value) if kind is None else parse.parse(kind, value, name)
        more = {name: value for name, value in offered.items() if name in parameters}
        bound = functools.partial(function, **values, **more)

        @functools.wraps(bound)
        def called(*args, **late):
            try:
                return bound(*args, **late)
            except (BadInput, StorageFailed):
                raise
            except Exception as error:  # whatever it says of what it is called with
                if self.source and user_code.place(error) is not None:
                    raise
                said = user_code.described(error)
                raise BadInput(field, f"{self.function}: {said}") from None

        return called

    def called(self, path: str, *args: Any, **offered: Any) -> Any:
        """What the function gives; what it raises is one line.

        Args:
          path: of this, for messages.
          *args: that it is called with.
          **offered: see `made`.

        Raises:
          BadInput: it fails.
        """
        with explaining((self, path)):
            return self.made(f"{path}.function", **offered)(*args)


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """By name; of a linen module its own attributes alone."""
    try:
        found = inspect.signature(function, eval_str=True).parameters
    except (NameError, SyntaxError, TypeError):  # an annotation that is a text, such as a shape
        found = inspect.signature(function).parameters
    linen = isinstance(function, type) and issubclass(function, nn.Module)
    return {n: p for n, p in found.items() if not (linen and n in _OF_LINEN)}


def _written(parameters: Mapping[str, inspect.Parameter]) -> str:
    """As a signature has them, without what they are annotated with."""
    plain = [p.replace(annotation=p.empty) for p in parameters.values()]
    return str(inspect.Signature(plain))[1:-1]


def misfit(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str | None:
    """Why something of the user's cannot be called so, None where it can."""
    try:
        signature = inspect.signature(function)
        signature.bind(*args, **kwargs)
    except TypeError as error:
        given = ", ".join([*map(str, args), *(f"{name}=..." for name in kwargs)])
        return f"it is called with ({given}): {error}"
    except ValueError:  # it does not say what it takes
        pass
    return None


def _plain_type(annotation: Any) -> Any:
    """An annotation as `kdjax.parse` takes it, None where values are not held against it."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (int, float, bool, str, types.NoneType) or origin is Literal:
        return annotation
    if origin in (list, collections.abc.Sequence) and len(args) == 1:
        inner = _plain_type(args[0])
        return None if inner is None else tuple[inner, ...]
    if origin is tuple and args:
        inner = [a if a is Ellipsis else _plain_type(a) for a in args]
        return None if None in inner else tuple[tuple(inner)]
    if origin in (typing.Union, types.UnionType):
        inner = [_plain_type(a) for a in args]
        return None if None in inner else typing.Union[tuple(inner)]  # noqa: UP007
    return None


def _frozen(value: Any) -> Any:
    """Lists as tuples, which a linen module may have as attributes."""
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return value


def shown(value: Any) -> str:
    """What a function gave, in a few words."""
    if isinstance(value, tuple | list):
        return f"({', '.join(map(shown, value))})"
    if hasattr(value, "shape"):
        return f"{value.dtype} {value.shape}"
    return "nothing" if value is None else type(value).__name__


def explained(error: Exception, *configs: tuple[Any, str]) -> BadInput | None:
    """The one line of an error that a function of the user's raised, None where it was no such error.

    Args:
      error: that was raised.
      *configs: those that may have the function, each with its path; the first is named otherwise.
    """
    where = user_code.place(error)
    if where is None:
        return None
    name = user_code.entered(error)
    found = (
        at for config, path in configs for at, own in parts(config, Own, path) if own.name == name
    )
    at = next(found, None)
    field = configs[0][1] if at is None else f"{at}.{user_code.FUNCTION}"
    return BadInput(field, f"{where}{user_code.described(error)}")


@contextlib.contextmanager
def explaining(*configs: tuple[Any, str]) -> Iterator[None]:
    """Makes one line of what a function of the user's raises within, see `explained`.

    Raises:
      BadInput: it did. A failure of the storage stays one, whoever writes.
    """
    try:
        yield
    except (BadInput, StorageFailed):
        raise
    except Exception as error:  # whatever the user's code raises
        line = explained(error, *configs)
        if line is None or (isinstance(error, OSError) and error.errno in _STORAGE):
            raise
        raise line from error
