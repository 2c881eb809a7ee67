"""Orbax on both sides of a stage: checkpoints of a run under way, and what a finished one leaves."""

from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax import ShapeDtypeStruct, tree_util
from jax.experimental import multihost_utils

from kdjax import paths, tree
from kdjax.train.state import TrainState
from kdjax.types import PyTree


class Checkpoints:
    """The newest states of one run; a half-written one is never read.

    Saving is asynchronous: a save is finished when the next begins, or at `close`.
    """

    def __init__(self, folder: epath.PathLike, *, keep: int = 2):
        """Opens `folder`, which is made when there is something to save."""
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(paths.absolute(folder), options=options)

    def latest(self, state: TrainState) -> TrainState:
        """The newest state, laid out over devices as `state` is; `state` itself when there is none."""
        step = self._manager.latest_step()
        if step is None:
            return state
        found: Any = self._manager.restore(step, args=ocp.args.StandardRestore(abstract(state)))
        return found

    def save(self, step: int, state: TrainState) -> None:
        """Begins to write `state`; the arrays may be donated once this returns."""
        self._manager.save(step, args=ocp.args.StandardSave(state))

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()


def abstract(pytree: PyTree) -> PyTree:
    """Shapes, dtypes and shardings in place of arrays."""
    return tree_util.tree_map(
        lambda x: ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None)), pytree
    )


def _alone() -> ocp.StandardCheckpointer:
    """A checkpointer that waits for no other process."""
    this = jax.process_index()
    options = ocp.options.MultiprocessingOptions(primary_host=this, active_processes={this})
    return ocp.StandardCheckpointer(multiprocessing_options=options)


def save_tree(folder: epath.PathLike, pytree: PyTree, *, alone: bool = False) -> None:
    """Writes a pytree, in place of what a run that was stopped may have left there.

    Of several processes all call it, the first one writes, and none goes on before it has; or the
    first one calls it, `alone`.
    """
    if jax.process_index() == 0:
        with _alone() as checkpointer:
            # On the host: of arrays on devices Orbax would wait for the other processes' parts.
            host = jax.device_get(pytree)
            checkpointer.save(paths.absolute(folder), host, force=True)
    if jax.process_count() > 1 and not alone:
        multihost_utils.sync_global_devices(f"saved {folder}")


def load_tree(folder: epath.PathLike, expected: PyTree) -> PyTree:
    """Reads what `save_tree` wrote, strictly.

    Args:
      folder: as given to `save_tree`.
      expected: arrays, or shapes and dtypes, in the structure that must be found.

    Raises:
      ValueError: a leaf is missing, not expected, or of another shape or dtype; the line names the
        first few.
    """
    folder = paths.absolute(folder)
    with _alone() as checkpointer:
        found = checkpointer.metadata(folder).item_metadata.tree
        if lines := tree.differences(found, expected):
            more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
            raise ValueError(f"{folder} does not fit the model: {'; '.join(lines[:3])}{more}")
        return checkpointer.restore(folder, abstract(expected))


def load_any(folder: epath.PathLike) -> PyTree:
    """Reads what `save_tree` wrote as it is there, on the host; a tree of dicts comes back as one."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(epath.Path(folder).absolute())
