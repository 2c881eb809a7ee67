"""Texts into integers, by the library `tokenizers`: a published tokenizer, or one trained on a corpus."""

import collections
import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from etils import epy

from kdjax import paths
from kdjax.files import from_json
from kdjax.types import BadInput
from kdjax.weights import hub

with epy.lazy_imports():  # an extra
    import tokenizers

FILE = "tokenizer.json"
"""What a tokenizer is called beside an exported model."""

MAX_ALPHABET = 1000
"""Letters that a trained WordPiece knows at most, the most frequent ones."""

_AT_ONCE = 4096


class Words(NamedTuple):
    """Names of the tokens that stand for no text."""

    pad: str
    unknown: str
    begin: str
    end: str
    mask: str


BERT = Words("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA = Words("<pad>", "<unk>", "<s>", "</s>", "<mask>")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A tokenizer that is trained on the texts of a split: the same texts, the same tokenizer.

    Attributes:
      train: `wordpiece`, as BERT's, or `byte_bpe`, as GPT-2's and RoBERTa's, which knows every text.
      vocab: tokens at most.
      lowercase: of a WordPiece: letters are made small, and lose their accents.
      split: whose texts it is trained on; no label is looked at.
    """

    train: Literal["wordpiece", "byte_bpe"]
    vocab: int = 8000
    lowercase: bool = True
    split: str = "train"


@dataclasses.dataclass(frozen=True)
class Ready:
    """A tokenizer that has been read.

    Attributes:
      text: of its `tokenizer.json`.
    """

    text: str


def require() -> None:
    """Raises `BadInput` where the library is not installed."""
    try:
        tokenizers.__version__  # noqa: B018
    except ImportError:
        raise BadInput(
            "tokenizer", "the package tokenizers is not installed", "pip install 'kdjax[text]'"
        ) from None


def read(place: str | os.PathLike[str]) -> str:
    """A published tokenizer, as the text of a `tokenizer.json` that neither cuts nor pads.

    Args:
      place: `tokenizer.json`; `vocab.txt`, of a BERT: small letters alone unless `tokenizer_config.json`
        beside it or capital letters in it say otherwise, and the former also of accents and of Chinese
        characters; or a folder with one of these, or with `vocab.json` and `merges.txt`, of a
        byte-level BPE; or `hf:owner/name[@revision]`, whose
        files are in the local cache or are downloaded into it.

    Raises:
      BadInput: there is none, or it cannot be read.
    """
    require()
    path = Path(paths.parse(os.fspath(place), field="tokenizer"))
    if hub.is_one(os.fspath(place)):
        path = hub.named(os.fspath(place), field="tokenizer").folder(
            _is_whole,
            hub.TOKENIZER,
            what=f"{FILE}, vocab.txt or vocab.json",
            instead="the tokenizer",
            mend="name one that has",
        )
    if path.is_dir():
        if (found := hub.tokenizer_in(path)) is not None:
            path = found
        else:
            raise BadInput(
                "tokenizer", f"{path} has no {FILE}, vocab.txt or vocab.json", "name its folder"
            )
    if not path.is_file():
        raise BadInput("tokenizer", f"{path} is not there", f"name a {FILE}, or a vocab.txt")
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("tokenizer", f"{path} cannot be read ({_line(error)})") from None
    if path.name.endswith(".txt"):
        return _of_vocabulary(text, path)
    if path.name == "vocab.json":
        return _of_merges(text, path)
    try:
        return read_text(text)
    except Exception as error:  # the library raises nothing narrower
        raise BadInput("tokenizer", f"{path} is no tokenizer ({_line(error)})") from None


def _is_whole(folder: Path) -> bool:
    """Whether a folder has all files of a tokenizer."""
    found = hub.tokenizer_in(folder)
    return found is not None and (found.name != "vocab.json" or (folder / "merges.txt").is_file())


def read_text(text: str) -> str:
    """The text of a `tokenizer.json` as `read` gives it; a fault is the library's own exception."""
    return _plain(tokenizers.Tokenizer.from_str(text))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]


def _plain(tokenizer: Any) -> str:
    """What it is, without padding and cutting: examples are as long as they are."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer.to_str()


def _beside(path: Path) -> tuple[Mapping[str, Any], Path]:
    """What the file beside a vocabulary says, and where it is; nothing where it is not there."""
    beside = path.parent / "tokenizer_config.json"
    if not beside.is_file():
        return {}, beside
    try:
        said = from_json(beside.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise BadInput("tokenizer", f"{beside} cannot be read ({_line(error)})") from None
    return (said if isinstance(said, dict) else {}), beside


def _of_vocabulary(text: str, path: Path) -> str:
    """BERT's WordPiece of a token a line."""
    lines = [line.rstrip("\r") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if twice := [token for token, n in collections.Counter(lines).items() if n > 1]:
        raise BadInput("tokenizer", f"{path} has {twice[0]!r} twice", "each line is another token")
    if missing := [word for word in (BERT.unknown, BERT.begin, BERT.end) if word not in lines]:
        raise BadInput(
            "tokenizer", f"{path} has no {missing[0]}", "a vocab.txt is of a BERT, a token a line"
        )
    said, beside = _beside(path)
    if (parted := said.get("word_tokenizer_type", "basic")) != "basic":
        raise BadInput(
            "tokenizer",
            f"{beside} says that words are parted by {parted}, which a vocab.txt does not say",
            f"name a {FILE} of it",
        )
    words = (token for token in lines if not token.startswith("["))
    small = said.get("do_lower_case")
    if not isinstance(small, bool):
        small = not any(token != token.lower() for token in words)
    accents = said.get("strip_accents")
    return _plain(
        _word_piece(
            {token: i for i, token in enumerate(lines)},
            lowercase=small,
            strip_accents=accents if isinstance(accents, bool) else None,
            chinese=said.get("tokenize_chinese_chars") is not False,
        )
    )


def _word_piece(
    vocabulary: Mapping[str, int],
    *,
    lowercase: bool,
    strip_accents: bool | None = None,
    chinese: bool = True,
) -> Any:
    found = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            vocab={**vocabulary}, unk_token=BERT.unknown, max_input_chars_per_word=100
        )
    )
    found.normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=chinese
    )
    found.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    found.decoder = tokenizers.decoders.WordPiece()
    return _framed(found, BERT)


