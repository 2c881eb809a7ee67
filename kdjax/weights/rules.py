"""Rules between the names of a published layout and those of kdjax, run in both directions.

A rule is two patterns and a `Transform`. A pattern is a name with holes, of which both sides have the
same: `{block}` is a whole number, `{block+1}` one more than it (`layer{stage+1}` and `stage{stage}` are
one), `{name:word}` anything without a dot or a slash, `{path:path}` anything.

    Rule("layer{s+1}.{b}.conv1.weight", "params/stage{s}_block{b}/first/conv/kernel", conv)

What a network has decides: each of its variables finds the one rule that fits, and with the numbers in
its holes the names of the tensors that it is made of. So the same rules say which tensors are missing,
which are left over, and what a file of the layout looks like that is written.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import numpy as np

from kdjax.weights.preprocessing import Preprocessing

Shape = tuple[int, ...]

_HOLE = re.compile(r"\{(\w+)(?:([+-]\d+)|:(word|path))?\}")
_KINDS = {None: r"\d+", "word": r"[^./]+", "path": r".+"}

COUNTERS = r".*\.num_batches_tracked"
"""How many batches torch's BatchNorm has seen: nothing that a network computes with."""


@runtime_checkable
class Leaf(Protocol):
    """An array, or its shape and dtype."""

    @property
    def shape(self) -> Shape:
        """Of the array."""
        ...

    @property
    def dtype(self) -> Any:
        """Of its numbers."""
        ...


class Named(NamedTuple):
    """A network for its names.

    Attributes:
      module: of the encoder, as it is written: what it is made of may decide which rules there are. Its
        widths must not: shrinking changes them, and the variables have the ones that count.
      encoder: its variables, as `params/stem/conv/kernel`, or their shapes.
      head: of the classifier, as `kernel`, or its shapes; None where there is no classifier.
      title: of the network, for messages.
      size: height and width of the images that it sees, in pixels; None where it sees none.
    """

    module: nn.Module
    encoder: Mapping[str, Leaf]
    head: Mapping[str, Leaf] | None
    title: str
    size: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Transform:
    """What makes variables of tensors, and the same tensors of these variables again.

    Attributes:
      into: `(tensors, shapes of the variables) -> variables`; a ValueError where they do not fit. Its
        result may have other shapes than those asked for, which is then said to be so.
      out: `(variables) -> tensors`.
    """

    into: Callable[[Sequence[np.ndarray], Sequence[Shape]], Sequence[np.ndarray]]
    out: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


