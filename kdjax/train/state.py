"""The state of training: arrays only."""

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
import optax

from kdjax.prune import find_masks
from kdjax.types import PyTree, Variables

MEMORY = "memory"
"""The collection of `model_state` that is of the method and not of the model: queues, centers, memories.
It is the same on every device without being averaged, and no part of what is kept."""

BESIDE = "beside"
"""Where, in each collection, the variables of modules are that are trained with the model and left
behind: predictors, prototypes, connectors, probes."""


@flax.struct.dataclass
class TrainState:
    """What a step takes and gives back.

    Attributes:
      step: number of updates made, int32 []. Its type is left open like the others': maps over the
        state put shapes, shardings or NumPy arrays in the place of every leaf.
      params: of the model that is trained.
      opt_state: of the optax chain; it holds the masks where there are any.
      model_state: the other collections, such as `{"batch_stats": ...}`; and `MEMORY`, where a method
        has one.
      ema_params: exponential moving average of `params`, None where none is kept. It is the target
        network of the methods that have one.
    """

    step: PyTree
    params: PyTree
    opt_state: PyTree
    model_state: PyTree
    ema_params: PyTree | None = None

    @classmethod
    def start(
        cls, variables: Variables, tx: optax.GradientTransformation, *, ema: bool = False
    ) -> "TrainState":
        """Step 0 of training `variables` with `tx`; `ema` keeps an average from the start.

        Raises:
          BadInput: `tx` holds masks and is not the outermost, see `kdjax.prune.hold`.
        """
        model_state = dict(variables)
        params = model_state.pop("params")
        opt_state = tx.init(params)
        find_masks(opt_state)
        return cls(
            step=jnp.zeros([], jnp.int32),
            params=params,
            opt_state=opt_state,
            model_state=model_state,
            # A buffer of its own: the step donates both.
            ema_params=jax.tree.map(jnp.copy, params) if ema else None,
        )

    @property
    def variables(self) -> dict[str, PyTree]:
        """What to evaluate and to keep: the average where there is one, else the parameters."""
        params = self.params if self.ema_params is None else self.ema_params
        return of_model({"params": params, **self.model_state})

    @property
    def live_variables(self) -> dict[str, PyTree]:
        """The parameters, also where there is an average of them."""
        return of_model({"params": self.params, **self.model_state})


def of_model(variables: Variables) -> dict[str, PyTree]:
    """`variables` without the method's memory, and without the modules that are left behind."""
    kept = {}
    for collection, found in variables.items():
        if collection == MEMORY:
            continue
        if isinstance(found, Mapping) and BESIDE in found:
            found = {name: part for name, part in found.items() if name != BESIDE}
            if not found:
                continue  # the statistics of modules beside a model that has none
        kept[collection] = found
    return kept
