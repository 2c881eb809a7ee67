"""A field that takes any one of several dataclasses, in no list."""

import dataclasses
import gc
import sys
from typing import Any, ClassVar, Literal

import pytest

from kdjax import explain, parse
from kdjax.choice import Choice, choices, import_all
from kdjax.types import BadInput


class Shape(Choice):
    """A base."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round(Shape):
    """One."""

    name: Literal["round"]
    radius: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sided(Shape):
    """A base below the base: with fields, and no one to choose."""

    side: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square(Sided):
    """Two."""

    name: Literal["square"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Any3(Shape):
    """Whatever has corners, with fields of any name."""

    marked_by: ClassVar[str | None] = "corners"
    rest: ClassVar[str | None] = "more"

    corners: int
    more: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holder:
    """What has one."""

    shape: Shape | None = None


def test_what_a_base_stands_for():
    assert choices(Shape) == (Round, Square, Any3)
    assert choices(Sided) == (Square,)
    assert choices(Round) == choices(Any3) == choices(int) == choices(Shape | None) == ()
    assert explain.dataclasses_in(Holder) == [Holder, Round, Square, Any3]
    assert explain.described(Shape) == "Round, or Square, or Any3"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ({"name": "round"}, Round(name="round")),
        ({"name": "square", "side": 3}, Square(name="square", side=3)),
        ({"corners": 3, "flat": [1, "x"]}, Any3(corners=3, more={"flat": [1, "x"]})),
    ],
)
def test_values_and_back(value, expected):
    made = parse.parse(Holder, {"shape": value})
    assert made.shape == expected
    plain = parse.plain(made)
    assert (value or {}).items() <= (plain["shape"] or {}).items()
    assert parse.parse(Holder, plain) == made


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({}, "config.shape.name: missing; it is one of round, square"),
        ({"name": "squre"}, "config.shape.name: 'squre' is not one of round, square; did you mean"),
        ({"name": "square"}, "config.shape.side: missing; it takes an integer"),
        ({"corners": "x"}, "config.shape.corners: expected an integer"),
        (3, "config.shape: expected fields, with 'name' among them, found 3 (int)"),
    ],
)
def test_faults(value, line):
    with pytest.raises(BadInput) as caught:
        parse.parse(Holder, {"shape": value})
    assert str(caught.value).startswith(line)


def test_a_file_in_the_folder_is_one_more(tmp_path, monkeypatch):
    package = tmp_path / "shapes_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from kdjax.choice import Choice, import_all\n\n\nclass Kind(Choice):\n    pass\n\n\n"
        "import_all(__name__, __path__)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("one", "two"):
        (package / f"{name}.py").write_text(
            "import dataclasses\nfrom typing import Literal\n\nfrom shapes_of_a_test import Kind\n\n\n"
            f"@dataclasses.dataclass\nclass {name.title()}(Kind):\n    name: Literal['{name}']\n"
        )
    import shapes_of_a_test

    assert [one.__name__ for one in choices(shapes_of_a_test.Kind)] == ["One", "Two"]
    assert type(parse.parse(shapes_of_a_test.Kind, {"name": "two"})).__name__ == "Two"
    import_all("shapes_of_a_test", [str(package)])  # again: nothing is there twice
    assert len(choices(shapes_of_a_test.Kind)) == 2
    for name in [name for name in sys.modules if name.startswith("shapes_of_a_test")]:
        del sys.modules[name]
    gc.collect()
