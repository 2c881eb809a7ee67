"""A model that a stage left, as one for pieces of an example."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import models, quant
from kdjax.artifacts.model import Spec
from kdjax.export.stream import Forward, Framing, Stream
from kdjax.inputs import Numbers
from kdjax.models import Compute
from kdjax.models.streaming import STREAM, kept
from kdjax.types import BadInput, Field, Variables


def check(spec: Spec, *, model: str) -> None:
    """Refuses a model that is not given an example in pieces.

    Args:
      spec: of the model.
      model: its name, for messages.

    Raises:
      BadInput: it is such a one; the line begins with what is wrong, and says the field of its encoder.
    """
    if (fault := spec.encoder.unstreamable()) is not None:
        field, why, mend = (*fault, "")[:3]
        where = f"{model}'s encoder.{field}".removesuffix(".")
        raise BadInput("", f"{where}: {why}", f"train it so: {mend}")
    first, *others = spec.inputs.parts
    if not isinstance(first, Numbers) or len(others) != len(spec.inputs.ragged):
        raise BadInput(
            "", f"an example of {model} is {spec.inputs}, and not one sequence", "leave it out"
        )
    try:
        _state(spec, jax.eval_shape(spec.in_float.folded, spec.in_float.abstract()))
    except TypeError as error:  # a head of the user's
        raise BadInput(
            "",
            f"the head of {model} keeps nothing from piece to piece: {error}",
            "give its `__call__` a keyword `state`, for its encoder, see kdjax.models.streaming",
        ) from error


def stream_of(spec: Spec, variables: Variables) -> Stream:
    """A model for pieces: `check` has let it pass.

    Args:
      spec: of the model.
      variables: of it.
    """
    folded = {name: tree for name, tree in spec.folded(variables).items() if name != quant.RANGES}
    ((field, whole), *lengths) = spec.inputs.fields.items()
    at_positions = spec.positions is not None
    return Stream(
        forward=_forward(spec),
        variables=folded,
        field=field,
        whole=whole,
        state=_state(spec, folded),
        framing=_framing(spec),
        last=not at_positions,
        padding=_padding(spec, variables) if lengths and at_positions else (),
        rules=spec.rules,
        ranges=variables.get(quant.RANGES, {}),
    )


def _forward(spec: Spec) -> Forward:
    module: Any = spec.in_float.module(Compute(folded=True))
    field, output = spec.inputs.parts[0].field, spec.output()

    def forward(variables: Variables, piece: Any, state: Any) -> tuple[Any, dict[str, Any]]:
        outputs, left = module.apply(
            variables, {field: piece}, train=False, state=state, mutable=[STREAM]
        )
        return outputs[output], kept(left)

    return forward


def _framing(spec: Spec) -> Framing:
    encoder = spec.bare()
    if not isinstance(encoder, models.OnLogMel):
        return Framing()
    front = encoder.front
    behind = front.beside or (front.frame - 1 if spec.inputs.ragged else 0)
    return Framing(front.frame, front.hop, front.beside, behind, front.beside > 0)


def _state(spec: Spec, variables: Variables) -> dict[str, Field]:
    """What is kept from piece to piece, of one example."""
    framing, whole = _framing(spec), spec.inputs.parts[0].raw
    piece = jax.ShapeDtypeStruct((1, framing.least + framing.before, *whole.shape[1:]), whole.dtype)
    forward = _forward(spec)
    _, state = jax.eval_shape(lambda v, x: forward(v, x, {}), variables, piece)
    return {name: Field(x.shape[1:], str(x.dtype)) for name, x in state.items()}


def _padding(spec: Spec, variables: Variables) -> tuple[float, ...]:
    """What the model answers behind the end of an example."""
    given = spec.inputs.blank()
    for name in spec.inputs.fields:
        if name not in {part.field for part in spec.inputs.ragged}:
            given[name] = jnp.ones_like(given[name])
    found = jax.jit(spec.predict)(variables, given)
    return tuple(np.asarray(found[0, -1], np.float64).tolist())
