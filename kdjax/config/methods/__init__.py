"""Self-supervised methods: how an encoder learns from images alone, a file a family.

Each class has the fields of a config and makes the method of them, see `kdjax.ssl`. Each default is its
paper's, unless it says otherwise. A momentum is the decay of the target network.
"""

import abc
from collections.abc import Iterator
from typing import Annotated, ClassVar, NamedTuple, Protocol, runtime_checkable

from kdjax import models, ssl
from kdjax.choice import Choice, import_all
from kdjax.config.encoders import Encoder
from kdjax.config.training import Number
from kdjax.config.views import Views
from kdjax.inputs import Inputs
from kdjax.ranges import In
from kdjax.types import Fault
from kdjax.views import draws

Momentum = Annotated[Number, In("[0, 1]")]
"""Of a target network; at one it stays."""


@runtime_checkable
class Stage(Protocol):
    """What a method may ask of the stage that it is in."""

    @property
    def encoder(self) -> Encoder:
        """What is trained."""
        ...

    @property
    def projector(self) -> tuple[int, ...]:
        """Widths of the MLP on top of it."""
        ...

    @property
    def batch(self) -> int:
        """Examples of a step."""
        ...

    @property
    def steps(self) -> int:
        """Of the stage."""
        ...


class Asked(NamedTuple):
    """Clusters of frames that a method asks for.

    Attributes:
      clusters: how many.
      examples: training examples that they are found on; None takes the usual number.
      of: what gives the features that are clustered: the stage whose encoder does, or, of an encoder that
        is trained, what gives spectra.
    """

    clusters: int
    examples: int | None
    of: str | models.OnLogMel


class Method(Choice, abc.ABC):
    """How an encoder learns from images alone.

    Attributes:
      least_rows: how many examples must meet in a step for its loss to say something.
      has_target: it has a target network, which is an average of the model.
      has_predictor: it has an MLP with BatchNorm on the projections.
    """

    least_rows: ClassVar[int] = 1
    has_target: ClassVar[bool] = False
    has_predictor: ClassVar[bool] = False

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages that it reads, beside those of the encoder."""
        return ()

    def asks(self, encoder: Encoder) -> Asked | None:
        """Clusters that live on the device beside the examples; None where there are none.

        Args:
          encoder: that is trained.
        """
        return None

    @abc.abstractmethod
    def method(self, trained: ssl.Trained) -> ssl.Method:
        """The method, for this model."""

    def draw(
        self,
        recipe: draws.Recipe,
        stage: Stage,
        *,
        stream: str,
        inputs: Inputs,
    ) -> draws.Draw:
        """What it sees of each example: two views, where it does not say otherwise.

        Args:
          recipe: of the stage's views.
          stage: its config.
          stream: of the random views: the stage's name.
          inputs: that the encoder is given.

        Raises:
          BadInput: its own views do not fit; the line begins with `method`.
        """
        return draws.two_views(recipe, stream)

    @property
    def smaller_views(self) -> Views | None:
        """How more views of each example are drawn, None where there are none."""
        return None

    def misfits(self, stage: Stage) -> Iterator[Fault]:
        """Fields of the stage, or of its method, that do not go together."""
        yield from ()


import_all(__name__, __path__)
