"""A dataset of texts, wherever they lie: what every source of texts calls.

Texts are tokenised once. What comes of it is kept with what it was made of: the content of the files,
the tokenizer, the version of the library, and how long a text may be. A later start reads it back, and no
text.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from kdjax import files, fingerprint
from kdjax.data.arrays import from_fields
from kdjax.data.dataset import Dataset, Narrowed
from kdjax.data.ids import unique_ids
from kdjax.data.seen import Kept
from kdjax.data.sources import applied_tokenizer, splits, tokenizing
from kdjax.data.sources.applied_tokenizer import Tokenizer
from kdjax.data.sources.tokenised import Tokenised, Tokens
from kdjax.data.sources.tokenizing import Ready, Trained
from kdjax.data.sources.trimming import trimmed
from kdjax.data.targets import Target
from kdjax.types import BadInput

TOKENS, SECOND = "tokens", "second"
"""What a model is given of a text; of a pair also where the second one begins."""

_VERSION = 2
"""Of what is kept: raised when it changes."""

_NAMED = 5
"""Texts that a line names."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """Texts by row.

    Attributes:
      texts: of each example, one or two.
      where: row -> where it is, for messages.
      labels: one each, as `target` has them.
      target: what they are of.
      splits: rows of each split, where they are parted; None where they are all together.
    """

    texts: Sequence[tuple[str, ...]]
    where: Callable[[int], str]
    labels: Shaped[np.ndarray, "n ..."]
    target: Target
    splits: Mapping[str, Int64[np.ndarray, " _"]] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Texts:
    """Where texts are.

    Attributes:
      name: what they are, for messages and the report.
      what: which of them, as plain data.
      paths: the files that they are read from.
      read: reads them.
      in_order: examples of a split stay in the order in which they lie; otherwise they are in that of
        the hash of their texts, see `kdjax.data.sources.splits`.
    """

    name: str
    what: Any
    paths: Sequence[str]
    read: Callable[[], Corpus]
    in_order: bool = False


class TextHow(TypedDict, total=False):
    """How texts become integers, and which of them are taken; see `from_texts`.

    Attributes:
      tokenizer: where a published one is, see `kdjax.data.sources.tokenizing.read`; or `Trained`, or
        `Ready`. There is no default.
      max_length: tokens of an example at most, with those that begin and end it; there is no default.
      truncate: cut what is longer, and say so; otherwise it is refused.
      skip_empty: leave out texts without a letter, or of which the tokenizer makes no token, and say so;
        otherwise they are refused.
      test_share: of the texts, where there is no split `test`: by the hash of their content.
      kept: what earlier starts have tokenised.
    """

    tokenizer: "str | os.PathLike[str] | Trained | Ready"
    max_length: int
    truncate: bool
    skip_empty: bool
    test_share: float
    kept: Kept | None


def from_texts(
    of: Callable[[str], Texts],
    split: str,
    *,
    tokenizer: "str | os.PathLike[str] | Trained | Ready | None" = None,
    max_length: int | None = None,
    truncate: bool = False,
    skip_empty: bool = False,
    test_share: float = 0.0,
    kept: Kept | None = None,
) -> Dataset:
    """The texts of a split as integers: `tokens`, ragged, and `tokens_length`; of pairs also `second`.

    An id is the hash of the split that a text lies in and of its content, and of how many copies of it
    come before: other texts change nothing about it.

    Args:
      of: where the texts of a split are; there may be others with them.
      split: as TFDS writes it.
      tokenizer: see `TextHow`.
      max_length: likewise.
      truncate: likewise.
      skip_empty: likewise.
      test_share: likewise.
      kept: likewise.

    Raises:
      BadInput: there is no such split, or a text is empty or too long, or the tokenizer is none.
    """
    if tokenizer is None:
        raise BadInput("tokenizer", "missing", "name a tokenizer.json or a vocab.txt, or train one")
    if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1:
        raise BadInput("max_length", f"{max_length!r}", "give the most tokens of an example")
    splits.check_share(test_share)
    source = _Source(of(split), test_share, kept)
    if isinstance(tokenizer, Trained):
        with _of_its_split():
            other = of(tokenizer.split)
        same = (other.paths, other.what) == (source.texts.paths, source.texts.what)
        text = (source if same else _Source(other, test_share, kept)).trained(tokenizer)
    elif isinstance(tokenizer, Ready):
        text = tokenizer.text
    else:
        text = tokenizing.read(tokenizer)
    found = source.tokenised(text, max_length=max_length, truncate=truncate, skip_empty=skip_empty)
    chosen = source.rows(found.splits, found.hashes, split)
    dataset = _dataset(
        found, chosen, text, name=f"{source.texts.name} {split}", max_length=max_length
    )

    def narrow(used: Mapping[str, np.ndarray]) -> Narrowed:
        small, numbers = trimmed(text, used[TOKENS])
        how = {"max_length": max_length, "truncate": truncate, "skip_empty": skip_empty}
        again = from_texts(
            of, split, tokenizer=Ready(small), test_share=test_share, kept=kept, **how
        )
        return Narrowed(again, {TOKENS: numbers})

    return dataclasses.replace(dataset, narrow=narrow)


class _Source:
    """Texts, read once, and only where what is made of them is not kept."""

    def __init__(self, texts: Texts, test_share: float, kept: Kept | None):
        self.texts, self._share, self._kept = texts, test_share, kept
        self._sums = [files.sha256(path) for path in texts.paths]
        self._corpus: Corpus | None = None

    def _read(self) -> Corpus:
        if self._corpus is None:
            self._corpus = self.texts.read()
        if not self._corpus.texts:
            raise BadInput("root", f"{self.texts.name} has no texts", "name a file with some")
        return self._corpus

    def _known(self, what: Any) -> Any:
        return [_VERSION, self.texts.name, self.texts.what, self._sums, what]

    def trained(self, how: Trained) -> str:
        """The tokenizer of the texts of its split."""
        tokenizing.require()
        what = self._known(["tokenizer", dataclasses.asdict(how), self._share, _library()])
        table = None if self._kept is None else self._kept.table(what)
        if table is not None:
            return table["text"].tobytes().decode()
        corpus = self._read()
        hashes = _hashes(corpus.texts)
        with _of_its_split():
            chosen = self.rows(_lying(corpus), hashes, how.split)
        text = tokenizing.train((one for row in chosen for one in corpus.texts[int(row)]), how)
        if self._kept is not None:
            self._kept.keep(what, {"text": np.frombuffer(text.encode(), np.uint8)})
        return text

    def tokenised(
        self, text: str, *, max_length: int, truncate: bool, skip_empty: bool
    ) -> Tokenised:
        """All texts by a tokenizer."""
        what = self._known([applied_tokenizer.identity(text), max_length, truncate, skip_empty])
        table = None if self._kept is None else self._kept.table(what)
        if table is not None:
            return Tokenised.of_plain(table)
        found = _tokenised(
            self._read(), Tokenizer(text), self.texts.name, max_length, truncate, skip_empty
        )
        if self._kept is not None:
            self._kept.keep(what, found.plain())
        return found

    def rows(
        self, lying: Mapping[str, np.ndarray], hashes: UInt8[np.ndarray, "n 32"], split: str
    ) -> Int64[np.ndarray, " _"]:
        """Those of a split."""
        return splits.chosen(
            split,
            lying,
            hashes,
            share=self._share,
            in_order=self.texts.in_order,
            name=self.texts.name,
        )


@contextlib.contextmanager
def _of_its_split() -> Iterator[None]:
    """A split that is refused is the one that a tokenizer is trained on."""
    try:
        yield
    except BadInput as error:
        if error.path == "data":
            error.under("tokenizer", {"data": "split"})
        raise


def _library() -> str:
    return tokenizing.tokenizers.__version__


def _lying(corpus: Corpus) -> dict[str, np.ndarray]:
    if corpus.splits is None:
        return {"train": np.arange(len(corpus.texts))}
    return {**corpus.splits}


def _hashes(texts: Sequence[Sequence[str]]) -> UInt8[np.ndarray, "n 32"]:
    """SHA-256 of the texts of each example."""
    digests = b"".join(hashlib.sha256(json.dumps(list(own)).encode()).digest() for own in texts)
    return np.frombuffer(digests, np.uint8).reshape(-1, 32)


def _encoded(
    corpus: Corpus,
    tokenizer: Tokenizer,
    name: str,
    max_length: int,
    truncate: bool,
    skip_empty: bool,
) -> tuple[Int64[np.ndarray, " rows"], Tokens, list[str]]:
    """The rows that are taken, their tokens, and what is to be said of the others."""
    blank = np.asarray([not all(one.strip() for one in own) for own in corpus.texts])
    rows = np.flatnonzero(~blank)
    notes = []

    def leave_out(empty: np.ndarray, why: str) -> None:
        if not len(empty):
            return
        said = f"{_several(len(empty), 'text')} of {name} {why} ({_at(corpus, empty)})"
        if not skip_empty:
            raise BadInput("root", said, "mend or remove them, or set skip_empty=True")
        notes.append(f"skipped, {said}")

    leave_out(np.flatnonzero(blank), "without a letter")
    if not len(rows):
        raise BadInput("root", f"{name} has nothing but empty texts")
    tokens = tokenizer.encode(
        [corpus.texts[int(row)] for row in rows], most=max_length, truncate=truncate
    )
    empty = tokens.without(tokenizer.empty)
    leave_out(rows[empty], "of which the tokenizer makes nothing")
    if empty.all():
        raise BadInput("root", f"{name} has nothing but empty texts")
    return rows[~empty], tokens.of(np.flatnonzero(~empty)), notes


def _tokenised(
    corpus: Corpus,
    tokenizer: Tokenizer,
    name: str,
    max_length: int,
    truncate: bool,
    skip_empty: bool,
) -> Tokenised:
    """See `from_texts`."""
    rows, tokens, notes = _encoded(corpus, tokenizer, name, max_length, truncate, skip_empty)
    lengths = np.asarray([len(own) for own in tokens.values])
    if tokens.cut.any() and not truncate:
        longer = rows[lengths > max_length]
        raise BadInput(
            "max_length",
            f"{max_length}, and {name} has {_several(len(longer), 'text')} of up to {lengths.max()} "
            f"tokens ({_at(corpus, longer)})",
            f"give {lengths.max()}, or set truncate=True",
        )
    if cut := int(tokens.cut.sum()):
        notes.append(f"cut to {max_length} tokens, {_several(cut, 'text')} of {name}")
    new = np.full(len(corpus.texts), -1)
    new[rows] = np.arange(len(rows))
    lying = {key: new[own] for key, own in _lying(corpus).items()}
    parts = {key: own[own >= 0] for key, own in lying.items()}
    hashes = _hashes([corpus.texts[int(row)] for row in rows])
    notes += _shared(parts, hashes, name)
    return Tokenised(
        values=np.concatenate(tokens.values),
        ends=np.cumsum(lengths),
        second=np.zeros(0, np.int32) if tokens.second is None else tokens.second,
        hashes=hashes,
        labels=corpus.labels[rows],
        target=corpus.target,
        splits=parts,
        below=tokenizer.below,
        notes=tuple(notes),
    )


def _shared(
    parts: Mapping[str, np.ndarray], hashes: UInt8[np.ndarray, "n 32"], name: str
) -> Iterator[str]:
    """What is to be said of texts that lie in two splits."""
    known = {key: {own.tobytes() for own in hashes[rows]} for key, rows in parts.items()}
    for first, other in itertools.combinations(known, 2):
        if n := len(known[first] & known[other]):
            yield f"{_several(n, 'text')} of {name} in {first} and in {other}"


def _several(n: int, what: str) -> str:
    return f"1 {what}" if n == 1 else f"{n} {what}s"


def _at(corpus: Corpus, rows: Sequence[int] | np.ndarray) -> str:
    """Where the first of some rows are."""
    more = f", and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return ", ".join(corpus.where(int(row)) for row in rows[:_NAMED]) + more


def _dataset(
    found: Tokenised, chosen: np.ndarray, text: str, *, name: str, max_length: int
) -> Dataset:
    begins = found.ends - np.diff(found.ends, prepend=0)
    own = [found.values[begins[row] : found.ends[row]] for row in chosen]
    inputs: dict[str, Any] = {TOKENS: own}
    below = {TOKENS: found.below}
    if len(found.second):
        inputs[SECOND], below[SECOND] = found.second[chosen], max_length + 1
    dataset = from_fields(
        inputs,
        found.labels[chosen],
        target=found.target,
        ids=_ids(found)[chosen],
        below=below,
        ragged={TOKENS: max_length},
        name=name,
    )
    words = Tokenizer(text)
    tokens = dataclasses.replace(dataset.fields[TOKENS], mask=words.mask, frame=words.frame)
    mark = fingerprint.of_json(text)

    def marked(labels: Shaped[np.ndarray, "n ..."]) -> str:
        return fingerprint.of_json([dataset.marked(labels), mark])

    return dataclasses.replace(
        dataset,
        fields={**dataset.fields, TOKENS: tokens},
        marked=marked,
        notes=found.notes,
        beside={tokenizing.FILE: applied_tokenizer.cutting(text, max_length).encode()},
    )


def _ids(found: Tokenised) -> np.ndarray:
    """See `from_texts`."""
    names, copies = [b""] * len(found.ends), {}
    for key, rows in found.splits.items():
        for row in rows.tolist():
            name = key.encode() + b"\0" + found.hashes[row].tobytes()
            names[row] = name + b"\0%d" % copies.get(name, 0)
            copies[name] = copies.get(name, 0) + 1
    return unique_ids(names)
