"""Parameters that do not change while others are trained, for good or until a step: fine-tuning."""

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Int

from kdjax import tree
from kdjax.bound import attributes
from kdjax.train.objective import Objective
from kdjax.train.state import BESIDE
from kdjax.types import BadInput, PyTree

NEVER = math.inf
"""The step from which on a parameter is trained that always is frozen."""

_STATISTICS = ("mean", "var")

_beside = False


@contextlib.contextmanager
def beside() -> Iterator[None]:
    """What is run within is beside the model: names in it are not those of the model's layers."""
    global _beside
    before, _beside = _beside, True
    try:
        yield
    finally:
        _beside = before


@dataclasses.dataclass(frozen=True)
class Freezing:
    """Which parameters of a model are frozen, and until when.

    A frozen parameter keeps its bits: it has no gradient, does not decay, has no state in the optimizer,
    and its average is the parameter itself. Modules beside the model are always trained.

    Attributes:
      frozen: pattern of the names of parameters that are not trained at all; None for none.
      unfreeze: pairs of a pattern and a step, at least 1: until it these are frozen, and from it on they
        are trained, by an optimizer that begins there. The first pattern that matches a parameter
        counts, and counts more than `frozen`.
      statistics: what a module keeps in `batch_stats` stays if all parameters of its own are frozen, and
        a `nn.BatchNorm` normalises with it, in training as in evaluation; otherwise it follows the
        batches like one that is trained. One without parameters goes by the names of its statistics.
    """

    frozen: str | None = None
    unfreeze: Sequence[tuple[str, int]] = ()
    statistics: bool = True

    def since(self, params: PyTree) -> PyTree:
        """The step from which on each parameter is trained: 0, that of `unfreeze`, or `NEVER`.

        Raises:
          BadInput: a pattern matches no parameter, or only what earlier ones took; or nothing is ever
            trained.
        """
        names = [*tree.named_leaves(params)]
        found = {name: self._since(name) for name in names}
        if names:  # optax looks for what follows the parameters with trees that have no leaf
            self._check(found)
        return jax.tree.unflatten(jax.tree.structure(params), [*found.values()])

    def _patterns(self) -> Iterator[tuple[str, str, float | int]]:
        """Field, pattern and step, in the order in which they count."""
        for i, (pattern, step) in enumerate(self.unfreeze):
            yield f"optimizer.unfreeze[{i}]", pattern, step
        if self.frozen is not None:
            yield "optimizer.frozen", self.frozen, NEVER

    def _since(self, name: str) -> float | int:
        if name.startswith(f"{BESIDE}/"):
            return 0
        steps = (step for _, pattern, step in self._patterns() if re.fullmatch(pattern, name))
        return next(steps, 0)

    def _check(self, found: Mapping[str, float | int]) -> None:
        free = [name for name in found if not name.startswith(f"{BESIDE}/")]
        for field, pattern, _ in self._patterns():
            matched = [name for name in free if re.fullmatch(pattern, name)]
            if not matched:
                first = next(iter(free), None)
                raise BadInput(
                    field,
                    f"{pattern!r} matches no parameter of this model",
                    f"a pattern is of whole names; the first of them is {first!r}",
                )
            took = {self._field(name) for name in matched}
            if field not in took:
                raise BadInput(
                    field,
                    f"earlier patterns took all that {pattern!r} matches, such as {matched[0]!r}",
                    f"see {', '.join(sorted(took))}",
                )
        if all(since == NEVER for since in found.values()):
            raise BadInput(
                "optimizer.frozen",
                f"{self.frozen!r} matches every parameter, and nothing is left to train",
                'leave some out, or give optimizer={"name": "frozen"}',
            )

    def _field(self, name: str) -> str:
        """That whose pattern counts for a parameter that some match."""
        return next(f for f, pattern, _ in self._patterns() if re.fullmatch(pattern, name))

    def of(self, objective: Objective) -> Objective:
        """The objective, without gradients of what is frozen, and with its running statistics.

        What is frozen for good costs no backward pass of its own, nor does what comes before the first
        layer that is trained. What is frozen until a step has its gradients computed, and dropped.
        """

        def held(params: PyTree, state: Any, *rest: Any) -> Any:
            since = self.since(params)

            def still(leaf: Array, first: float | int) -> Array:
                if first == 0:
                    return leaf
                stopped = lax.stop_gradient(leaf)
                return stopped if first == NEVER else jnp.where(state.step < first, stopped, leaf)

            params = jax.tree.map(still, params, since)
            with self._running(tree.named_leaves(since), state.step):
                return objective(params, state, *rest)

        return held

    def kept(self, old: PyTree, new: PyTree, step: Int[Array, ""]) -> PyTree:
        """`new`, with `old` in the place of what is frozen at a step."""
        return _chosen(self.since(new), old, new, step)

    def kept_statistics(
        self,
        old: Mapping[str, PyTree],
        new: Mapping[str, PyTree],
        params: PyTree,
        step: Int[Array, ""],
    ) -> dict[str, PyTree]:
        """The collections `new`, with those statistics of `old` that are frozen at a step.

        A mean of equal numbers over devices is rounded, too.
        """
        if not self.statistics or "batch_stats" not in new:
            return dict(new)
        by_name, before = tree.named_leaves(self.since(params)), old["batch_stats"]
        since = [self._first(by_name, name) for name in tree.named_leaves(before)]
        since = jax.tree.unflatten(jax.tree.structure(before), since)
        return {**new, "batch_stats": _chosen(since, before, new["batch_stats"], step)}

    def _first(self, since: Mapping[str, float | int], statistic: str) -> float | int:
        """The step from which on a statistic follows the batches, as some parameter beside it."""
        module = statistic.rpartition("/")[0]
        own = [first for name, first in since.items() if name.rpartition("/")[0] == module]
        return min(own, default=self._since(statistic))

    @contextlib.contextmanager
    def _running(self, since: Mapping[str, float | int], step: Int[Array, ""]) -> Iterator[None]:
        """Frozen BatchNorms within normalise with their running statistics, and keep them."""
        if not self.statistics:
            yield
            return

        def look(call: Any, args: Any, kwargs: Any, of: nn.module.InterceptorContext) -> Any:
            norm = of.module
            is_run = of.method_name == "__call__" and not norm.is_initializing()
            if not (isinstance(norm, nn.BatchNorm) and is_run) or _beside:
                return call(*args, **kwargs)
            first = self._first(since, "/".join([*norm.path, "mean"]))
            x, *given = args or (kwargs["x"],)
            how = {name: value for name, value in kwargs.items() if name == "mask"}
            asked = given[0] if given else kwargs.get("use_running_average")
            if first == 0 or (norm.use_running_average if asked is None else asked):
                return call(*args, **kwargs)
            if first == NEVER:
                with attributes(norm, use_running_average=True):
                    return call(x, **how)
            return _until(first > step, norm, lambda: call(*args, **kwargs), x, how)

        with nn.intercept_methods(look):
            yield


