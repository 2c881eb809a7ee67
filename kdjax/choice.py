"""A field that takes any one of several dataclasses: the subclasses of one base, in no list.

The base is the type of the field; each subclass has a tag of its own, a field whose type is a `Literal`:

    class Encoder(Choice, abc.ABC):
        @abc.abstractmethod
        def module(self, compute): ...

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class CNN(Encoder):
        name: Literal["cnn"]
        widths: tuple[int, ...]

`kdjax.parse` builds a `CNN` from `{"name": "cnn", "widths": [8, 16]}` where the type is `Encoder`. A new
subclass is known as soon as its module is imported, and a package whose `__init__` calls `import_all`
imports every module of its folder: adding one is adding a file.
"""

import importlib
import itertools
import pkgutil
import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

_COUNT = itertools.count(1)


class Choice:
    """The base of such dataclasses; the base of a kind is abstract.

    Attributes:
      tag: the field that tells them apart.
      marked_by: of a subclass that has no tag: the field by whose presence it is told.
      rest: of a subclass that takes fields which its class does not list: the field that they are
        gathered in, by name.
      by_name: a text stands for the one whose tag it is, with all else at its defaults.
    """

    tag: ClassVar[str] = "name"
    marked_by: ClassVar[str | None] = None
    rest: ClassVar[str | None] = None
    by_name: ClassVar[bool] = False

    if TYPE_CHECKING:
        name: Any
        """Of one that has this tag."""

    defined: ClassVar[int] = 0
    """Which one it is, in the order of definition."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Counts it."""
        super().__init_subclass__(**kwargs)
        cls.defined = next(_COUNT)

    @classmethod
    def read(cls, value: Any, path: str) -> Any:
        """The plain value of one with a `rest` as its fields are to be gathered from."""
        return value


def import_all(package: str, folders: Iterable[str]) -> None:
    """Imports every module of a package, so that the subclasses that they define are known.

    Args:
      package: its name, `__name__`.
      folders: where its modules are, `__path__`.
    """
    for found in pkgutil.iter_modules(folders):
        importlib.import_module(f"{package}.{found.name}")


def choices(kind: Any) -> tuple[type[Choice], ...]:
    """What a field of type `kind` may be, in the order of definition; empty where it is no such base."""
    if not isinstance(kind, type) or not issubclass(kind, Choice) or _is_one(kind):
        return ()
    found: list[type[Choice]] = []

    def visit(base: type[Choice]) -> None:
        for subclass in base.__subclasses__():
            if _is_one(subclass):
                found.append(subclass)
            visit(subclass)

    visit(kind)
    return tuple(sorted(found, key=lambda one: (one.marked_by is not None, one.defined)))


def _is_one(kind: type[Choice]) -> bool:
    """Whether it is one to choose, and no base of some."""
    hint = vars(kind).get("__annotations__", {}).get(kind.tag)
    return typing.get_origin(hint) is Literal or kind.marked_by is not None
