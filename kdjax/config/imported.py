"""Published weights that a network begins with."""

import dataclasses
from typing import Any

from kdjax import weights
from kdjax.config.fields import Regex, Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Imported:
    """Published weights that a network begins with, see `kdjax/weights/README.md`.

    Part of a stage's fingerprint are the content of the files and what is made of them, and not where
    they are.

    Attributes:
      source: a safetensors file; a folder with one or several, and perhaps `config.json` and
        `preprocessor_config.json`; `hf:owner/name[@revision]`; or `timm:name`.
      layout: whose names the tensors have: `timm`, `torchvision`, `hf`, `kdjax`; found by the names by
        default.
      skip: pattern of whole names, of tensors or as `params/encoder/stem/conv/kernel`, that may be left
        over on either side. Everything else must fit.
      own_preprocessing: the mean and the std of `data`, or its tokenizer, are meant, though the weights
        were trained with others.
    """

    source: Text
    layout: Text | None = None
    skip: Regex | None = None
    own_preprocessing: bool = False

    def found(self) -> weights.Published:
        """The weights, as far as their headers say.

        Raises:
          BadInput: they are not there, or not whole; the line begins with `weights`.
        """
        return weights.published(self.source)

    def identity(self) -> dict[str, Any]:
        """What decides which numbers they are, for a fingerprint.

        Raises:
          BadInput: as `found`.
        """
        found = self.found()
        return {
            "sha256": found.tensors.sha256,
            "revision": found.revision,
            "version": weights.VERSION,
            "layout": self.layout,
            "skip": self.skip,
        }
