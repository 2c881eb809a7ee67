"""How messages show values, and what they suggest in the place of a name."""

import difflib
from collections.abc import Iterable
from typing import Any


def suggestion(name: object, known: Iterable[object]) -> str:
    """What to write in the place of a name: `"did you mean X?"`, or all that are known."""
    known = [str(k) for k in known]
    return close(name, known) or f"known: {', '.join(known)}"


def close(name: object, known: Iterable[object]) -> str:
    """`"did you mean X?"`, or nothing where no name is near."""
    close = difflib.get_close_matches(str(name), map(str, known), n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else ""


def article(name: str) -> str:
    """A type of Python in words, by its name."""
    words = {
        "int": "an integer",
        "float": "a number",
        "str": "a text",
        "bool": "True or False",
        "Any": "anything",
    }
    return words.get(name, name)


def shown(value: Any) -> str:
    """A value and its type."""
    return f"{cut(value)} ({type(value).__name__})"


def cut(value: Any) -> str:
    """What a value looks like, in one line that is not too long."""
    try:
        whole = " ".join(repr(value).split())
    except ValueError:  # an integer of more digits than Python writes
        whole = "a very long one"
    return whole if len(whole) <= 100 else f"{whole[:80]}..."
