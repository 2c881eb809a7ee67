"""A function's reference, and the source that it needs, from where it stands."""

import __future__

import ast
import dis
import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NamedTuple

from kdjax.spelling import suggestion
from kdjax.types import BadInput, under
from kdjax.user_code.loading import STANDS

FUNCTION, SOURCE = "function", "source"
"""The fields of a plain config that name a function, and have its source."""

_PLACES = ("stdlib", "platstdlib", "purelib", "platlib")
_INSTALLED = tuple(os.path.realpath(path) + os.sep for path in map(sysconfig.get_path, _PLACES))


def resolved(values: Any, *, folder: os.PathLike[str] | None, path: str = "config") -> Any:
    """Plain values in which every `function` is a reference, with its source beside it.

    Args:
      values: dicts, lists and what is in them.
      folder: of the config file: modules are found there, in the folder above, and on `sys.path`.
      path: of the values, for messages.

    Raises:
      BadInput: a function cannot be found, or has no name to find it by; the line has its path.
    """
    if isinstance(values, Mapping):
        found = {
            name: resolved(v, folder=folder, path=f"{path}.{name}") for name, v in values.items()
        }
        if FUNCTION in found and SOURCE not in found:
            with under(f"{path}.{FUNCTION}"):
                reference, source = read(found[FUNCTION], folder=folder)
            found = {**found, FUNCTION: reference, SOURCE: source}
        return found
    if isinstance(values, list | tuple):
        return [resolved(v, folder=folder, path=f"{path}[{i}]") for i, v in enumerate(values)]
    return values


def read(function: Any, *, folder: os.PathLike[str] | None = None) -> tuple[str, dict[str, str]]:
    """`("module:name", source by module)` of a function or a class; no source of an installed one.

    Args:
      function: it, or the reference.
      folder: of the config file.

    Raises:
      BadInput: it is not there, or has no name to find it by.
    """
    reference = function if isinstance(function, str) else _named(function)
    module, _, name = reference.partition(":")
    if not module or not name.isidentifier():
        raise BadInput(
            "",
            f"{reference!r} names no function",
            "write 'module:name', with the module beside the config",
        )
    importlib.invalidate_caches()
    search = [os.fspath(f) for f in ((folder, Path(folder).parent) if folder else ())] + sys.path
    closure = _Closure(search)
    if closure.file(module) is None:
        if not _is_installed(module):
            where = f"beside {folder}" if folder else "on sys.path"
            raise BadInput(
                "", f"there is no module {module!r} {where}", "name a file there, without .py"
            )
        return reference, {}
    if not isinstance(function, str):
        _check_stands(function, closure.file(module))
    closure.need(module, name)
    return reference, closure.texts()


def _is_installed(module: str) -> bool:
    """Whether another process finds it too: not for having been imported here from wherever it was."""
    loaded = sys.modules.get(module)
    known = getattr(loaded, "__spec__", None) is not None
    if known and not _is_users(getattr(loaded, "__file__", None)):
        return True  # also one that no finder knows, such as a part of a compiled one
    where: Sequence[str] | None = None
    parts = module.split(".")
    for i in range(len(parts)):
        name = ".".join(parts[: i + 1])
        specs = (finder.find_spec(name, where) for finder in sys.meta_path)
        try:
            spec = next((spec for spec in specs if spec is not None), None)
        except (ImportError, ValueError):
            return False
        if spec is None or (i + 1 < len(parts) and spec.submodule_search_locations is None):
            return False
        where = spec.submodule_search_locations
    return True


def _is_users(file: str | None) -> bool:
    """Whether a file is Python that neither pip nor Python itself has put where it is."""
    if file is None or not file.endswith(".py"):
        return False
    real = os.path.realpath(file)
    places = {"site-packages", "dist-packages"}
    return not (real.startswith(_INSTALLED) or places & set(Path(real).parts))


def _named(function: Any) -> str:
    """The reference of an object."""
    if not callable(function):
        raise BadInput("", f"{function!r} is no function", "give one, or 'module:name'")
    name, module = getattr(function, "__qualname__", None), getattr(function, "__module__", None)
    if not isinstance(name, str) or not isinstance(module, str):
        raise BadInput(
            "",
            f"{type(function).__name__} has no name by which another process could find it",
            "write a function at the top of a file, and give its numbers as fields here",
        )
    if not name.isidentifier():
        what = "a lambda" if "<lambda>" in name else f"{name}, which is defined inside another"
        raise BadInput(
            "",
            f"{what} has no name by which another process could find it",
            "define it at the top of a file",
        )
    return f"{module}:{name}"