def one(into: Callable[[np.ndarray], Any], out: Callable[[np.ndarray], Any]) -> Transform:
    """A transform of one tensor to one variable."""
    return Transform(lambda found, shapes: [into(found[0])], lambda found: [out(found[0])])


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which tensors make which variables.

    Attributes:
      theirs: patterns of the names of the tensors.
      ours: of the variables, as `params/stem/conv/kernel`, from the encoder on; of a rule of a head, from
        the classifier on.
      how: see `Transform`.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    how: Transform

    def __init__(self, theirs: str | Sequence[str], ours: str | Sequence[str], how: Transform):
        object.__setattr__(self, "theirs", (theirs,) if isinstance(theirs, str) else tuple(theirs))
        object.__setattr__(self, "ours", (ours,) if isinstance(ours, str) else tuple(ours))
        object.__setattr__(self, "how", how)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How a family of networks is named in the files of one publisher.

    Attributes:
      names: by which a config may ask for it: `torchvision`, `timm`, `hf`.
      family: of the networks, for messages: `ResNet`.
      of: the class of their modules.
      which: whether it is for a module of this class; for all of them by default.
      rules: of the encoder; see `Named.module`.
      misfits: `(module, config.json, the architecture that it says) -> (field, fault, mend)` of what no
        tensor shows, and a network must have all the same, such as a padding.
      head: rules of the classifier.
      marks: patterns of names of which a file of this layout has each, and files of others do not: they
        say what a file looks like.
      ignored: patterns of names that no network needs.
      prefix: of every name but the head's in a file that has a head; files of the encoder alone do not
        have it.
      outside: patterns of names that are the encoder's here, and have no prefix either.
      counters: torch's BatchNorm counts batches: a file that is written has the numbers.
      preprocessing: of what was published so for ImageNet, where no file beside the weights says it.
    """

    names: tuple[str, ...]
    family: str
    of: type[nn.Module]
    rules: Callable[[Named], Sequence[Rule]]
    which: Callable[[Any], bool] = lambda module: True
    misfits: Callable[[Any, Mapping[str, Any], str | None], Iterable[tuple[str, str, str]]] = (
        lambda module, said, architecture: ()
    )
    head: Sequence[Rule] = ()
    marks: Sequence[str] = ()
    ignored: Sequence[str] = (COUNTERS,)
    prefix: str = ""
    outside: Sequence[str] = ()
    counters: bool = True
    preprocessing: Preprocessing | None = None

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]

    def is_for(self, module: nn.Module) -> bool:
        """Whether it has names for what this module has."""
        return isinstance(module, self.of) and self.which(module)

    def is_ignored(self, name: str) -> bool:
        """Whether no network needs the tensor of this name."""
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)

    def looks_like(self, names: Iterable[str]) -> bool:
        """Whether a file with tensors of these names seems to be of this layout."""
        names = [name.removeprefix(self.prefix) for name in names]
        return bool(self.marks) and all(
            any(re.fullmatch(mark, name) for name in names) for mark in self.marks
        )


class Bound(NamedTuple):
    """A rule with numbers in its holes.

    Attributes:
      theirs: names of tensors.
      ours: names of variables.
      how: see `Transform`.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    how: Transform


def bind(rules: Sequence[Rule], variables: Iterable[str]) -> tuple[list[Bound], list[str]]:
    """The rules of all variables of a network, and the variables that have none.

    Args:
      rules: the first that fits a variable is its rule.
      variables: names.
    """
    found: dict[Bound, None] = {}
    lost: list[str] = []
    for name in variables:
        for rule, place, values in _fitting(rules, name):
            if place == 0:
                theirs = tuple(_filled(pattern, values) for pattern in rule.theirs)
                ours = tuple(_filled(pattern, values) for pattern in rule.ours)
                found[Bound(theirs, ours, rule.how)] = None
            break
        else:
            lost.append(name)
    return list(found), lost


def _fitting(rules: Sequence[Rule], name: str) -> Iterator[tuple[Rule, int, Mapping[str, str]]]:
    for rule in rules:
        for place, pattern in enumerate(rule.ours):
            if (values := _read(pattern, name)) is not None:
                yield rule, place, values


@functools.lru_cache(maxsize=4096)
def _compiled(pattern: str) -> tuple[re.Pattern[str], Mapping[str, int]]:
    """A pattern as a regular expression, and what is added to the number in each hole."""
    text, at, added = "", 0, {}
    for hole in _HOLE.finditer(pattern):
        name, more, kind = hole[1], hole[2], hole[3]
        text += re.escape(pattern[at : hole.start()])
        text += f"(?P={name})" if name in added else f"(?P<{name}>{_KINDS[kind]})"
        added[name], at = int(more or 0), hole.end()
    return re.compile(text + re.escape(pattern[at:])), added


def _read(pattern: str, name: str) -> Mapping[str, str] | None:
    """What is in the holes of a name; None where it does not fit."""
    expression, added = _compiled(pattern)
    found = expression.fullmatch(name)
    if found is None:
        return None
    values = {
        hole: str(int(text) - added[hole]) if added[hole] else text
        for hole, text in found.groupdict().items()
    }
    return values if all(not value.startswith("-") for value in values.values()) else None


def _filled(pattern: str, values: Mapping[str, str]) -> str:
    """A name: the pattern with its holes filled."""
    name, at = "", 0
    for hole in _HOLE.finditer(pattern):
        value = values[hole[1]]
        name += pattern[at : hole.start()] + (str(int(value) + int(hole[2])) if hole[2] else value)
        at = hole.end()
    return name + pattern[at:]
