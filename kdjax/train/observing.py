"""Values of a step seen as it runs, by name: whether they are finite, and of which examples.

Nothing is computed for it, and nothing is traced, outside of `Watch.open`.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdjax import tree
from kdjax.types import PyTree


class Watch:
    """What was seen of the programs that were traced while it was open.

    `found` names what was not finite, in the order of the program, each with the ids of the examples
    where it has rows that are theirs.

    Attributes:
      ids: of the batch that is being traced.
    """

    def __init__(self):
        self.ids: Any = None
        self._names: list[str] = []
        self._found: dict[int, set[int]] = {}

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Sees every module's output, and what `see` is given."""
        global _open

        def note(call, args, kwargs, context):
            output = call(*args, **kwargs)
            if context.method_name == "__call__":
                module = context.module
                see(f"activation {'/'.join(module.path) or type(module).__name__}", output)
            return output

        before, _open = _open, self
        try:
            with nn.intercept_methods(note):
                yield
        finally:
            _open = before

    @property
    def found(self) -> dict[str, list[int]]:
        """Waits for what was begun, and gives what was not finite in it."""
        jax.effects_barrier()
        return {self._names[order]: sorted(self._found[order]) for order in sorted(self._found)}

    def see(self, name: str, x: Any) -> None:
        """Notes one array of the program that is traced."""
        if not hasattr(x, "dtype") or not jnp.issubdtype(x.dtype, jnp.inexact):
            return
        finite = jnp.isfinite(x)
        of_rows = self.ids is not None and x.ndim > 0 and x.shape[0] == self.ids.shape[0]
        rows = finite.reshape(len(x), -1).all(1) if of_rows else finite.all()
        ids = self.ids if of_rows else jnp.zeros([], jnp.uint32)
        order = len(self._names)
        self._names.append(name)
        jax.debug.callback(functools.partial(self._note, order, of_rows), rows, ids)

    def _note(self, order: int, of_rows: bool, finite: Any, ids: Any) -> None:
        wrong = ~np.asarray(finite)
        if wrong.any():
            found = self._found.setdefault(order, set())
            if of_rows:
                found.update(int(i) for i in np.asarray(ids)[wrong])


_open: Watch | None = None


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """Until this is closed nothing is noted: for what is traced twice."""
    global _open
    before, _open = _open, None
    try:
        yield
    finally:
        _open = before


def see(name: str, values: PyTree) -> None:
    """Notes each array of `values`, named after `name`, where a watch is open."""
    if _open is None:
        return
    for leaf, x in tree.named_leaves(values).items():
        _open.see(f"{name} {leaf}".strip(), x)


def with_ids(batch: Mapping[str, Any], ids: Any) -> Mapping[str, Any]:
    """`batch`, and where a watch is open the ids of its examples with it."""
    return batch if _open is None else {**batch, "id": ids}


@contextlib.contextmanager
def of_batch(batch: Mapping[str, Any]) -> Iterator[None]:
    """Until this is closed, rows as many as those of `batch` are of its examples."""
    if _open is None:
        yield
        return
    _open.ids = batch.get("id")
    try:
        see("batch", dict(batch))
        yield
    finally:
        _open.ids = None
