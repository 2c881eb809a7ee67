"""A function from its reference and its source, and the lines of errors in it."""

import ast
import builtins
import functools
import importlib
import importlib.util
import json
import linecache
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kdjax import fingerprint
from kdjax.files import from_json
from kdjax.types import BadInput

_MARK = "__kdjax_user_code__"

STANDS: dict[tuple[str, str], tuple[Path, list[ast.stmt]]] = {}
"""Where a source was read in this process, and as what: for the lines of messages."""


def load(reference: str, source: Mapping[str, str]) -> Any:
    """The function or the class; one and the same for equal sources.

    Args:
      reference: `"module:name"`.
      source: by module, as `read` gives it; empty of something installed.

    Raises:
      BadInput: its source cannot be run, or has no such name.
    """
    return _loaded(reference, json.dumps(source, sort_keys=True))


@functools.lru_cache(maxsize=256)
def _loaded(reference: str, text: str) -> Any:
    module, _, name = reference.partition(":")
    source = from_json(text)
    try:
        space = _space(text)(module) if module in source else importlib.import_module(module)
        return getattr(space, name)
    except Exception as error:  # whatever the user's code, or a package of theirs, raises
        raise BadInput("", f"{reference}: {place(error) or ''}{described(error)}") from None


@functools.lru_cache(maxsize=256)
def _space(text: str) -> Callable[[str], types.ModuleType]:
    """Gives the modules of a source, each run when it is first asked for."""
    source: dict[str, str] = from_json(text)
    mark = fingerprint.of_json(source)
    made: dict[str, types.ModuleType] = {}

    def module(name: str) -> types.ModuleType:
        if name in made:
            return made[name]
        path, nodes = STANDS.get((name, source[name]), (None, None))
        filename = f"<{name} of a manifest, {mark}>" if path is None else os.fspath(path)
        if nodes is None:
            nodes = ast.parse(source[name]).body
            lines = source[name].splitlines(keepends=True)
            linecache.cache[filename] = (len(source[name]), None, lines, filename)
        own = types.ModuleType(f"{name}@{mark}")
        own.__dict__.update(
            {
                _MARK: True,
                "__file__": filename,
                "__builtins__": {**vars(builtins), "__import__": importing(name)},
            }
        )
        # By its name there: dataclasses and linen look a class's module up.
        sys.modules[own.__name__] = made[name] = own
        exec(compile(ast.Module(nodes, []), filename, "exec", dont_inherit=True), own.__dict__)
        return own

    def importing(importer: str) -> Callable[..., Any]:
        def find(name, globals=None, locals=None, fromlist=(), level=0):
            if level:
                package = importer.rpartition(".")[0] or importer
                name = importlib.util.resolve_name("." * level + name, package)
            inner = {item: f"{name}.{item}" for item in fromlist or ()}
            if name not in source and not source.keys() & set(inner.values()):
                return builtins.__import__(name, globals, locals, fromlist, 0)
            found = module(name) if name in source else types.ModuleType(name)
            for item, full in inner.items():
                if full in source:
                    setattr(found, item, module(full))
            return found

        return find

    return module


def place(error: BaseException) -> str | None:
    """`"my_losses.py:12: "`, the innermost line of the user's that an error comes from, or None."""
    frames = [*_frames(error)]
    return f"{frames[-1].f_code.co_filename}:{_line(error, frames[-1])}: " if frames else None


def entered(error: BaseException) -> str | None:
    """The name at the top of a file of the user's in which an error came about, or None."""
    for frame in _frames(error):
        name = frame.f_code.co_qualname.partition(".")[0]
        if name != "<module>":
            return name
    return None


def described(error: BaseException) -> str:
    """The kind of an error, and its first line."""
    said = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _frames(error: BaseException) -> Iterator[types.FrameType]:
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if _MARK in frame.f_globals:
            yield frame


def _line(error: BaseException, wanted: types.FrameType) -> int:
    return [n for frame, n in traceback.walk_tb(error.__traceback__) if frame is wanted][-1]