def _framed(tokenizer: Any, words: Words) -> Any:
    """With a token that begins and one that ends a text, as far as the vocabulary has them.

    Between the texts of a pair BERT has one end and RoBERTa two (Liu et al. 2019,
    https://arxiv.org/abs/1907.11692, in its authors' code).
    """
    known = [word for word in words if tokenizer.token_to_id(word) is not None]
    tokenizer.add_special_tokens(known)
    begin, end = (tokenizer.token_to_id(word) for word in (words.begin, words.end))
    if begin is not None and end is not None:
        between = f"{words.end} {words.end}" if words == ROBERTA else words.end
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{words.begin} $A {words.end}",
            pair=f"{words.begin} $A {between} $B:1 {words.end}:1",
            special_tokens=[(words.begin, begin), (words.end, end)],
        )
    return tokenizer


def _of_merges(text: str, path: Path) -> str:
    """A byte-level BPE of `vocab.json` and `merges.txt`."""
    merges = path.parent / "merges.txt"
    try:
        lines = merges.read_text("utf-8-sig").split("\n")
        pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#")]
        vocabulary = from_json(text)
        model = tokenizers.models.BPE(vocab=vocabulary, merges=pairs)
    except Exception as error:  # the library raises nothing narrower
        raise BadInput(
            "tokenizer", f"{path} and {merges.name} cannot be read ({_line(error)})"
        ) from None
    return _plain(_byte_level(model, prefix=_beside(path)[0].get("add_prefix_space") is True))


def _byte_level(model: Any, *, prefix: bool) -> Any:
    found = tokenizers.Tokenizer(model)
    found.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    found.decoder = tokenizers.decoders.ByteLevel()
    return _framed(found, ROBERTA)


def train(texts: Iterable[str], how: Trained) -> str:
    """A tokenizer of these texts, as `read` gives one.

    The library numbers what begins within a word in the order of a hash table, which is another one in
    every process, and decides between equal counts by these numbers. So all letters are given their
    numbers here, before it counts.

    Raises:
      BadInput: the vocabulary is too small for the letters.
    """
    require()
    if how.train == "byte_bpe":
        return _train_bytes(texts, how)
    whole = _word_piece({word: i for i, word in enumerate(BERT)}, lowercase=how.lowercase)
    words: collections.Counter[str] = collections.Counter()
    for text in texts:
        small = whole.normalizer.normalize_str(text)
        words.update(word for word, _ in whole.pre_tokenizer.pre_tokenize_str(small))
    letters: collections.Counter[str] = collections.Counter()
    for word, n in words.items():
        for letter in word:
            letters[letter] += n
    kept = sorted(sorted(letters), key=lambda letter: -letters[letter])[:MAX_ALPHABET]
    within = {letter for word in words for letter in word[1:]}
    inner = [f"##{letter}" for letter in sorted(within & {*kept})]
    first = [*BERT, *sorted(kept), *inner]
    if how.vocab <= len(first):
        raise BadInput(
            "tokenizer.vocab",
            f"{how.vocab}, and the letters of {how.split} alone make {len(first)} tokens",
            "give more",
        )
    counting = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=BERT.unknown))
    counting.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=how.vocab,
        special_tokens=first,
        initial_alphabet=kept,
        limit_alphabet=len(kept),
        show_progress=False,
    )
    counting.train_from_iterator(_repeated(words), trainer)
    return _plain(_word_piece(counting.get_vocab(), lowercase=how.lowercase))


def _repeated(words: Mapping[str, int]) -> Iterable[str]:
    """Each word as often as it occurs, in the order of the alphabet."""
    for word in sorted(words):
        for begin in range(0, words[word], _AT_ONCE):
            yield " ".join([word] * min(_AT_ONCE, words[word] - begin))


def _train_bytes(texts: Iterable[str], how: Trained) -> str:
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    if how.vocab <= len(ROBERTA) + len(alphabet):
        raise BadInput(
            "tokenizer.vocab",
            f"{how.vocab}, and the bytes alone make {len(ROBERTA) + len(alphabet)} tokens",
            "give more",
        )
    found = _byte_level(tokenizers.models.BPE(), prefix=True)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=how.vocab,
        special_tokens=[*ROBERTA],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    found.train_from_iterator(texts, trainer)
    return _plain(_framed(found, ROBERTA))
