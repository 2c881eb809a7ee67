"""What a student learns of its teacher's frames where most of them are blank."""

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kdjax import losses
from kdjax.config.fields import Natural
from kdjax.config.logit_losses import LogitLoss
from kdjax.distill import Compare
from kdjax.types import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlankSelection(LogitLoss):
    """`kdjax.losses.kd_kl` at the frames that the teacher does not call blank, and at blanks near them.

    A recording of which the teacher says nothing teaches nothing.

    Attributes:
      around: blanks that stay before and behind each other frame; 0 leaves out all of them.

    Reference: Hilmes et al. 2025, https://arxiv.org/abs/2506.01503: symmetric selection, and with 0 what
    they call blank elimination.
    """

    name: Literal["blank_selection"]
    around: Natural = 1

    takes_top_k: ClassVar = True
    at_positions: ClassVar = True
    of_blank: ClassVar = True

    def between(self, temperature: float | Float[Array, ""], axis_name: str | None) -> Compare:
        """See `kdjax.losses.kd_kl`."""
        return lambda student, wanted, batch: losses.kd_kl(student, wanted, temperature=temperature)

    def rows(self, batch: Batch) -> Bool[Array, "batch ..."] | None:
        """See `kdjax.losses.near_symbols`."""
        return losses.near_symbols(_likeliest(batch), around=self.around)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestPath(LogitLoss):
    """`kdjax.losses.ctc` with the symbols of the teacher's likeliest path as the transcript.

    Unlike the KL of frames it leaves to the student when it says them.

    Reference: Kim and Rush 2016, https://arxiv.org/abs/1606.07947: sequence-level knowledge distillation.
    """

    name: Literal["best_path"]

    at_positions: ClassVar = True
    of_blank: ClassVar = True
    reads_temperature: ClassVar = False

    def between(self, temperature: float | Float[Array, ""], axis_name: str | None) -> Compare:
        """See `kdjax.losses.ctc`: of each example, over the frames that the teacher has kept."""

        def ctc(student, wanted, batch):
            mask = jnp.arange(wanted.shape[1])[None] < batch["teacher_length"][:, None]
            return losses.ctc(student, losses.best_path(wanted.argmax(-1), mask), mask)

        return ctc


def _likeliest(batch: Batch) -> Array:
    """The class that the teacher holds likeliest at each frame; the blank behind the end."""
    if "teacher_indices" in batch:
        return batch["teacher_indices"][..., 0].astype(jnp.int32)
    return batch["teacher_logits"].argmax(-1)
