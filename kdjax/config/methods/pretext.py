"""Methods that solve a task made of the image itself."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

from kdjax import models, ssl
from kdjax.config.encoders.vit import Transformer
from kdjax.config.fields import Depth, Width
from kdjax.config.methods import Method, Stage
from kdjax.inputs import Image, Inputs
from kdjax.ranges import In
from kdjax.types import BadInput, Fault
from kdjax.views import draws


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rotation(Method):
    """By how many quarters a view is turned; Gidaris et al. 2018, https://arxiv.org/abs/1803.07728.

    All four turns of one view of each example; a linear layer on the projections tells them apart.
    """

    name: Literal["rotation"]

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """See `kdjax.ssl.rotation`."""
        return ssl.rotation(trained.model, width=trained.width)

    def draw(
        self,
        recipe: draws.Recipe,
        stage: Stage,
        *,
        stream: str,
        inputs: Inputs,
    ) -> draws.Draw:
        """One view, which it turns itself.

        Raises:
          BadInput: the views are not square.
        """
        height, width = inputs.only_image("method: rotation").size
        if height != width:
            raise BadInput(
                "method.name",
                f"rotation turns views by quarters, and these are {height} x {width} pixels",
                "give views.size one integer, which makes them square",
            )
        return draws.one_view(recipe, stream, name="view_a")


def _patches(image: Image, patch: int) -> int:
    """How many of this side a view has.

    Raises:
      BadInput: they do not cover it.
    """
    height, width = image.size
    if height % patch or width % patch:
        raise BadInput(
            "encoder.patch",
            f"{patch} does not divide the image of {height} x {width} pixels",
            "take a divisor, or another size of the views",
        )
    return (height // patch) * (width // patch)


_PATCHES_ALONE = (
    ("class_token", False, "its decoder takes the tokens of patches alone, so it would teach none"),
    ("registers", 0, "its decoder takes the tokens of patches alone"),
    ("norm_after_pool", False, "its decoder takes tokens that have been normalised"),
)
"""Fields of a ViT, what they are for MAE, and why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MAE(Method):
    """Paints hidden patches from those shown; He et al. 2021, https://arxiv.org/abs/2111.06377.

    For a `vit` without a projector, a class token and registers. Positions are learned, also the
    decoder's, where the paper's are sines. The probe sees the features of the patches that are shown.

    Attributes:
      share: of the patches that are hidden.
      decoder_width: of a token in the decoder; 512 in the paper, for a ViT of 1,024.
      decoder_depth: its blocks; 8 in the paper.
      decoder_heads: of each attention; 16 in the paper.
      normalize: the target is each patch less its mean and over its standard deviation.
    """

    name: Literal["mae"]
    share: Annotated[float, In("(0, 1)")] = 0.75
    decoder_width: Width = 128
    decoder_depth: Depth = 2
    decoder_heads: Width = 4
    normalize: bool = True

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        fields = "decoder_heads, decoder_width"
        yield from models.heads_faults(self.decoder_width, self.decoder_heads, fields=fields)

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """See `kdjax.ssl.mae`."""
        encoder = trained.encoder
        assert isinstance(encoder, models.ViT)  # see `misfits`
        image = trained.inputs.only_image("method: mae")
        decoder = models.PatchDecoder(
            width=self.decoder_width,
            depth=self.decoder_depth,
            heads=self.decoder_heads,
            patches=_patches(image, encoder.patch),
            pixels=encoder.patch**2 * image.shape[-1],
            compute=trained.compute,
        )
        return ssl.mae(encoder, decoder, normalize=self.normalize)

    def draw(
        self,
        recipe: draws.Recipe,
        stage: Stage,
        *,
        stream: str,
        inputs: Inputs,
    ) -> draws.Draw:
        """One view, and which of its patches are hidden."""
        assert isinstance(stage.encoder, Transformer)  # see `misfits`
        patches = _patches(inputs.only_image("method: mae"), stage.encoder.patch)
        count = round(self.share * patches)
        if not 0 < count < patches:
            raise BadInput(
                "method.share",
                f"{self.share} hides {count} of {patches} patches",
                "hide some and show some",
            )
        masks = draws.patch_masks(stream, patches=patches, share=self.share)
        return draws.together(draws.one_view(recipe, stream, name="view_a"), masks)

    def misfits(self, stage: Stage) -> Iterator[Fault]:
        """Fields of the stage, or of its method, that do not go together."""
        if not isinstance(stage.encoder, Transformer):
            yield (
                "encoder.name, method.name",
                f"{stage.encoder.name} has no patches to hide",
                "take vit",
            )
            return
        if stage.projector:
            yield "projector, method.name", "mae has a decoder in its place", "give none: ()"
        for field, usual, why in _PATCHES_ALONE:
            value = getattr(stage.encoder, field)
            if value != usual:
                yield (
                    f"encoder.{field}, method.name",
                    f"{value} is not for mae: {why}",
                    f"take {usual}",
                )