def _check_stands(function: Any, file: Path | None) -> None:
    """Refuses an object where another one of the same name is what would be read.

    So it is beside a file that has the name of another one's, and of what `functools.wraps` has named.
    """
    around = getattr(inspect.unwrap(function), "__globals__", None)
    if around is not None and around.get(function.__name__) is not function:
        raise BadInput(
            "",
            f"it says that it is {function.__qualname__} of {function.__module__}, and that is another",
            "name it as 'module:name', by the name that it has at the top of its file",
        )
    inner = [*vars(function).values()] if isinstance(function, type) else []
    for one in (function, *filter(callable, inner)):
        code = getattr(inspect.unwrap(one), "__code__", None)
        within = getattr(code, "co_qualname", "").partition(".")[0] == function.__qualname__
        if code is None or file is None or not within or not os.path.exists(code.co_filename):
            continue
        if not os.path.samefile(code.co_filename, file):
            raise BadInput(
                "",
                f"{function.__qualname__} is from {code.co_filename}, and its module {file.stem!r} is "
                f"found as {file}",
                "give one of the two files another name",
            )


class _Statement(NamedTuple):
    """A statement at the top of a file.

    Attributes:
      node: it.
      defines: names.
      uses: names that are looked up in the file.
      changes: names of what it changes without defining them.
    """

    node: ast.stmt
    defines: frozenset[str]
    uses: frozenset[str]
    changes: frozenset[str]


def _is_star(statement: _Statement) -> bool:
    node = statement.node
    return isinstance(node, ast.ImportFrom) and node.names[0].name == "*"


class _File:
    """A file of the user's, in statements."""

    def __init__(self, path: Path):
        self.path = path
        self.is_package = path.name == "__init__.py"
        try:
            tree = ast.parse(path.read_bytes(), os.fspath(path))
        except SyntaxError as error:
            raise BadInput("", f"{path}:{error.lineno}: SyntaxError: {error.msg}") from None
        except (OSError, ValueError) as error:
            raise BadInput("", f"{path} cannot be read: {error}") from None
        body = [part for node in tree.body for part in _parts(node)]
        self.flags = (
            __future__.annotations.compiler_flag
            if any(
                isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in body
            )
            else 0
        )
        self.statements = [_statement(node, self.flags) for node in body]

    def defining(self, name: str) -> list[int]:
        """Indices of the statements that define a name."""
        return [i for i, one in enumerate(self.statements) if name in one.defines]


def _parts(node: ast.stmt) -> Iterator[ast.stmt]:
    """An import of several names as several imports; everything else as it is."""
    if isinstance(node, ast.Import | ast.ImportFrom) and len(node.names) > 1:
        for alias in node.names:
            part = (
                ast.Import([alias])
                if isinstance(node, ast.Import)
                else ast.ImportFrom(node.module, [alias], node.level)
            )
            yield ast.copy_location(part, node)
    else:
        yield node


def _statement(node: ast.stmt, flags: int) -> _Statement:
    code = compile(ast.Module([node], []), "<user code>", "exec", flags, dont_inherit=True)
    defines = {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_NAME"}
    uses = {name for one in _codes(code) for name in _looked_up(one)}
    if flags:  # annotations are texts
        for inner in ast.walk(node):
            for annotation in (getattr(inner, "annotation", None), getattr(inner, "returns", None)):
                if isinstance(annotation, ast.expr):
                    uses |= {n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)}
    match node:
        case ast.Assign(targets=targets):
            roots = map(_root, targets)
        case ast.AugAssign(target=target):
            roots = [_root(target)]
        case ast.Expr(value=ast.Call(func=ast.Attribute() as called)):
            roots = [_root(called)]
        case _:
            roots = []
    return _Statement(
        node, frozenset(defines), frozenset(uses), frozenset(filter(None, roots)) - defines
    )


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _looked_up(code: types.CodeType) -> set[str]:
    """Names that are not local to a piece of code."""
    return {
        i.argval
        for i in dis.get_instructions(code)
        if i.opname.startswith("LOAD_") and ("GLOBAL" in i.opname or "NAME" in i.opname)
    }


