"""An encoder that is trained without labels."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal

from kdjax.config.encoders import Encoder
from kdjax.config.fields import (
    Width,
)
from kdjax.config.methods import Method
from kdjax.config.methods.contrast import SimCLR
from kdjax.config.own import Own
from kdjax.config.stage import Stage
from kdjax.config.stages.starting import begun_from
from kdjax.config.training import Training
from kdjax.config.views import Views
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrain(Training):
    """A self-supervised method on all training images; labels are not used, but by the probe.

    Attributes:
      encoder: what is trained and kept.
      projector: widths of the MLP on top of it, which is not kept for later stages.
      method: how it learns.
      views: two are drawn of each example, new ones each epoch; one for `rotation`, `mae`,
        `masked_lm` and `masked_frames`.
      probe: watch a linear classifier on the features of the first view, which learns from the labels
        that may be used. Nothing of it reaches the encoder.
    """

    kind: Literal["pretrain"]
    encoder: Encoder
    views: Views
    projector: tuple[Width, ...] = (128, 64)
    method: Method = SimCLR(name="simclr")
    probe: bool = False

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from self.method.misfits(self)
        if self._sees_one_thing_twice():
            same = f"two views of an example are the same: {self.method.name} compares them"
            if self._dropouts():
                mend = "give the encoder a dropout, such as 0.1, which tells them apart; or random views"
                yield "encoder.dropout, views", f"0.0, and {same}", mend
            else:
                yield "views.recipe", f"{self.views.recipe}, and {same}", "give random views"
        if self.ema is not None and self.method.has_target:
            yield (
                "ema, method.name",
                f"{self.method.name} has a target network, which is the average",
                "leave it out, and give method.momentum",
            )

    def _sees_one_thing_twice(self) -> bool:
        """Whether nothing is random in two views that are compared; of the user's own nobody knows."""
        two = type(self.method).draw is Method.draw
        own = isinstance(self.encoder, Own) or isinstance(self.method, Own)
        return two and not self.views.augments and not own and not any(self._dropouts())

    def _dropouts(self) -> list[float]:
        """Of an encoder that has some."""
        names = ("dropout", "attention_dropout")
        return [value for name, value in vars(self.encoder).items() if name in names]

    def needs(self, stages: Mapping[str, Stage]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return tuple(dict.fromkeys((*begun_from(self.encoder), *self.method.stages)))
