"""A tokenizer as it is applied, and how two of them differ."""

import functools
from collections.abc import Sequence

import numpy as np
from etils import epy

from kdjax import fingerprint
from kdjax.data.sources.tokenised import Tokens
from kdjax.data.sources.tokenizing import BERT, ROBERTA, read_text, require
from kdjax.files import from_json
from kdjax.types import BadInput

with epy.lazy_imports():  # an extra
    import tokenizers

_AT_ONCE = 4096

_PROBES = (("A", None), ("a\u00ef", None), ("\u6771\u4eac", None), ("don't  a1", None), ("a", "a"))
"""Texts of which tokenizers of one vocabulary may make other tokens."""


class Tokenizer:
    """A tokenizer as it is applied; see `read`."""

    def __init__(self, text: str):
        """Of a `tokenizer.json`."""
        require()
        self.text = text
        self._own = tokenizers.Tokenizer.from_str(text)

    @property
    def vocabulary(self) -> dict[str, int]:
        """The number of each token."""
        return self._own.get_vocab(with_added_tokens=True)

    @functools.cached_property
    def below(self) -> int:
        """One more than the largest number of a token."""
        return max(self.vocabulary.values()) + 1

    @functools.cached_property
    def frame(self) -> tuple[int, ...]:
        """The numbers of the tokens that stand for nothing in a text, in rising order."""
        added = from_json(self.text).get("added_tokens", ())
        return tuple(sorted({one["id"] for one in added if one.get("special")}))

    @property
    def mask(self) -> int | None:
        """The number of the token that stands for a hidden one; None where there is none."""
        for words in (BERT, ROBERTA):
            if (found := self._own.token_to_id(words.mask)) in self.frame:
                return found
        return None

    def encode(self, texts: Sequence[Sequence[str]], *, most: int, truncate: bool) -> Tokens:
        """All texts, or pairs of them, as integers.

        Args:
          texts: of each example, one or two.
          most: tokens of an example, those that begin and end it counted.
          truncate: cut what is longer, of a pair the longer one first.

        Raises:
          BadInput: `most` leaves no room for a text.
        """
        several = len(texts[0]) > 1
        frame = self._own.num_special_tokens_to_add(several)
        if most < frame + len(texts[0]):
            raise BadInput(
                "max_length",
                f"{most} leaves no room for a text beside the {frame} tokens that begin and end it",
            )
        if truncate:
            self._own.enable_truncation(most)
        values, second, cut = [], [], []
        for begin in range(0, len(texts), _AT_ONCE):
            some = [tuple(t) if several else t[0] for t in texts[begin : begin + _AT_ONCE]]
            for found in self._own.encode_batch(some):
                values.append(np.asarray(found.ids, np.int32))
                if several:  # not by the types, of which many tokenizers have one
                    texts_of = found.sequence_ids
                    second.append(texts_of.index(1) if 1 in texts_of else len(texts_of))
                cut.append(len(found.ids) > most or bool(found.overflowing))
        self._own.no_truncation()
        return Tokens(
            values, np.asarray(second, np.int32) if several else None, np.asarray(cut, bool)
        )

    @property
    def empty(self) -> tuple[int, ...]:
        """The frame without what stands for what the vocabulary does not have: that is of a text."""
        name = from_json(self.text)["model"].get("unk_token")
        unknown = None if name is None else self._own.token_to_id(name)
        return tuple(number for number in self.frame if number != unknown)


def unlike(a: str, b: str) -> str | None:
    """What is another token in one tokenizer than in another; None where all are the same.

    Also of the same numbers what becomes of some texts: with capitals, accents, Chinese characters.
    """
    first, other = (_numbered(text) for text in (a, b))
    number = min((n for n in {*first, *other} if first.get(n) != other.get(n)), default=None)
    if number is not None:
        return f"token {number} is {first.get(number)!r} and {other.get(number)!r}"
    both = [tokenizers.Tokenizer.from_str(read_text(text)) for text in (a, b)]
    for text, pair in _PROBES:
        found = [tokenizer.encode(text, pair) for tokenizer in both]
        if found[0].ids != found[1].ids:
            said = " and ".join(" ".join(each.tokens) for each in found)
            return f"{' / '.join(filter(None, (text, pair)))!r} is {said}"
    return None


def _numbered(text: str) -> dict[int, str]:
    vocabulary = Tokenizer(text).vocabulary
    return {number: token for token, number in vocabulary.items()}


def identity(text: str) -> str:
    """Of a tokenizer, and of the version of the library by which it is applied."""
    require()
    return fingerprint.of_json([text, tokenizers.__version__])


def cutting(text: str, most: int) -> str:
    """A tokenizer, as `read` gives one, that cuts what is longer; of a pair the longer one first."""
    found = tokenizers.Tokenizer.from_str(text)
    found.enable_truncation(most)
    return found.to_str()
