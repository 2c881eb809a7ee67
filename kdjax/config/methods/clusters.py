"""Methods that agree on prototypes, with crops of several sizes."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from kdjax import ssl
from kdjax.config.encoders.vit import Transformer
from kdjax.config.fields import Count, Decay, Natural, Positive
from kdjax.config.methods import Method, Momentum, Stage
from kdjax.config.training import Number, Ramp, over_steps
from kdjax.config.views import Views
from kdjax.inputs import Inputs
from kdjax.models import Prototypes
from kdjax.ranges import In
from kdjax.types import BadInput, Fault
from kdjax.views import draws

Prototyped = Annotated[int, In("[2, 2^20]")]
"""How many prototypes."""


class _Prototypical(Method):
    """What has prototypes, which begin frozen, and more crops of each example than two."""

    freeze_steps: int
    local_crops: int
    local_views: Views | None

    def faults(self) -> Iterator[Fault]:
        """Local crops without their views, or views of none."""
        if (self.local_views is None) != (self.local_crops == 0):
            yield (
                "local_views, local_crops",
                f"{self.local_crops} local crops",
                "give both local_crops and local_views, or neither",
            )

    def misfits(self, stage: Stage) -> Iterator[Fault]:
        """Prototypes that no step would train."""
        if self.freeze_steps >= stage.steps:
            yield (
                "method.freeze_steps, steps",
                f"{self.freeze_steps} is not in [0, steps), and steps is {stage.steps}",
            )

    @property
    def smaller_views(self) -> Views | None:
        """Those of the local crops."""
        return self.local_views

    def draw(
        self,
        recipe: draws.Recipe,
        stage: Stage,
        *,
        stream: str,
        inputs: Inputs,
    ) -> draws.Draw:
        """Two large views, and the local crops."""
        large = draws.two_views(recipe, stream)
        if self.local_views is None:
            return large
        own = inputs.sized(self.local_views.size)
        if own != inputs and isinstance(stage.encoder, Transformer):
            raise BadInput(
                "method.local_views.size",
                f"{self.local_views.size}, but the positions of a ViT are those of {inputs}",
                "leave it out: smaller crops are then shown at that size",
            )
        recipe = self.local_views.recipe_for(own)
        return draws.together(large, draws.local_views(recipe, stream, crops=self.local_crops))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwAV(_Prototypical):
    """Predicts the prototypes of another view; Caron et al. 2020, https://arxiv.org/abs/2006.09882.

    Without the queue of earlier projections that its authors use with small batches.

    Attributes:
      prototypes: how many; 3,000 in the paper.
      epsilon: of the assignment, see `kdjax.losses.sinkhorn`.
      iterations: of the assignment.
      temperature: of the prediction.
      freeze_steps: for which the prototypes stay as they begin; 313 in the authors' code.
      local_crops: more views of each example, which predict and are not predicted; 6 in the paper.
      local_views: how they are drawn, None where there are none.
    """

    name: Literal["swav"]
    prototypes: Prototyped = 256
    epsilon: Positive = 0.05
    iterations: Count = 3
    temperature: Positive = 0.1
    freeze_steps: Natural = 0
    local_crops: Natural = 0
    local_views: Views | None = None

    least_rows: ClassVar = 2

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """See `kdjax.ssl.swav`."""
        return ssl.swav(
            trained.model,
            Prototypes(self.prototypes),
            width=trained.width,
            epsilon=self.epsilon,
            iterations=self.iterations,
            temperature=self.temperature,
            freeze_steps=self.freeze_steps,
            axis_name=trained.compute.axis_name,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DINO(_Prototypical):
    """Self-distillation from a momentum teacher; Caron et al. 2021, https://arxiv.org/abs/2104.14294.

    The teacher is what the stage leaves, with batch statistics of its own. The projector is as those of
    the other methods are, with BatchNorm and ReLU, where the paper's has GELU alone.

    Attributes:
      prototypes: outputs of the last layer; 65,536 in the paper.
      student_temperature: of the student's scores.
      teacher_temperature: of the teacher's; its ramp takes 30 epochs in the paper.
      momentum: of the teacher.
      center_momentum: of the running mean of the teacher's scores; it moves with each part of a batch.
      freeze_steps: for which the last layer stays as it begins; an epoch in the paper.
      local_crops: more views of each example, which the student alone sees; 8 or 10 in the paper.
      local_views: how they are drawn, None where there are none.
    """

    name: Literal["dino"]
    prototypes: Prototyped = 1024
    student_temperature: Positive = 0.1
    teacher_temperature: Annotated[Number, In("(0, inf)")] = Ramp(begin=0.04, end=0.07)
    momentum: Momentum = Ramp(begin=0.996, end=1.0, shape="cosine")
    center_momentum: Decay = 0.9
    freeze_steps: Natural = 0
    local_crops: Natural = 0
    local_views: Views | None = None

    has_target: ClassVar = True

    def method(self, trained: ssl.Trained) -> ssl.Method:
        """See `kdjax.ssl.dino`."""
        return ssl.dino(
            trained.model,
            Prototypes(self.prototypes),
            width=trained.width,
            student_temperature=self.student_temperature,
            teacher_temperature=over_steps(self.teacher_temperature, steps=trained.steps),
            momentum=over_steps(self.momentum, steps=trained.steps),
            center_momentum=self.center_momentum,
            freeze_steps=self.freeze_steps,
            axis_name=trained.compute.axis_name,
        )
