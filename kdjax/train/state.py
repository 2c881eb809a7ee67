"""The state of training: arrays only."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from kdjax.types import PyTree, Variables


@flax.struct.dataclass
class TrainState:
    """What a step takes and gives back.

    Attributes:
      step: number of updates made, int32 []. Its type is left open like the others': maps over the
        state put shapes, shardings or NumPy arrays in the place of every leaf.
      params: of the model that is trained.
      opt_state: of the optax chain; it holds the masks where there are any.
      model_state: the other collections of the model, such as `{"batch_stats": ...}`.
      ema_params: exponential moving average of `params`, None where none is kept.
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
        """Step 0 of training `variables` with `tx`; `ema` keeps an average from the start."""
        model_state = dict(variables)
        params = model_state.pop("params")
        return cls(
            step=jnp.zeros([], jnp.int32),
            params=params,
            opt_state=tx.init(params),
            model_state=model_state,
            # A buffer of its own: the step donates both.
            ema_params=jax.tree.map(jnp.copy, params) if ema else None,
        )

    @property
    def variables(self) -> dict[str, PyTree]:
        """What to evaluate and to keep: the average where there is one, else the parameters."""
        params = self.params if self.ema_params is None else self.ema_params
        return {"params": params, **self.model_state}
