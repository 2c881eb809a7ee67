"""Published tensors as the variables of a network, and back: every one of them accounted for."""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from kdjax.types import BadInput
from kdjax.weights import layouts, tensors
from kdjax.weights.account import VERSION, Account
from kdjax.weights.preprocessing import Preprocessing
from kdjax.weights.rules import Bound, Layout, Leaf, Named, Shape, bind
from kdjax.weights.sources import Published
from kdjax.weights.tensors import FIELD, Tensor, named
from kdjax.weights.writing import layout_of, layouts_of, own_name, stripped

CLASSIFIER = "params/classifier/"


class Misfit(BadInput):
    """Weights are not those of a network.

    Attributes:
      count: of the tensors that show it.
    """

    count: int = 1


@dataclasses.dataclass(frozen=True)
class Mapped:
    """Which tensors become which variables: known from the headers alone.

    Attributes:
      published: the weights.
      layout: their names.
      encoder: rules whose tensors are all there.
      head: likewise; None where the classifier is left out.
      full: names in the files, by those that the layout has.
      network: for whose variables.
      account: of all of it, without the values.
    """

    published: Published
    layout: Layout
    encoder: Sequence[Bound]
    head: Sequence[Bound] | None
    full: Mapping[str, str]
    network: Named
    account: Account

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How the pictures were made ready that the weights were trained on, as far as it is known.

        As a file says it; otherwise, of the thousand classes of ImageNet, as its publisher does.
        """
        said = self.published.preprocessing
        return self.layout.preprocessing if said is None and self.account.classes == 1000 else said

    def read(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
        """The variables of the encoder and of the classifier, by name, in float32.

        Raises:
          BadInput: a file cannot be read any more, or has values that are not finite.
        """
        with self.published.tensors.reading() as reader:

            def variables(rules: Sequence[Bound], of: Mapping[str, Leaf]) -> dict[str, np.ndarray]:
                found = {}
                for rule in rules:
                    shapes = [of[name].shape for name in rule.ours]
                    is_float = np.issubdtype(of[rule.ours[0]].dtype, np.floating)
                    get = reader.in_float32 if is_float else reader.raw
                    made = rule.how.into([get(self.full[name]) for name in rule.theirs], shapes)
                    for name, array in zip(rule.ours, made, strict=True):
                        found[name] = np.ascontiguousarray(array).astype(of[name].dtype)
                return found

            head = None if self.head is None else variables(self.head, self.network.head or {})
            return variables(self.encoder, self.network.encoder), head

    def check_values(self) -> None:
        """Reads every tensor that is taken: once in this process, unless a file changes.

        Raises:
          BadInput: a file cannot be read any more, or has values that are not finite.
        """
        rules = [(rule, self.network.encoder) for rule in self.encoder]
        rules += [(rule, self.network.head or {}) for rule in self.head or ()]
        self.published.tensors.check_finite(
            self.full[name]
            for rule, of in rules
            if np.issubdtype(of[rule.ours[0]].dtype, np.floating)
            for name in rule.theirs
        )


def mapped(
    published: Published, network: Named, *, layout: str | None = None, skip: str | None = None
) -> Mapped:
    """Holds the tensors of published weights against the variables of a network: nothing is left open.

    Args:
      published: the weights.
      network: its names and shapes.
      layout: of the names; found by them where it is not given.
      skip: pattern of whole names of tensors or of variables (as kdjax's own layout has them) that may be
        left over.

    Raises:
      BadInput: a tensor is missing, left over, of another shape or no number; one line says how many, and
        what the weights look like where that shows.
    """
    found = _Accounting(published, network, layout, re.compile(skip) if skip else None)
    return found.mapped()


class _Accounting:
    """One comparison of tensors and variables."""

    def __init__(
        self,
        published: Published,
        network: Named,
        layout: str | None,
        skip: re.Pattern[str] | None,
    ):
        self._published, self._network, self._skip = published, network, skip
        self._said = published.tensors.said
        self._layout = self._chosen(layout)
        self._full, self._prefix = stripped(self._layout, self._said)
        self._missing: list[str] = []
        self._misshapen: list[str] = []
        self._fresh: list[str] = []

    def mapped(self) -> Mapped:
        """See there."""
        layout, network = self._layout, self._network
        if not self._published.written:  # what kdjax wrote is of any network
            said, architecture = self._published.config, self._published.architecture
            for field, fault, mend in layout.misfits(network.module, said, architecture):
                raise BadInput(field, f"{fault} in {self._published.tensors.place}", mend)
        rules, lost = bind(layout.rules(network), network.encoder)
        for name in lost:
            self._leave(f"no rule of the layout {layout.name} makes {own_name(name)}", [name])
        encoder = [rule for rule in rules if self._takes(rule, network.encoder)]
        head_rules, _ = bind(layout.head, network.head or ("kernel", "bias"))
        head, fate, classes = self._head(head_rules)
        used = {name for rule in (*rules, *head_rules) for name in rule.theirs}
        rest = [full for name, full in self._full.items() if name not in used]
        ignored = [full for full in rest if layout.is_ignored(full)]
        rest = [full for full in rest if not layout.is_ignored(full)]
        skipped = [full for full in rest if self._is_skipped(full)]
        left = [full for full in rest if not self._is_skipped(full)]
        self._refuse(left)
        taken = [self._tensor(name) for rule in (*encoder, *(head or ())) for name in rule.theirs]
        account = Account(
            layout=layout.name,
            version=VERSION,
            sha256=self._published.tensors.sha256,
            revision=self._published.revision,
            tensors=len(self._said),
            matched=len(taken),
            variables=sum(len(rule.ours) for rule in (*encoder, *(head or ()))),
            ignored=tuple(sorted(ignored)),
            skipped=tuple(sorted(skipped)),
            fresh=tuple(sorted(self._fresh)),
            head=fate,
            classes=classes,
            dtypes=dict(sorted(Counter(tensor.dtype for tensor in taken).items())),
            prefix=self._prefix,
            counters=self._counters(ignored),
        )
        return Mapped(self._published, layout, encoder, head, self._full, network, account)

    def _chosen(self, name: str | None) -> Layout:
        """The layout that was asked for, or the one of which the most names are there."""
        if name is not None:
            return layout_of(self._network, name, field=f"{FIELD}.layout")
        known = layouts_of(self._network)
        shares = [self._share(one) for one in known]
        best = known[shares.index(max(shares))]
        if not any(shares):
            raise BadInput(
                FIELD,
                f"{self._published.tensors.place}: none of its {len(self._said)} tensors "
                f"({named(list(self._said))}) is one of {self._network.title}{self._looks()}",
                "give the encoder that it is",
            )
        return best

    def _share(self, layout: Layout) -> float:
        """Of the names that a file of this network has in a layout, the share that is there."""
        there, _ = stripped(layout, self._said)
        encoder, _ = bind(layout.rules(self._network), self._network.encoder)
        rules = encoder + bind(layout.head, self._network.head or ("kernel", "bias"))[0]
        wanted = [name for rule in rules for name in rule.theirs]
        return sum(name in there for name in wanted) / max(1, len(wanted))

    def _looks(self) -> str:
        """What the files say that they are, or seem to be by their names."""
        likely = [
            f"{one.name}'s {one.family}"
            for one in layouts.layouts()
            if one.name != "kdjax" and one.looks_like(self._said)
        ]
        said = self._published.architecture
        parts = [f"says it is {said}"] if said else []
        parts += [f"looks like {likely[0]}"] if likely else []
        return f"; it {' and '.join(parts)}" if parts else ""

    def _tensor(self, name: str) -> Tensor:
        return self._said[self._full[name]]

    def _is_skipped(self, *names: str) -> bool:
        return self._skip is not None and any(self._skip.fullmatch(name) for name in names)

    def _leave(self, fault: str, ours: Sequence[str], theirs: Sequence[str] = ()) -> None:
        """A rule's variables stay as they begin, if they may."""
        if self._is_skipped(*map(own_name, ours), *theirs):
            self._fresh += map(own_name, ours)
        else:
            self._missing.append(fault)

    def _takes(self, rule: Bound, of: Mapping[str, Leaf]) -> bool:
        """Whether the tensors of a rule are there, and fit."""
        if self._is_skipped(
            *map(own_name, rule.ours), *(self._full.get(n, n) for n in rule.theirs)
        ):
            self._fresh += map(own_name, rule.ours)
            return False
        if lost := [name for name in rule.theirs if name not in self._full]:
            self._missing += lost
            return False
        if fault := self._misfit(rule, of):
            self._misshapen.append(fault)
            return False
        return True

    def _misfit(self, rule: Bound, of: Mapping[str, Leaf]) -> str | None:
        shapes = [tuple(of[name].shape) for name in rule.ours]
        given = [self._tensor(name) for name in rule.theirs]
        if np.issubdtype(of[rule.ours[0]].dtype, np.floating):
            for name, tensor in zip(rule.theirs, given, strict=True):
                tensors.refuse_dtype(self._full[name], tensor)
        try:
            made = rule.how.into([_hollow(tensor.shape) for tensor in given], shapes)
            if [array.shape for array in made] == shapes:
                return None
        except ValueError:
            pass
        wanted = [list(x.shape) for x in rule.how.out([_hollow(shape) for shape in shapes])]
        said = (
            f"{self._full[name]} is {list(tensor.shape)} for {own}"
            for name, tensor, own in zip(rule.theirs, given, wanted, strict=True)
            if list(tensor.shape) != own
        )
        return next(said, f"{self._full[rule.theirs[0]]} does not fit {own_name(rule.ours[0])}")

    def _head(self, rules: Sequence[Bound]) -> tuple[Sequence[Bound] | None, str, int | None]:
        """The rules of the classifier, if it is taken; what has become of it, and its classes there."""
        names = [name for rule in rules for name in rule.theirs]
        there = [self._full[name] for name in names if name in self._full]
        if not there:
            return None, "not in the files", None
        shapes = [self._said[name].shape for name in there]
        classes = next((shape[0] for shape in shapes if len(shape) == 1), None)
        own = self._network.head
        if self._is_skipped(*there, *(CLASSIFIER + name for r in rules for name in r.ours)):
            return None, "left out, as skip says", classes
        if own is None:
            return None, "left out, as there is none here", classes
        if len(there) < len(names):
            self._missing += [name for name in names if name not in self._full]
            return None, "not whole", classes
        if any(self._misfit(rule, own) for rule in rules):
            here = next(iter(own.values())).shape[-1]
            return None, f"left out, as it has {classes} classes and the task {here}", classes
        return rules, "taken", classes

    def _counters(self, ignored: Sequence[str]) -> dict[str, int]:
        """Numbers of batches, which a file that is written has again."""
        names = [name for name in ignored if name.endswith(".num_batches_tracked")]
        if not names or not self._layout.counters:
            return {}
        with self._published.tensors.reading() as reader:
            found = {name: reader.raw(name) for name in names if self._said[name].shape == ()}
        return {name: int(value) for name, value in found.items() if value.dtype.kind in "iu"}

    def _refuse(self, left: Sequence[str]) -> None:
        """Raises where anything is left open."""
        counts = (
            ("missing", self._missing),
            ("left over", left),
            ("of another shape", self._misshapen),
        )
        faults = [f"{len(names)} {what} ({named(list(names))})" for what, names in counts if names]
        if not faults:
            return
        at = self._published.tensors.place
        error = Misfit(
            FIELD,
            f"{at} is not {self._network.title} as {self._layout.name} has it: {'; '.join(faults)}"
            f"{self._looks()}",
            "give the encoder that it is, or say in weights.skip what may be left out",
        )
        error.count = sum(len(names) for _, names in counts)
        raise error


def _hollow(shape: Shape) -> np.ndarray:
    """An array of this shape that takes no memory, for its shape alone."""
    return np.broadcast_to(np.float32(0), shape)
