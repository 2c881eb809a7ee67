"""Where data come from, besides embedded and prepared sets: a file a kind."""

import abc
import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from kdjax import data
from kdjax.choice import Choice, import_all
from kdjax.config.fields import Text, untracked
from kdjax.data import Dataset, sources
from kdjax.data.sources.encoded import Check
from kdjax.data.sources.framing import Resize
from kdjax.ranges import In
from kdjax.types import BadInput, Interpolation

Side = Annotated[int, In("[1, 2^14]")]
Level = Annotated[int, In("[0, 255]")]
TestShare = Annotated[float, In("[0, 1)")]


class Source(Choice, abc.ABC):
    """Gives the examples of a split."""

    tag: ClassVar[str] = "kind"

    if TYPE_CHECKING:
        kind: Any

    @abc.abstractmethod
    def dataset(self, split: str, *, data_dir: str | None, kept: data.Kept | None) -> Dataset:
        """The examples of a split, with all their labels.

        Args:
          split: as TFDS writes it.
          data_dir: where TFDS datasets are.
          kept: what earlier starts have found out.

        Raises:
          BadInput: there are none, or they cannot be read; the path is `data` where it is the split
            that is wrong, and else that of a field, from `data.source` on.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures(Source):
    """Encoded pictures: what they are made into, and which are taken. See `kdjax.data.sources.Frame`.

    Attributes:
      root: where they are; a local path, `~` expanded. It is no part of a fingerprint: the pictures are.
      size: height and width, or one integer for both.
      resize: `short_side` fills the frame and cuts off what is beyond it, `squash` gives up the
        proportions, `pad` shows the whole picture on the background.
      crop: share of each side of the resized picture that is kept: 0.875 is 224 of 256.
      interpolation: Pillow's.
      channels: 3, or 1 for grey.
      background: red, green and blue under transparent pixels and beside padded pictures.
      draft: decode JPEGs at a part of their size: faster for photographs, and not bit for bit what
        published networks are evaluated on.
      test_share: of the pictures, where there is no split `test`: by the hash of their content.
      skip_broken: leave out pictures that cannot be read, and say so; otherwise they are refused.
      check: before anything is trained, every picture is decoded once (`pixels`), or its header looked
        at.
    """

    root: str = dataclasses.field(metadata={"fingerprint": False})
    size: Side | tuple[Side, Side]
    resize: Resize = "short_side"
    crop: Annotated[float, In("(0, 1]")] = 1.0
    interpolation: Interpolation = "bilinear"
    channels: Literal[1, 3] = 3
    background: tuple[Level, Level, Level] = (0, 0, 0)
    draft: bool = False
    test_share: TestShare = 0.0
    skip_broken: bool = False
    check: Check = untracked("pixels")

    def how(self, kept: data.Kept | None) -> dict[str, Any]:
        """The fields of `kdjax.data.sources.How`."""
        names = (field.name for field in dataclasses.fields(Pictures) if field.name != "root")
        return {**{name: getattr(self, name) for name in names}, "kept": kept}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A tokenizer that is trained on texts: the same texts, the same tokenizer.

    Attributes:
      train: `wordpiece`, as BERT's, or `byte_bpe`, as GPT-2's and RoBERTa's, which knows every text.
      vocab: tokens at most.
      lowercase: of a WordPiece: letters are made small, and lose their accents.
      split: whose texts it is trained on, as TFDS writes it; no label is looked at.
    """

    train: Literal["wordpiece", "byte_bpe"]
    vocab: Annotated[int, In("[16, 2^24]")] = 8000
    lowercase: bool = True
    split: Text = "train"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sentences(Source):
    """Texts: how they become integers, and which are taken.

    A model is given `tokens`, ragged, and `tokens_length`; of pairs of texts also `second`, where the
    second one begins.

    Attributes:
      tokenizer: where a published one is: a `tokenizer.json`, a `vocab.txt`, or a folder with one or with
        `vocab.json` and `merges.txt`; `hf:owner/name[@revision]`; or the fields of one that
        is trained on the texts. The content is part of a fingerprint, and not where it is.
      max_length: tokens of an example at most, with those that begin and end it.
      truncate: cut what is longer, and say so; otherwise it is refused.
      skip_empty: leave out texts without a letter, or of which the tokenizer makes no token, and say so;
        otherwise they are refused.
    """

    tokenizer: Text | Trained = dataclasses.field(metadata={"fingerprint": False})
    max_length: Annotated[int, In("[1, 2^16]")]
    truncate: bool = False
    skip_empty: bool = False

    def how(self, kept: data.Kept | None) -> dict[str, Any]:
        """The fields of `kdjax.data.sources.TextHow`."""
        given = self.tokenizer
        if isinstance(given, Trained):
            given = sources.Trained(**vars(given))
        names = [field.name for field in dataclasses.fields(Sentences) if field.name != "tokenizer"]
        return {**{name: getattr(self, name) for name in names}, "tokenizer": given, "kept": kept}


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """What is refused within is a field of `data.source`, or one of `data`, or the split (`data`)."""
    try:
        yield
    except BadInput as error:
        if error.path.split(".")[0] != "data":
            error.under("data.source")
        raise


import_all(__name__, __path__)
