"""Repositories of the Hugging Face hub: their files in the local cache, or downloaded into it."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kdjax.types import BadInput

TOKENIZER = (
    *("tokenizer.json", "vocab.txt", "vocab.json"),
    *("merges.txt", "tokenizer_config.json"),
)
"""Names of the files that a tokenizer may be in: three that say what it is, and two beside them."""

_NAMED = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_OF_TIMM = re.compile(r"timm:([\w.-]+)(?:@([\w./-]+))?")


def tokenizer_in(folder: Path) -> Path | None:
    """The file of a folder that says what its tokenizer is, the first one that there is."""
    return next((folder / name for name in TOKENIZER[:3] if (folder / name).is_file()), None)


def is_one(source: str) -> bool:
    """Whether a source is written as a repository, and not as a path."""
    return source.startswith(("hf:", "timm:"))


@dataclasses.dataclass(frozen=True)
class Repository:
    """One of the hub, at a revision.

    Attributes:
      source: as the user wrote it.
      name: `owner/name`.
      revision: a branch, a tag or a commit; None for its main branch.
      field: that named it, for messages.
    """

    source: str
    name: str
    revision: str | None
    field: str

    def folder(
        self,
        is_whole: Callable[[Path], bool],
        files: Sequence[str],
        *,
        what: str,
        instead: str,
        mend: str,
    ) -> Path:
        """That of the local cache with what is wanted; where it is not there, it is downloaded.

        Args:
          is_whole: whether a folder has all that is wanted.
          files: names, or patterns of them; those that there are.
          what: is wanted, for messages.
          instead: as what a local folder can be given where there is no network.
          mend: what to do where the repository has none.

        Raises:
          BadInput: the package is not installed; there is no such repository or revision, or no network;
            or the repository has not what is wanted.
        """
        library = self._library()
        from huggingface_hub import constants, errors

        with contextlib.suppress(Exception):  # of what is not there: the library has many
            found = library.snapshot_download(
                self.name, revision=self.revision, local_files_only=True
            )
            if is_whole(Path(found)):
                return Path(found)
        at = f" --revision={self.revision}" if self.revision else ""
        elsewhere = (
            f"where there is a network, run `hf download {self.name}{at} --local-dir=DIR`, copy DIR here "
            f"and give it as {instead}"
        )
        try:
            found = library.snapshot_download(
                self.name, revision=self.revision, allow_patterns=list(files)
            )
        except errors.RepositoryNotFoundError:
            raise BadInput(
                self.field,
                f"{self.source}: there is no repository {self.name}, or it is not open to you",
                "look at its name; log in with `hf auth login`",
            ) from None
        except errors.RevisionNotFoundError:
            raise BadInput(
                self.field, f"{self.source}: there is no revision {self.revision}"
            ) from None
        except Exception as error:  # of whatever the network is: the library has many
            raise BadInput(
                self.field,
                f"{self.source} is not in the cache {constants.HF_HUB_CACHE}, and cannot be "
                f"downloaded ({type(error).__name__})",
                elsewhere,
            ) from None
        if is_whole(Path(found)):
            return Path(found)
        if constants.HF_HUB_OFFLINE:
            raise BadInput(
                self.field,
                f"{self.source}: of it the cache {constants.HF_HUB_CACHE} has no {what}, and nothing is "
                "downloaded (HF_HUB_OFFLINE)",
                elsewhere,
            )
        raise BadInput(self.field, f"{self.source}: the repository has no {what}", mend)

    def _library(self) -> Any:
        try:
            import huggingface_hub
        except ImportError:
            raise BadInput(
                self.field,
                f"{self.source} needs the package huggingface_hub",
                'pip install "kdjax[hub]", or give a local folder',
            ) from None
        return huggingface_hub


def named(source: str, *, field: str) -> Repository:
    """The repository that `hf:owner/name[@revision]` names, or `timm:name`, which is `hf:timm/name`.

    Raises:
      BadInput: it names none; the line has `field`.
    """
    if (timm := _OF_TIMM.fullmatch(source)) is not None:
        return Repository(source, f"timm/{timm[1]}", timm[2], field)
    if (found := _NAMED.fullmatch(source)) is not None:
        return Repository(source, found[1], found[2], field)
    raise BadInput(field, f"{source!r} names no repository", "write hf:owner/name, or timm:name")
