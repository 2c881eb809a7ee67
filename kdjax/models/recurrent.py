"""Networks that read a sequence step by step: layers of LSTMs, over rows or over tokens."""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kdjax import recurrence
from kdjax.models import streaming
from kdjax.models.blocks import Compute
from kdjax.models.sequences import mask_of, mean_of, rows_of
from kdjax.recurrence import State

SequencePool = Literal["mean", "last", "none"]


def _forget_first(key: jax.Array, shape: Sequence[int], dtype=jnp.float32) -> Array:
    """Zeros, and ones for the gate that forgets, which lets gradients through at first.

    Reference: Jozefowicz et al. 2015, https://proceedings.mlr.press/v37/jozefowicz15.html, sec. 2.2.
    """
    return jnp.zeros(shape, dtype).at[1].set(1.0)


class LSTM(nn.Module):
    """One layer in one direction; its parameters are those of `kdjax.recurrence.lstm`.

    Attributes:
      features: hidden units.
      reverse: it reads from the last step to the first.
      compute: see `Compute`.
    """

    features: int
    reverse: bool = False
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch step dim"],
        length: Int[Array, " batch"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Array, "batch step hidden"], State]:
        """What `kdjax.recurrence.lstm` gives.

        Args:
          x: what goes in at each step.
          length: steps that each example has, at least 1; None for all.
          state: before the first step; None for zeros.
        """
        dtype, inputs = self.compute.dtype, x.shape[-1]
        ours = nn.initializers
        kernel = self.param(
            "kernel",
            ours.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2)),
            (inputs, 4, self.features),
        )
        recurrent = self.param(
            "recurrent", ours.orthogonal(column_axis=0), (self.features, 4, self.features)
        )
        bias = self.param("bias", _forget_first, (4, self.features))
        return recurrence.lstm(
            x.astype(dtype),
            *(parameter.astype(dtype) for parameter in (kernel, recurrent, bias)),
            length=length,
            state=state,
            reverse=self.reverse,
        )


class RecurrentNet(nn.Module):
    """Layers of LSTMs over the rows of an example, in one direction or in both.

    Attributes:
      widths: hidden units of each layer, in each direction.
      bidirectional: each layer reads in both directions, side by side.
      pool: the features are the mean over the steps of what the last layer gives (`mean`); its state
        after the last step, of both directions (`last`); or what it gives at each step, with the mask
        of those that are no padding (`none`).
      dropout: of what comes out of each layer but the last, and of the features.
      compute: see `Compute`.
    """

    widths: Sequence[int]
    bidirectional: bool = False
    pool: SequencePool = "mean"
    dropout: float = 0.0
    compute: Compute = Compute()

    def __call__(
        self,
        x: Float[Array, "batch step ..."],
        length: Int[Array, " batch"] | None = None,
        *,
        train: bool,
        state: streaming.State | None = None,
    ) -> (
        Float[Array, "batch dim"]
        | Float[Array, "batch step dim"]
        | tuple[Float[Array, "batch step dim"], Bool[Array, "batch step"]]
    ):
        """The features, float32; with `state`, those of each step [batch, step, dim] without a mask.

        Args:
          x: of each step; what a step has is one row.
          length: steps that each example has, the others are padding; one without any counts as of one.
            None for all.
          train: with dropout.
          state: what was kept of the steps before, see `kdjax.models.streaming`. A mean is then of the
            steps up to each one.

        Raises:
          ValueError: it has `state`, and layers read in both directions.
        """
        if state is not None:
            return self._piece(x, state)
        x, length = rows_of(x, length)
        found, _ = self._read(x, length, train=train, pool=self.pool)
        return (found, mask_of(x, length)) if self.pool == "none" else found

    def _piece(
        self, x: Float[Array, "batch step ..."], state: streaming.State
    ) -> Float[Array, "batch step dim"]:
        names = [(f"hidden{i}", f"cell{i}") for i in range(len(self.widths))]
        states = [State(state[h], state[c]) if h in state else None for h, c in names]
        found, last = self.stream(x, states)
        after = {
            name: array
            for pair, both in zip(names, last, strict=True)
            for name, array in zip(pair, both, strict=True)
        }
        if self.pool == "mean":
            count, total, so_far = streaming.so_far(found, state)
            found, after = total / count, {**after, **so_far}
        streaming.keep(self, after)
        return found

    def stream(
        self, x: Float[Array, "batch step ..."], states: Sequence[State | None] | None = None
    ) -> tuple[Float[Array, "batch step dim"], list[State]]:
        """What the last layer gives at each step, and the states to begin the next call with.

        So a sequence may come in pieces of any length: what they give is what the whole would.

        Args:
          x: the next steps.
          states: of each layer, from the call before; None at the beginning.

        Raises:
          ValueError: layers read in both directions, and what is to come is not known.
        """
        if self.bidirectional:
            raise ValueError("a network that reads backwards cannot begin before the end")
        x, _ = rows_of(x, None)
        return self._read(x, None, train=False, pool="none", states=states)

    @nn.compact
    def _read(
        self,
        x: Float[Array, "batch step row"],
        length: Int[Array, " batch"] | None,
        *,
        train: bool,
        pool: SequencePool,
        states: Sequence[State | None] | None = None,
    ) -> tuple[Float[Array, "batch ... dim"], list[State]]:
        last: list[State] = []
        for i, width in enumerate(self.widths):
            if i:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            found = []
            for name, reverse in (("lstm", False), ("back", True))[: 1 + self.bidirectional]:
                layer = LSTM(width, reverse=reverse, compute=self.compute, name=f"{name}{i}")
                given, state = layer(x, length, states[i] if states else None)
                found.append(given)
                last.append(state)
            x = jnp.concatenate(found, -1) if len(found) > 1 else found[0]
        if pool == "mean":
            x = mean_of(x, mask_of(x, length))
        elif pool == "last":
            x = jnp.concatenate([state.hidden for state in last[-1 - self.bidirectional :]], -1)
        return nn.Dropout(self.dropout, deterministic=not train)(x.astype(jnp.float32)), last


class RecurrentText(nn.Module):
    """A `RecurrentNet` over the embeddings of tokens.

    Attributes:
      vocab: tokens that there are.
      embedding: width of an embedding.
      net: what reads them.
      compute: see `Compute`.
    """

    vocab: int
    embedding: int
    net: RecurrentNet
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "batch token"],
        tokens_length: Int[Array, " batch"] | None = None,
        *,
        train: bool,
        state: streaming.State | None = None,
    ):
        """What `net` gives.

        Args:
          tokens: as integers below `vocab`.
          tokens_length: how many of each text there are, the others are padding; None for all.
          train: with dropout.
          state: see `RecurrentNet`.
        """
        x = nn.Embed(self.vocab, self.embedding, dtype=self.compute.dtype, name="word")(tokens)
        return self.net(x, tokens_length, train=train, state=state)
