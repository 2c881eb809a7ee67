"""A user's function by name: what of its source counts, what rebuilds it, and what is refused."""

import functools
import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from kdjax import fingerprint, user_code
from kdjax.types import BadInput

LOSSES = '''
"""Losses."""
import math

from blocks import scaled

SLOPE = 2.0
OTHER = 3.0
TABLE = {}
TABLE["half"] = 0.5


def hinge(x):
    """A hinge."""
    return max(x, 0.0)


def rank(x, *, margin):
    # A comment.
    return SLOPE * hinge(scaled(x) - margin) + TABLE["half"] + math.pi


def unused(x):
    return OTHER * x
'''
BLOCKS = (
    "FACTOR = 3.0\n\n\ndef scaled(x):\n    return FACTOR * x\n\n\ndef unscaled(x):\n    return x\n"
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_losses.py").write_text(LOSSES)
    (tmp_path / "blocks.py").write_text(BLOCKS)
    return tmp_path


def mark(folder):
    return fingerprint.of_json(user_code.read("my_losses:rank", folder=folder))


def test_a_function_is_rebuilt_from_its_source_alone(folder):
    reference, source = user_code.read("my_losses:rank", folder=folder)
    assert source.keys() == {"my_losses", "blocks"}
    for name in ("unused", "OTHER", "unscaled", "A hinge", "comment"):
        assert not any(name in text for text in source.values())
    program = f"""
        from kdjax import user_code
        print(user_code.load({reference!r}, {source!r})(1.5, margin=0.25))
    """
    for path in folder.iterdir():
        path.unlink()
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = 2.0 * (3.0 * 1.5 - 0.25) + 0.5 + 3.141592653589793
    assert float(found.stdout) == pytest.approx(expected)
    assert user_code.load(reference, source)(1.5, margin=0.25) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("my_losses.py", "# A comment.", "# Another,\n    # of two lines.", True),
        ("my_losses.py", '"""A hinge."""', '"""What it is."""', True),
        ("my_losses.py", "return OTHER * x", "return x", True),
        ("my_losses.py", "OTHER = 3.0", "OTHER = 4.0\n\n", True),
        ("my_losses.py", "max(x, 0.0)", "max( x,0.0 )", True),
        ("blocks.py", "def unscaled(x):\n    return x", "def unscaled(x):\n    return -x", True),
        ("my_losses.py", "max(x, 0.0)", "max(x, 0.1)", False),
        ("my_losses.py", "SLOPE = 2.0", "SLOPE = 2.5", False),
        ("my_losses.py", 'TABLE["half"] = 0.5', 'TABLE["half"] = 0.25', False),
        ("my_losses.py", "scaled(x) - margin", "scaled(x) + margin", False),
        ("blocks.py", "FACTOR = 3.0", "FACTOR = 4.0", False),
        ("blocks.py", "return FACTOR * x", "return FACTOR + x", False),
    ],
)
def test_what_is_used_counts_and_a_comment_does_not(folder, file, old, new, same):
    before = mark(folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    assert (mark(folder) == before) is same


def test_where_the_files_are_does_not_count(folder, tmp_path):
    other = tmp_path / "elsewhere"
    other.mkdir()
    for name in ("my_losses.py", "blocks.py"):
        (other / name).write_text((folder / name).read_text())
    assert mark(other) == mark(folder)


@pytest.mark.parametrize(
    "imported",
    [
        "import blocks\n\n\ndef f(x):\n    return blocks.scaled(x)\n",
        "def f(x):\n    from blocks import scaled as s\n    return s(x)\n",
        "from blocks import *\n\n\ndef f(x):\n    return scaled(x)\n",
        "from pack.inner import f\n",
        "from all_of_it import scaled\n\n\ndef f(x):\n    return scaled(x)\n",
        "from pack import inner\n\n\ndef f(x):\n    return inner.f(x)\n",
        "from __future__ import annotations\nfrom blocks import scaled\n\n\ndef f(x: float):\n"
        "    return scaled(x)\n",
        "try:\n    from blocks import scaled as f\nexcept ImportError:\n    f = None\n",
    ],
)
def test_each_way_to_import_from_a_file_beside(folder, imported):
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text("")
    (folder / "pack" / "inner.py").write_text("from .deeper import f\n")
    (folder / "pack" / "deeper.py").write_text(
        "from blocks import scaled\n\n\ndef f(x):\n    return scaled(x)\n"
    )
    (folder / "all_of_it.py").write_text("from blocks import *\n")
    (folder / "main_one.py").write_text(imported)
    reference, source = user_code.read("main_one:f", folder=folder)
    assert "FACTOR" in source["blocks"]
    assert user_code.load(reference, source)(2.0) == 6.0


def test_an_installed_function_has_no_source():
    import optax

    assert user_code.read("optax:huber_loss") == ("optax:huber_loss", {})
    assert user_code.load("optax:huber_loss", {}) is optax.huber_loss


def test_objects_are_references_to_their_files():
    reference, source = user_code.read(LOSSES_OF_TESTS := mark)
    assert reference == f"{LOSSES_OF_TESTS.__module__}:mark"
    assert "fingerprint.of_json" in next(iter(source.values()))


def test_what_another_process_would_not_find_is_not_installed(tmp_path, monkeypatch):
    """The case that was found: a module that had been imported once was taken for an installed one."""
    (tmp_path / "mine_of_once.py").write_text("def double(x):\n    return 2 * x\n")
    with monkeypatch.context() as patched:
        patched.syspath_prepend(str(tmp_path))
        import mine_of_once

        reference, source = user_code.read(mine_of_once.double)
        assert reference == "mine_of_once:double"
        assert "2 * x" in source["mine_of_once"]
    monkeypatch.delitem(sys.modules, "mine_of_once")
    for loaded in (True, False):
        if loaded:
            monkeypatch.setitem(sys.modules, "mine_of_once", mine_of_once)
        with pytest.raises(BadInput, match=r"there is no module .mine_of_once. on sys\.path"):
            user_code.read("mine_of_once:double")
        monkeypatch.delitem(sys.modules, "mine_of_once", raising=False)
    for installed in ("os.path:join", "numpy.linalg:norm", "jax.numpy:sum", "math:sqrt"):
        assert user_code.read(installed) == (installed, {})


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (lambda x: x, "a lambda has no name by which another process could find it; define it"),
        (functools.partial(max, 1), "partial has no name by which another process could find it"),
        (
            (lambda: lambda x: x)(),
            "a lambda has no name by which another process could find it; define it at the top",
        ),
        (3, "3 is no function; give one, or 'module:name'"),
        ("my_losses", "'my_losses' names no function; write 'module:name'"),
        ("my_loses:rank", "there is no module 'my_loses' beside"),
        ("my_losses:rnk", r"my_losses.py defines no 'rnk'; did you mean rank?"),
        ("broken:f", r"broken.py:1: SyntaxError"),
        ("dotted:f", r"dotted.py:1: import pack.inner: write from pack import inner"),
    ],
)
def test_what_cannot_be_found_again_is_one_line_with_its_path(folder, function, line):
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "dotted.py").write_text(
        "import pack.inner\n\n\ndef f(x):\n    return pack.inner.f(x)\n"
    )
    (folder / "pack").mkdir()
    (folder / "pack" / "inner.py").write_text("def f(x):\n    return x\n")
    (folder / "pack" / "__init__.py").write_text("")
    with pytest.raises(BadInput) as caught:
        user_code.resolved({"a": [{"function": function}]}, folder=folder)
    assert str(caught.value).startswith("config.a[0].function: ")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_local_function_is_refused():
    def local(x):
        return x

    with pytest.raises(BadInput, match=r"local, which is defined inside another has no name"):
        user_code.read(local)