def _chosen(since: PyTree, old: PyTree, new: PyTree, step: Int[Array, ""]) -> PyTree:
    """`new` from the step of `since` on, `old` before."""

    def one(since: float | int, old: Array, new: Array) -> Array:
        if since in (0, NEVER):
            return old if since else new
        return jnp.where(step < since, old, new)

    return jax.tree.map(one, since, old, new)


def _until(
    is_frozen: Array, norm: nn.BatchNorm, trained: Callable[[], Array], x: Array, how: Any
) -> Array:
    """A BatchNorm as in evaluation while it is frozen, and as in training from then on."""
    before = {name: norm.get_variable("batch_stats", name) for name in _STATISTICS}
    alone = norm.clone(parent=None, name=None, use_running_average=True)
    own = {"params": norm.variables.get("params", {}), "batch_stats": before}
    frozen: Any = alone.apply(own, x, **how)
    live = trained()
    if norm.is_mutable_collection("batch_stats"):
        for name, old in before.items():
            new = norm.get_variable("batch_stats", name)
            norm.put_variable("batch_stats", name, jnp.where(is_frozen, old, new))
    return jnp.where(is_frozen, frozen, live)


class _Count(NamedTuple):
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]  (as optax names it)


def freeze(
    make: Callable[[int], optax.GradientTransformation],
    freezing: Freezing,
    *,
    before: Sequence[optax.GradientTransformation] = (),
) -> optax.GradientTransformation:
    """An optimizer of what is not frozen.

    What is unfrozen at a step has an optimizer of its own that begins there: its momentum is empty, and
    Adam's correction of the bias is that of a first update.

    Args:
      make: the optimizer that begins at a step of the training, with the learning rates from there on.
      freezing: what is frozen.
      before: what sees all gradients together, as clipping does; those of what is frozen are zero.
    """

    def begins(first: int) -> optax.GradientTransformation:
        def is_trained(step: Any, **_: Any) -> Any:
            return step >= first

        return optax.conditionally_mask(make(first), is_trained)

    groups: dict[Hashable, Any] = {"trained": make(0), "frozen": optax.set_to_zero()}
    groups |= {f"from {step}": begins(step) for _, step in freezing.unfreeze}

    def label(since: float | int) -> str:
        return {0: "trained", NEVER: "frozen"}.get(since, f"from {since}")

    def labels(params: PyTree) -> PyTree:
        return jax.tree.map(label, freezing.since(params))

    return optax.chain(
        _without_gradients(freezing),
        *before,
        optax.partition(groups, labels),
        # -0.0 is the zero that changes nothing: added to -0.0 it is -0.0, where +0.0 makes +0.0.
        optax.stateless(lambda updates, _: jax.tree.map(_exactly, updates)),
    )


def _exactly(update: Array) -> Array:
    return jnp.where(update == 0, jnp.asarray(-0.0, update.dtype), update)


def _without_gradients(freezing: Freezing) -> optax.GradientTransformation:
    """Zeros what comes in for frozen parameters, whatever has added to it."""

    def update(updates, state, params=None):
        zeros = jax.tree.map(jnp.zeros_like, updates)
        kept = freezing.kept(zeros, updates, state.count)
        return kept, _Count(jnp.asarray(optax.safe_increment(state.count)))

    return optax.GradientTransformation(lambda params: _Count(jnp.zeros([], jnp.int32)), update)
