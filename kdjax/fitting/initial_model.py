"""Where a model begins: from nothing, published weights, a pretrained encoder, or a whole model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from kdjax import config, models, shrink, tasks, train
from kdjax.artifacts.artifact import EARLY, Artifact, save_variables
from kdjax.artifacts.model import EncoderSpec, Spec, encoder_of, load, with_encoder
from kdjax.contexts import build
from kdjax.contexts.context import Context
from kdjax.fitting import pruning
from kdjax.fitting.fit import model_key
from kdjax.fitting.imported import begun
from kdjax.inputs import Inputs
from kdjax.types import BadInput, Variables


class Begin(NamedTuple):
    """A classifier before it is trained.

    Attributes:
      spec: what it is.
      variables: to begin with, maybe with those of modules beside it.
      artifact: that they are from, None where they are random or published.
    """

    spec: Spec
    variables: Variables
    artifact: Artifact | None

    def early(self) -> Variables:
        """What the artifact keeps for a lottery ticket."""
        assert self.artifact is not None
        return self.artifact.variables(self.spec.abstract(), name=EARLY)

    def groups(self) -> shrink.Groups:
        """Of its units."""
        own = train.of_model(self.variables)
        return shrink.groups_of(self.spec.analysed(), own, self.spec.blank())


def begin(
    context: Context,
    *,
    start_from: str | None,
    encoder: config.Encoder | None,
    inputs: Inputs,
    path: str,
) -> Begin:
    """The model that a stage trains.

    Args:
      context: of the stage.
      start_from: a stage that left an encoder or a whole model.
      encoder: an architecture, if it begins from nothing, or from published weights.
      inputs: that it will be given.
      path: of the stage's config, for messages.

    Raises:
      BadInput: the stage has no model of such inputs.
    """
    task = tasks.of(context.splits.train)
    if start_from is None:
        assert encoder is not None  # one of the two is given, see `kdjax.config`
        spec = Spec(encoder=encoder, inputs=inputs, task=task)
        return Begin(spec, begun(context, spec, spec.init(model_key(context))), None)
    artifact = context.inputs[start_from]
    if "encoder_model" in artifact.manifest:
        found, read = encoder_of(artifact, field=f"{path}.start_from")
        spec = Spec(encoder=found.encoder, inputs=inputs, task=task, widths=found.widths)
        variables = with_encoder(spec.init(model_key(context)), read())
        return Begin(spec, variables, artifact)
    spec, variables = load(artifact, field=f"{path}.start_from")
    if spec.inputs != inputs:
        raise BadInput(
            f"{path}.start_from",
            f"{start_from} sees {spec.inputs}, the views are {inputs}",
            "give both one size",
        )
    return Begin(spec, variables, artifact)


def ready_encoder(
    context: Context,
    c: config.Pretrain | config.DistillEncoder,
    spec: EncoderSpec,
    *,
    start: Callable[[Variables], Variables] = lambda variables: variables,
    apart: str | None = None,
) -> tuple[Variables, optax.GradientTransformation]:
    """The first variables of an encoder and its optimizer, with what is pruned.

    Args:
      context: of the stage.
      c: its config.
      spec: the model.
      start: adds to its variables what a method has beside the model.
      apart: see `build.optimizer`.
    """
    variables = begun(context, spec, spec.init(model_key(context)))
    return pruning.prepare(
        context,
        c,
        variables=start(variables),
        tx=build.optimizer(
            c,
            names=lambda: models.names_in_order(spec.module(), spec.blank(), train=True),
            apart=apart,
        ),
        groups=lambda: shrink.groups_of(spec.analysed(), variables, spec.blank()),
    )


def leave_encoder(
    context: Context,
    spec: EncoderSpec,
    state: train.TrainState,
    *,
    variables: Variables | None = None,
) -> dict[str, Any]:
    """Keeps an encoder and its projector, for the manifest; those of `state`, if no others are given."""
    kept = state.variables if variables is None else variables
    return {
        "variables": save_variables(context.folder, kept),
        "encoder_model": spec.plain(),
        **pruning.account(state, context.folder, spec.abstract()),
    }
