"""What is kept of a teacher's output: full logits, the top k and their tail, an embedding.

A signal says which arrays it keeps for one view of one example (`parts`) and makes them of the
teacher's output on the device (`encode`), so that no more than what is kept leaves it. The names of
the parts are those under which a batch has them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt

from kdjax.losses import top_k_signal
from kdjax.teacher.storage import Part
from kdjax.types import BadInput

Parts: TypeAlias = Mapping[str, Array]
"""Arrays [batch, ...] by the name of their part."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Logits:
    """All logits.

    Attributes:
      classes: of the teacher.
      dtype: stored, `float16` or `float32`.
    """

    classes: int
    dtype: str = "float16"

    def parts(self) -> dict[str, Part]:
        """What is kept of one view of one example."""
        return {"teacher_logits": Part(self.dtype, (self.classes,))}

    def encode(self, logits: Float[Array, "*batch classes"]) -> dict[str, Array]:
        """The parts of a teacher's logits."""
        return {"teacher_logits": logits.astype(self.dtype)}

    def difference(
        self, stored: Parts, logits: Float[Array, "*batch classes"]
    ) -> Float[Array, "*batch"]:
        """Largest absolute difference between what is stored and these logits."""
        return _gap(stored["teacher_logits"], logits).max(-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopK:
    """The `k` largest log-probabilities, and the exact mass of all others as one number.

    `4 k + 2` bytes in float16 up to 65,536 classes, for one temperature; two more for each other.

    Attributes:
      classes: of the teacher.
      k: how many are kept, largest first.
      temperatures: at which a student may learn: the mass of the softened tail is not a function of
        what is kept.
      dtype: of the log-probabilities and the tail, `float16` or `float32`.
    """

    classes: int
    k: int
    temperatures: tuple[float, ...] = (1.0,)
    dtype: str = "float16"

    def parts(self) -> dict[str, Part]:
        """What is kept of one view of one example."""
        index = "uint16" if self.classes <= 2**16 else "uint32"
        return {
            "teacher_indices": Part(index, (self.k,)),
            "teacher_log_probs": Part(self.dtype, (self.k,)),
            "teacher_log_tail": Part(self.dtype, (len(self.temperatures),)),
        }

    def encode(self, logits: Float[Array, "*batch classes"]) -> dict[str, Array]:
        """The parts of a teacher's logits.

        Raises:
          BadInput: `k` is not in `1 .. classes`, or a temperature is not positive.
        """
        indices, log_probs, log_tail = top_k_signal(
            logits, k=self.k, temperatures=self.temperatures
        )
        return {
            "teacher_indices": indices.astype(self.parts()["teacher_indices"].dtype),
            "teacher_log_probs": log_probs.astype(self.dtype),
            "teacher_log_tail": log_tail.astype(self.dtype),
        }

    def difference(
        self, stored: Parts, logits: Float[Array, "*batch classes"]
    ) -> Float[Array, "*batch"]:
        """Largest absolute difference of a log-probability or a tail, at the classes that are stored.

        A class that should be among them and is not counts by how far it is above the least of them,
        so that a tie in which another one came first is no difference.
        """
        indices = stored["teacher_indices"].astype(jnp.int32)
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
        kept = jnp.take_along_axis(log_probs, indices, axis=-1)
        found = _gap(stored["teacher_log_probs"], kept).max(-1)
        if self.k == self.classes:
            return found
        others = jnp.put_along_axis(log_probs, indices, -jnp.inf, axis=-1, inplace=False)
        missed = jnp.maximum(others.max(-1) - kept.min(-1), 0.0)
        tails = jnp.stack([jax.nn.logsumexp(others / t, axis=-1) for t in self.temperatures], -1)
        tail = _gap(stored["teacher_log_tail"], tails).max(-1)
        return jnp.maximum(jnp.maximum(found, missed), tail)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embedding:
    """A vector, such as the features of a self-supervised encoder.

    Attributes:
      dim: of the vector.
      dtype: stored, `float16` or `float32`.
    """

    dim: int
    dtype: str = "float16"

    def parts(self) -> dict[str, Part]:
        """What is kept of one view of one example."""
        return {"teacher_embedding": Part(self.dtype, (self.dim,))}

    def encode(self, embedding: Float[Array, "*batch dim"]) -> dict[str, Array]:
        """The parts of a teacher's embedding."""
        return {"teacher_embedding": embedding.astype(self.dtype)}

    def difference(
        self, stored: Parts, embedding: Float[Array, "*batch dim"]
    ) -> Float[Array, "*batch"]:
        """Largest absolute difference between what is stored and this embedding."""
        return _gap(stored["teacher_embedding"], embedding).max(-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Values:
    """Numbers that a regression predicts.

    Attributes:
      dim: how many.
      dtype: stored, `float16` or `float32`.
    """

    dim: int
    dtype: str = "float16"

    def parts(self) -> dict[str, Part]:
        """What is kept of one view of one example."""
        return {"teacher_values": Part(self.dtype, (self.dim,))}

    def encode(self, values: Float[Array, "*batch dim"]) -> dict[str, Array]:
        """The parts of a teacher's values."""
        return {"teacher_values": values.astype(self.dtype)}

    def difference(
        self, stored: Parts, values: Float[Array, "*batch dim"]
    ) -> Float[Array, "*batch"]:
        """Largest absolute difference between what is stored and these values."""
        return _gap(stored["teacher_values"], values).max(-1)


Vector: TypeAlias = Logits | TopK | Embedding | Values
"""Kept of one vector of outputs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Apart:
    """The signals of several teachers side by side, `[teachers, ...]`, to be weighed by a student.

    Attributes:
      of: what is kept of each.
      teachers: how many.
    """

    of: Vector
    teachers: int

    def parts(self) -> dict[str, Part]:
        """What is kept of one view of one example."""
        return _each(self.of, self.teachers)

    def encode(self, outputs: Float[Array, "*batch teachers dim"]) -> dict[str, Array]:
        """The parts of all teachers' outputs."""
        return self.of.encode(outputs)

    def difference(
        self, stored: Parts, outputs: Float[Array, "*batch teachers dim"]
    ) -> Float[Array, "*batch"]:
        """The largest over the teachers."""
        return self.of.difference(stored, outputs).max(-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Positions:
    """A signal at each position of a sequence: the frames of speech, the masked tokens of a text.

    Sequences may differ in length, from view to view too. A batch has `[batch, most, ...]` arrays,
    as a compiled step must, and `teacher_length`; on disk what is behind the end is zeros, which
    compress to nothing.

    Attributes:
      of: what is kept of each position.
      most: positions of the longest sequence.
      hidden: nothing but zeros is kept of positions that the view does not hide: those of a text at which
        a masked language model is asked.
    """

    of: Vector
    most: int
    hidden: bool = False

    def parts(self) -> dict[str, Part]:
        """What is kept of one view of one example."""
        return {**_each(self.of, self.most), "teacher_length": Part("uint32", ())}

    def encode(
        self,
        outputs: Float[Array, "batch positions dim"],
        length: Int[Array, " batch"] | UInt[Array, " batch"] | None = None,
        hidden: Bool[Array, "batch positions"] | None = None,
    ) -> dict[str, Array]:
        """The parts of the outputs at all positions, of which the first `length` are kept; or all.

        A batch that is padded to fewer positions than there may be has the same parts.

        Args:
          outputs: of a model.
          length: see above.
          hidden: which positions the view hides, where these alone are kept.

        Raises:
          BadInput: these alone are kept, and the view does not say them.
        """
        positions = outputs.shape[1]
        if length is None:
            length = jnp.full(len(outputs), positions, jnp.uint32)
        kept = self.mask(length)[:, :positions]
        if self.hidden:
            if hidden is None:
                raise BadInput("signal.at", "hidden, and the views hide no token", "give all")
            kept = kept & hidden

        def whole(x):
            x = jnp.where(kept.reshape(*kept.shape, *(1,) * (x.ndim - 2)), x, jnp.zeros_like(x))
            return jnp.pad(x, [(0, 0), (0, self.most - positions), *[(0, 0)] * (x.ndim - 2)])

        parts = {name: whole(x) for name, x in self.of.encode(outputs).items()}
        return {**parts, "teacher_length": length.astype(jnp.uint32)}

    def cut(self, parts: Parts, positions: int) -> dict[str, Array]:
        """The parts at the first positions: as many as a student answers at, whose batch has no more."""
        return {
            name: part if name == "teacher_length" else part[:, :positions]
            for name, part in parts.items()
        }

    def mask(self, length: Int[Array, " batch"] | UInt[Array, " batch"]) -> Array:
        """Which positions are kept, bool [batch, most]: the rows of a loss at each position."""
        return jnp.arange(self.most)[None, :] < length.astype(jnp.int32)[:, None]

    def difference(
        self,
        stored: Parts,
        outputs: Float[Array, "batch most dim"],
        hidden: Bool[Array, "batch most"] | None = None,
    ) -> Float[Array, " batch"]:
        """The largest over the positions that are stored."""
        kept = self.mask(stored["teacher_length"])
        kept = kept & hidden if self.hidden and hidden is not None else kept
        at_each = self.of.difference(stored, outputs)
        return jnp.where(kept, at_each, 0.0).max(-1)


Signal: TypeAlias = Vector | Apart | Positions


def _gap(stored: Float[Array, "*all"], live: Float[Array, "*all"]) -> Float[Array, "*all"]:
    stored = stored.astype(jnp.float32)
    return jnp.where(stored == live, 0.0, jnp.abs(stored - live))  # -inf is where -inf is


def _each(of: Vector, count: int) -> dict[str, Part]:
    return {name: Part(dtype, (count, *shape)) for name, (dtype, shape) in of.parts().items()}


def describe(signal: Signal) -> dict[str, Any]:
    """A signal as plain data, for the manifest."""
    rest = {"of": describe(signal.of)} if isinstance(signal, Apart | Positions) else {}
    found = {"name": type(signal).__name__, **dataclasses.asdict(signal), **rest}
    # As it was said before there was a choice.
    return {name: x for name, x in found.items() if name != "hidden" or x}


def check(signal: Signal) -> None:
    """Raises `BadInput` where a signal cannot be kept: what has no entries, or more than there are."""
    match signal:
        case TopK(classes=classes, k=k) if not 1 <= k <= classes:
            raise BadInput("k", f"{k} is not in 1 .. {classes}, the classes of the teacher")
        case TopK(temperatures=temperatures) if not temperatures or min(temperatures) <= 0:
            raise BadInput("temperatures", f"{list(temperatures)} are not one or more above zero")
        case Apart(of=of) | Positions(of=of):
            check(of)