def _imported(path):
    """The module of a file, as a config that has its folder on `sys.path` imports it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("text", ["def f(x):\n    return x\n", "class f:\n    def g(self): pass\n"])
def test_an_object_of_another_file_of_the_same_name_is_refused(tmp_path, text):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "twice.py").write_text(text)
    found = _imported(tmp_path / "there" / "twice.py").f
    reference, _ = user_code.read(found, folder=tmp_path / "there")
    assert reference == "twice:f"
    with pytest.raises(
        BadInput, match=r"f is from .*there/twice.py, .* found as .*here/twice.py; gi"
    ):
        user_code.read(found, folder=tmp_path / "here")


WRAPPED = """
import functools


def f(x):
    return x


def named(g):
    @functools.wraps(g)
    def run(x):
        return g(x)
    return run


twice = named(lambda x: f(x) + f(x))
twice = functools.wraps(f)(twice)


@named
def own(x):
    return x
"""


def test_what_has_the_name_of_another_function_is_not_taken_for_it(tmp_path):
    (tmp_path / "wrapped.py").write_text(WRAPPED)
    module = _imported(tmp_path / "wrapped.py")
    assert user_code.load(*user_code.read(module.own, folder=tmp_path))(3) == 3
    with pytest.raises(
        BadInput, match=r"^it says that it is f of wrapped, and that is another; name"
    ):
        user_code.read(module.twice, folder=tmp_path)
    assert user_code.load(*user_code.read("wrapped:twice", folder=tmp_path))(3) == 6


def test_a_file_that_fails_is_named_with_its_line(folder):
    (folder / "fails.py").write_text("A = 1\nB = A / 0\n\n\ndef f(x):\n    return B\n")
    reference, source = user_code.read("fails:f", folder=folder)
    with pytest.raises(BadInput, match=r"fails:f: .*fails.py:2: ZeroDivisionError"):
        user_code.load(reference, source)
