"""A file is one thought and a function fits on a page; what is longer has its reason here."""

import ast
from pathlib import Path

import kdjax

FILE, FUNCTION = 400, 60
"""Lines at most; those of a function without its docstring."""

LONG_FILES = {}
LONG_FUNCTIONS = {
    "stages/distill.py: _prepare": "the parts of one `Setup`, each made of those before it",
    "stages/sensitivity.py: run": "a third of it is the manifest that it returns, field by field",
}


def functions(source):
    """`(qualified name, lines besides the docstring)` of every function, also of those within others."""
    pending = [("", ast.parse(source))]
    while pending:
        within, node = pending.pop()
        for child in ast.iter_child_nodes(node):
            name = within
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{within}.{child.name}".strip(".")
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                first = child.body[0]
                described = ast.get_docstring(child) is not None
                words = first.end_lineno - first.lineno + 1 if described else 0
                yield name, child.end_lineno - child.lineno + 1 - words
            pending.append((name, child))


def sources():
    """The text of every file of the package, by its path in it."""
    package = Path(kdjax.__file__).parent
    paths = sorted(package.rglob("*.py"))
    return {path.relative_to(package).as_posix(): path.read_text("utf-8") for path in paths}


def test_a_function_is_counted_without_its_docstring():
    source = '''
class A:
    def f(self):
        """Two
        lines."""
        def g(x):
            return x

        return g

async def h(
    x
):
    "One."
    if x:
        def g():
            pass
'''
    assert sorted(functions(source)) == [("A.f", 5), ("A.f.g", 2), ("h", 6), ("h.g", 2)]


def test_files_are_short_but_for_a_reason():
    long = {name for name, text in sources().items() if len(text.splitlines()) > FILE}
    assert long == LONG_FILES.keys(), "take it apart, or give a reason; or take its reason out"


def test_functions_are_short_but_for_a_reason():
    long = {
        f"{file}: {name}"
        for file, text in sources().items()
        for name, lines in functions(text)
        if lines > FUNCTION
    }
    assert long == LONG_FUNCTIONS.keys(), "take it apart, or give a reason; or take its reason out"