def _root(node: ast.expr) -> str | None:
    """The name that `name.a[0].b` begins with."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


class _Closure:
    """What something uses of the user's files, as far as it has been asked for."""

    def __init__(self, search: Sequence[str]):
        self._search = search
        self._files: dict[str, _File] = {}
        self._kept: dict[str, set[int]] = {}

    def file(self, module: str) -> Path | None:
        """The file of a module of the user's; None of one that is installed, or not there."""
        if module.partition(".")[0] == __name__.partition(".")[0]:
            return None
        where: Sequence[str] | None = self._search
        parts, origin = module.split("."), None
        for i in range(len(parts)):
            try:
                spec = PathFinder.find_spec(".".join(parts[: i + 1]), where)
            except (ImportError, ValueError):
                return None
            if spec is None:
                return None
            where, origin = spec.submodule_search_locations, spec.origin
        if origin is None or not _is_users(origin):
            return None
        return Path(origin)

    def need(self, module: str, name: str | None) -> None:
        """Takes what defines a name, and what that uses; all of the file for no name."""
        file = self._opened(module)
        wanted = range(len(file.statements)) if name is None else file.defining(name)
        if name is not None and not wanted and not any(map(_is_star, file.statements)):
            known = [n for one in file.statements for n in one.defines]
            raise BadInput("", f"{file.path} defines no {name!r}", suggestion(name, known))
        for i in wanted:
            self._take(module, i)

    def _opened(self, module: str) -> _File:
        if module not in self._files:
            path = self.file(module)
            assert path is not None
            file = self._files[module] = _File(path)
            self._kept[module] = set()
            for i, one in enumerate(file.statements):
                node = one.node
                future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
                if future or _is_star(one):
                    self._take(module, i)
        return self._files[module]

    def _take(self, module: str, i: int) -> None:
        file, kept = self._files[module], self._kept[module]
        if i in kept:
            return
        kept.add(i)
        node, defines, uses, _ = file.statements[i]
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                self._follow(module, inner)
        for name in uses | defines:
            for other, one in enumerate(file.statements):
                if name in one.defines or name in one.changes:
                    self._take(module, other)

    def _follow(self, module: str, node: ast.Import | ast.ImportFrom) -> None:
        """Takes what an import brings from another file of the user's."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                if self.file(alias.name) is None:
                    continue
                if "." in alias.name:
                    raise BadInput(
                        "",
                        f"{self._files[module].path}:{node.lineno}: import {alias.name}: write from "
                        f"{alias.name.rpartition('.')[0]} import {alias.name.rpartition('.')[2]}",
                    )
                self.need(alias.name, None)
            return
        source = _absolute(node, module, is_package=self._files[module].is_package)
        for alias in node.names:
            inner = f"{source}.{alias.name}"
            if alias.name != "*" and self.file(inner) is not None:
                self.need(inner, None)
            elif source != "__future__" and self.file(source) is not None:
                self.need(source, None if alias.name == "*" else alias.name)

    def texts(self) -> dict[str, str]:
        """The source of each module, in the order of its file; remembers where it stands."""
        found = {}
        for module, kept in self._kept.items():
            if not kept:
                continue
            file = self._files[module]
            nodes = [file.statements[i].node for i in sorted(kept)]
            found[module] = "\n".join(ast.unparse(_bare(node)) for node in nodes)
            STANDS[module, found[module]] = (file.path, nodes)
        return found


def _absolute(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    """The module that is imported from."""
    if not node.level:
        return node.module or ""
    package = module if is_package else module.rpartition(".")[0]
    try:
        return importlib.util.resolve_name("." * node.level + (node.module or ""), package or None)
    except ImportError:
        raise BadInput("", f"{module}: a relative import, and it is in no package") from None


def _bare(node: ast.stmt) -> ast.stmt:
    """A copy without docstrings."""

    class Without(ast.NodeTransformer):
        def generic_visit(self, node: ast.AST) -> ast.AST:
            node = super().generic_visit(node)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                match node.body:
                    case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                        node.body = rest or [ast.Pass()]
            return node

    return Without().visit(ast.parse(ast.unparse(node)).body[0])
