"""What a network begins with: published weights, or layers of another stage's."""

import dataclasses
from typing import Annotated, Any, ClassVar

from kdjax import weights
from kdjax.config.fields import Natural, Regex, Text
from kdjax.ranges import AtLeast


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromStage:
    """Layers of the encoder of another stage, which a smaller one begins with.

    A variable is the one of the same name there; of a block, that of the block which is named for it.
    Where the encoder has an `embedding_size`, a whole table of tokens becomes the nearest two factors;
    where its own table is narrower, that is the principal components of the other one, as for a bag of
    embeddings or an LSTM: `fresh="(?!params/word/).*"` has all else of them begin at random. What the
    other encoder has besides is left behind. Projectors begin at random, heads but with `head`.

    Attributes:
      stage: that left the encoder, alone or in a whole model.
      blocks: of it that become `block0`, `block1`, ..., in this order: [0, 2, 4] is every second one of
        six. None: each begins as its namesake.
      fresh: pattern of whole names, as `params/pooler/kernel`, that begin at random. Everything else must
        be there, in the same shape.
      head: begin with its head, too, where both are asked the same.

    Reference: Sanh et al. 2019, https://arxiv.org/abs/1910.01108, sec. 3 (every second layer).
    """

    marked_by: ClassVar[str] = "stage"

    stage: Text
    blocks: Annotated[tuple[Natural, ...], AtLeast(1)] | None = None
    fresh: Regex | None = None
    head: bool = False

    def identity(self) -> dict[str, Any]:
        """What decides which layers they are, for a fingerprint; what the stage left is in it anyway."""
        head = {"head": True} if self.head else {}
        return {"stage": self.stage, "blocks": self.blocks, "fresh": self.fresh, **head}
