"""A config file, found, executed and overridden: `FILE.py:arg` -> `config.Run`."""

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from typing import Any

from etils import epath
from ml_collections import ConfigDict, FieldReference, FrozenConfigDict
from ml_collections.config_dict import RequiredValueError

from kdjax import config, parse, paths, user_code
from kdjax.train import interruption
from kdjax.types import BadFile, BadInput, under

_PACKAGE, _, _ = __name__.partition(".")


class BadConfig(BadInput):
    """A config file raised an exception, which is the cause of this one."""


def load_config(text: str, overrides: Sequence[str] = ()) -> config.Run:
    """The run of a config file, with `a.b=value` overrides.

    Args:
      text: `FILE.py` or `FILE.py:arg,arg=value`; the argument goes to the file's `get_config`.
      overrides: of fields, also of those that the file leaves at their defaults; each changes its own
        path alone, however often the file used one dict.

    Raises:
      BadConfig: the file cannot be run, or gives no config; the line names where in it.
      BadInput: there is no such file, or a field is wrong.
    """
    values = values_of(text)
    for item in overrides:
        name, _, value = item.partition("=")
        parse.override(values, name, value, config.Run)
    folder = _file_of(text).absolute().parent
    return parse.parse(config.Run, user_code.resolved(values, folder=folder))


def _file_of(text: str) -> epath.Path:
    """The config file, of `FILE.py:arg`."""
    file, _, _ = text.partition(".py:")
    return paths.parse(file if file.endswith(".py") else f"{file}.py", field="--config")


def values_of(text: str) -> dict[str, Any]:
    """Calls `get_config` of a file; returns plain values of which no two share anything.

    Raises:
      BadConfig: the file cannot be run.
      BadInput: there is no such file, or it gives no config.
    """
    _, _, arg = text.partition(".py:")
    path = _file_of(text)
    if not path.is_file():
        raise BadInput("--config", f"{path} is not a file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        with _beside(path.absolute().parent):
            spec.loader.exec_module(module)
            get_config = getattr(module, "get_config", None)
            if not callable(get_config):
                raise BadInput("--config", f"{path} has no function get_config(arg)")
            at = _where(path, get_config)
            try:
                inspect.signature(get_config).bind(arg or None)
            except TypeError:
                raise BadFile(
                    at,
                    "get_config cannot be called with one argument",
                    "write def get_config(arg=None), where arg is what follows FILE.py:",
                ) from None
            with under(f"--config={path}:"):
                found = get_config(arg or None)
            if inspect.iscoroutine(found):
                found.close()  # or Python warns that nobody waited for it
            values = plain(found)
    except (BadInput, interruption.Interrupted):
        raise
    except (Exception, SystemExit) as error:
        raise BadConfig("", _failure(path, error)) from error
    if not isinstance(values, dict):
        given = "None" if found is None else type(found).__name__
        raise BadFile(
            at,
            f"get_config gave {given}, not a ConfigDict or a dict",
            "does it return what it makes?",
        )
    return values


@contextlib.contextmanager
def _beside(folder: epath.Path) -> Iterator[None]:
    """As for a script, and one folder more: a config may import what lies beside it, or above.

    What it imports so is not kept: it may have changed when the config is loaded again, and beside
    another config something else may have its name.
    """
    places = [os.fspath(folder), os.fspath(folder.parent)]
    path, modules = list(sys.path), set(sys.modules)
    sys.path[:0] = places
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            top, _, _ = name.partition(".")
            if top != _PACKAGE and PathFinder.find_spec(top, places) is not None:
                del sys.modules[name]


def plain(value: Any, path: str = "config") -> Any:
    """Copies the value of a config file into dicts and lists that share nothing.

    In a ConfigDict, one dict may stand in several places, and a change in one would change them all.

    Raises:
      BadInput: something contains itself; the line names its path.
    """

    def own(value: Any, path: str, within: tuple[int, ...]) -> Any:
        if isinstance(value, FieldReference):
            value = value.get()
        if not isinstance(value, ConfigDict | FrozenConfigDict | Mapping | list | tuple):
            return value
        if id(value) in within:
            raise BadInput(path, "contains itself")
        within = (*within, id(value))
        if isinstance(value, list | tuple):
            return [own(item, f"{path}[{i}]", within) for i, item in enumerate(value)]
        given = [name for name in value if not _is_unset(value, name)]
        return {name: own(value[name], f"{path}.{name}", within) for name in given}

    return own(value, path, ())


def _is_unset(value: Any, name: Any) -> bool:
    """Whether a field is a placeholder without a value: it is missing, unless an override gives it."""
    if not isinstance(value, ConfigDict | FrozenConfigDict):
        return False
    try:
        value[name]
    except RequiredValueError:
        return True
    return False


def _where(path: epath.Path, function: Any) -> str:
    """`--config: FILE.py:LINE` of a function of a config file, or of the file."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    line = f":{code.co_firstlineno}" if isinstance(code, types.CodeType) else ""
    return f"--config: {path}{line}"


def _failure(path: epath.Path, error: BaseException) -> str:
    """The message about a config file that failed: in which of its lines, and with what."""
    own = os.fspath(path.absolute())
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if os.path.abspath(frame.filename) == own]
    said = " ".join(str(error).split())[:300]
    said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename is not None:
        if os.path.abspath(error.filename) == own:
            lines = [error.lineno]
        said = f"SyntaxError: {error.msg} ({error.filename}, line {error.lineno})"
    elif frames and os.path.abspath(frames[-1].filename) != own:
        said += f" ({frames[-1].filename}, line {frames[-1].lineno})"
    line = f":{lines[-1]}" if lines else ""
    return f"--config: {path}{line}: {said}; --traceback shows all of it"
