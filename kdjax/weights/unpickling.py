"""Pickles as data: plain values, and calls of nothing but what the reader gives.

The instructions are read by `pickletools`, which holds every length against what is there, and done here:
nothing is imported, no class is looked up, no attribute is set, and no method of a value is called.
"""

import io
import mmap
import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple, cast

MOST_INSTRUCTIONS = 2**21
"""A checkpoint of 50,000 tensors has fewer; each may make an object of a hundred bytes."""

_KEYS = (str, int, float, bytes, type(None))
_BROKEN = (ValueError, IndexError, KeyError, TypeError, OverflowError, UnicodeError, EOFError)


class Refused(ValueError):
    """What a pickle asks for is not done; one line says what."""


class Global(NamedTuple):
    """What a name in a pickle stands for: something that the reader can call, or only a name.

    Attributes:
      name: as it stands there, `collections.OrderedDict`.
      call: what a call of it gives, None for what is only named.
    """

    name: str
    call: Callable[..., Any] | None = None


def unpickled(
    stream: io.BytesIO | mmap.mmap,
    *,
    known: Mapping[str, Global],
    persistent: Callable[[Any], Any] | None = None,
    most: int = MOST_INSTRUCTIONS,
) -> Any:
    """The next pickle of a stream, which is then behind it.

    Args:
      stream: of bytes that are there; one of these, whose `read` makes nothing larger than what is left.
      known: what names stand for; any other is refused.
      persistent: what the persistent ids of the pickle stand for.
      most: instructions that it may have.

    Raises:
      Refused: the pickle is damaged, names something else, or does what no file of arrays needs.
    """
    machine = _Machine(known, persistent)
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes in names of Python 2
            for i, (op, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], stream))):
                if i == most:
                    raise Refused(f"it has more than {most:,} instructions")
                if op.name == "STOP":
                    return machine.stack.pop()
                machine.do(op.name, argument)
    except Refused:
        raise
    except _BROKEN:
        pass
    raise Refused("it is damaged or cut short: its pickle does not go on as it began")


class _Machine:
    """The stack, the marks in it, and the memo of a pickle."""

    def __init__(self, known: Mapping[str, Global], persistent: Callable[[Any], Any] | None):
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._known, self._persistent = known, persistent

    def do(self, name: str, argument: Any) -> None:
        """One instruction."""
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _MADE:
            self.stack.append(_MADE[name]())
        elif name in _NOTHING:
            pass
        elif (method := getattr(self, f"_{name.lower()}", None)) is not None:
            method(argument)
        else:
            raise Refused(f"it has the instruction {name}, which no file of arrays needs")

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        found, self.stack[mark:] = self.stack[mark:], []
        return found

    def _mark(self, _: None) -> None:
        self._marks.append(len(self.stack))

    def _pop_mark(self, _: None) -> None:
        self._since_mark()

    def _pop(self, _: None) -> None:
        self.stack.pop()

    def _dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def _binput(self, index: int) -> None:
        self._memo[index] = self.stack[-1]

    _put = _long_binput = _binput

    def _memoize(self, _: None) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def _binget(self, index: int) -> None:
        self.stack.append(self._memo[index])

    _get = _long_binget = _binget

    def _tuple(self, _: None) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _tuple1(self, _: None) -> None:
        self._of_last(1)

    def _tuple2(self, _: None) -> None:
        self._of_last(2)

    def _tuple3(self, _: None) -> None:
        self._of_last(3)

    def _of_last(self, n: int) -> None:
        found = tuple(self.stack[-n:])
        if len(found) != n:
            raise IndexError
        self.stack[-n:] = [found]

    def _list(self, _: None) -> None:
        self.stack.append(self._since_mark())

    def _append(self, _: None) -> None:
        value = self.stack.pop()
        self._top(list).append(value)

    def _appends(self, _: None) -> None:
        values = self._since_mark()
        self._top(list).extend(values)

    def _dict(self, _: None) -> None:
        values = self._since_mark()
        self.stack.append({})
        self._set(values)

    def _setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _setitems(self, _: None) -> None:
        self._set(self._since_mark())

    def _set(self, values: list[Any]) -> None:
        into = self._top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            into[_key(key)] = value

    def _additems(self, _: None) -> None:
        values = self._since_mark()
        self._top(set).update(map(_key, values))

    def _frozenset(self, _: None) -> None:
        self.stack.append(frozenset(map(_key, self._since_mark())))

    def _top(self, kind: type) -> Any:
        """What is on the stack's top, which must be made here: nothing else is written to."""
        if type(self.stack[-1]) is not kind:
            raise TypeError
        return self.stack[-1]

    def _global(self, argument: str) -> None:
        self._find(*argument.split(" ", 1))

    def _stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise TypeError
        self._find(module, name)

    def _find(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in self._known:
            raise Refused(f"it asks for {full[:100]!r}, which is no part of a file of arrays")
        self.stack.append(self._known[full])

    def _reduce(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise TypeError
        if function.call is None:
            raise Refused(f"it calls {function.name}, which is no part of a file of arrays")
        self.stack.append(function.call(*arguments))

    _newobj = _reduce

    def _build(self, _: None) -> None:
        """A dict of tensors may have attributes (of versions of modules), which nobody needs."""
        self.stack.pop()
        self._top(dict)

    def _binpersid(self, _: None) -> None:
        if self._persistent is None:
            raise TypeError
        self.stack.append(self._persistent(self.stack.pop()))


def _key(value: Any) -> Any:
    """A key of a dict; to hash tuples of tuples could take forever."""
    if not isinstance(value, _KEYS):
        raise TypeError
    return value


_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_OLD_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
_PUSHED = frozenset([*_NUMBERS, *_TEXTS, *_OLD_TEXTS, *_BYTES])
_MADE: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_NOTHING = ("PROTO", "FRAME")
