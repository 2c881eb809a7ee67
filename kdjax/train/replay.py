"""One step again, alone: which examples it had, and what in it is not finite."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from kdjax import tree
from kdjax.train.observing import Watch
from kdjax.train.parallel import Parallel
from kdjax.train.recorder import worst
from kdjax.train.state import TrainState
from kdjax.types import PyTree

_SHOWN = 10


class Replayed(Exception):
    """What a step did; training ends here.

    Attributes:
      lines: what was found.
    """

    def __init__(self, lines: list[str]):
        super().__init__("\n".join(lines))
        self.lines = lines


def replay(
    state: TrainState,
    *,
    run_steps: Callable[..., tuple[TrainState, PyTree]],
    compile_anew: Callable[[], Callable[..., tuple[TrainState, PyTree]]],
    resident: PyTree,
    feeds: Callable[[int, int], Iterable[tuple[int, PyTree]]],
    key: Key[Array, ""],
    parallel: Parallel,
    step: int,
) -> Replayed:
    """Goes from `state` to `step` as `train` does, and looks at that step.

    Args:
      state: where to begin, before `step`; its buffers are donated.
      run_steps: compiled, as in `train`.
      compile_anew: makes it again, to be traced once more.
      resident: what lives on the devices.
      feeds: `(start, stop) -> (step after it, host arrays)`.
      key: of the run.
      parallel: how `run_steps` was compiled.
      step: to look at, the first is 1.
    """
    begun = int(state.step)
    for _, feed in feeds(begun, step - 1):
        state, _ = run_steps(state, resident, parallel.feed(feed), key)
    ((_, feed),) = feeds(step - 1, step)
    broken = [
        f"{part} {name}"
        for part in ("params", "opt_state", "model_state", "ema_params")
        for name, x in tree.named_leaves(getattr(state, part)).items()
        if jnp.issubdtype(x.dtype, jnp.inexact) and not np.isfinite(jax.device_get(x)).all()
    ]
    watch, copy = Watch(), jax.tree.map(jnp.copy, state)
    with watch.open():
        seen = compile_anew()(parallel.replicate(copy), resident, parallel.feed(feed), key)
        jax.block_until_ready(seen)
        found = watch.found
    metrics = jax.device_get(run_steps(state, resident, parallel.feed(feed), key)[1])
    return Replayed(_lines(step, begun, _ids(feed, resident), metrics, broken, found))


def _ids(feed: PyTree, resident: PyTree) -> list[int]:
    if "id" in feed:
        return [int(i) for i in np.asarray(feed["id"]).ravel()]
    ids = np.asarray(jax.device_get(resident["id"]))
    return [int(i) for i in ids[np.asarray(feed["row"]).ravel()]]


def _lines(
    step: int,
    begun: int,
    ids: list[int],
    metrics: dict[str, Any],
    broken: list[str],
    found: dict[str, list[int]],
) -> list[str]:
    lines = [
        f"step {step}, from {f'the checkpoint of step {begun}' if begun else 'the start'}",
        f"ids of the batch: {', '.join(map(str, ids))}",
        *(f"{name}: {float(np.asarray(values)[0]):.6g}" for name, values in metrics.items()),
    ]
    first = worst(metrics)
    if broken:
        lines.append(f"not finite before the step: {_few(broken)}")
    if not found and first is None:
        return [*lines, "every value of this step is finite"]
    if first is not None:
        lines.append(f"the term that is not finite: {first[0]}")
    first_of_program = next(iter(found.items()), None)
    if first_of_program is not None:
        name, of = first_of_program
        lines.append(f"the first value that is not finite: {name}{_of(of)}")
    for name, of in found.items():
        if name.startswith("loss/") and of:
            lines.append(f"{name.strip()} is not finite for the ids {', '.join(map(str, of))}")
    rest = [name for name in found if name.startswith("gradient")]
    if rest:
        lines.append(f"not finite: {_few(rest)}")
    return lines


def _of(ids: list[int]) -> str:
    return f", of the ids {', '.join(map(str, ids))}" if ids else ""


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
