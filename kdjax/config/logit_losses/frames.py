"""What a student learns of its teacher's frames where most of them are blank."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kdjax import losses
from kdjax.config.fields import Natural, NonNegative, all_zero
from kdjax.config.logit_losses import LogitLoss
from kdjax.distill import Compare
from kdjax.types import Batch, Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlankSelection(LogitLoss):
    """`kdjax.losses.kd_kl` at the frames that the teacher does not call blank, and at blanks near them.

    A recording of which the teacher says nothing teaches nothing.

    Attributes:
      around: blanks that stay before and behind each other frame; 0 leaves out all of them.
      delay: frames by which the student answers later than its teacher. A teacher that hears the whole
        recording names a symbol as it begins, and a student that has heard it up to there cannot. What
        the teacher says in its last so many frames is not learned.

    Reference: Hilmes et al. 2025, https://arxiv.org/abs/2506.01503: symmetric selection, and with 0 what
    they call blank elimination. Li et al. 2025, https://arxiv.org/abs/2505.22069, for students that are
    late: they choose among several delays, and here there is one.
    """

    name: Literal["blank_selection"]
    around: Natural = 1
    delay: Natural = 0

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
class FrameDKD(LogitLoss):
    """`kdjax.losses.dkd` of each frame, whose target is the class that the teacher holds likeliest there.

    The paper's target is the label, which no frame has: its class at the teacher is the choice made here,
    the one that `blank_selection` and `best_path` go by, too. At a frame that the teacher calls blank the
    target is the blank, so that `alpha` is of blank or not, and `beta` of which symbol it would be.

    Attributes:
      alpha: weight of the target against the rest.
      beta: of the classes that are not the target, among themselves.
      around: blanks that stay before and behind each other frame, as of `blank_selection`; None for all
        frames.
      delay: frames by which the student answers later than its teacher, as of `blank_selection`.

    Reference: Zhao et al. 2022, https://arxiv.org/abs/2203.08679, eq. 7.
    """

    name: Literal["frame_dkd"]
    alpha: NonNegative = 1.0
    beta: NonNegative = 8.0
    around: Natural | None = None
    delay: Natural = 0

    at_positions: ClassVar = True
    of_blank: ClassVar = True

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from all_zero(self, "alpha", "beta")

    def between(self, temperature: float | Float[Array, ""], axis_name: str | None) -> Compare:
        """See `kdjax.losses.dkd`."""
        return lambda student, wanted, batch: losses.dkd(
            student,
            wanted,
            wanted.argmax(-1),
            alpha=self.alpha,
            beta=self.beta,
            temperature=temperature,
        )

    def rows(self, batch: Batch) -> Bool[Array, "batch ..."] | None:
        """See `kdjax.losses.near_symbols`."""
        if self.around is None:
            return None
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
