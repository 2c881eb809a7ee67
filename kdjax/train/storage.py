"""Trees of arrays on disk, as Orbax writes them: what a finished run leaves, read strictly or as is."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath, epy
from jax import ShapeDtypeStruct, tree_util
from jax.experimental import multihost_utils

from kdjax import paths, tree
from kdjax.types import PyTree

with epy.lazy_imports():  # slow to import, and a plan or a refusal does without
    import orbax.checkpoint as ocp


@contextlib.contextmanager
def storing(path: epath.PathLike) -> Iterator[None]:
    """An `OSError` with `path`, of whatever a write of Orbax ends with where the storage fails."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error
        raise
    except ValueError as error:  # how TensorStore says it
        if (found := re.search(r"os_error_code='(\d+)'", str(error))) is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), os.fspath(path)) from None


def _abstract(pytree: PyTree) -> PyTree:
    """Shapes, dtypes and shardings in place of arrays."""
    return tree_util.tree_map(
        lambda x: ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None)), pytree
    )


def orbax_checkpointer(handler: Any) -> "ocp.Checkpointer":
    """A checkpointer that waits for no other process, and leaves no thread where it fails."""
    this = jax.process_index()
    options = ocp.options.MultiprocessingOptions(primary_host=this, active_processes={this})
    return ocp.Checkpointer(
        handler(multiprocessing_options=options), multiprocessing_options=options
    )


def save_tree(folder: epath.PathLike, pytree: PyTree, *, alone: bool = False) -> None:
    """Writes a pytree, in place of what a run that was stopped may have left there.

    Of several processes all call it, the first one writes, and none goes on before it has; or the
    first one calls it, `alone`.

    Raises:
      OSError: it cannot be written.
    """
    folder = paths.absolute(folder)
    if jax.process_index() == 0:
        with storing(folder), orbax_checkpointer(ocp.StandardCheckpointHandler) as checkpointer:
            # On the host: of arrays on devices Orbax would wait for the other processes' parts.
            host = jax.device_get(pytree)
            checkpointer.save(folder, args=ocp.args.StandardSave(host), force=True)
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
    with orbax_checkpointer(ocp.StandardCheckpointHandler) as checkpointer:
        found = checkpointer.metadata(folder).item_metadata.tree
        if lines := tree.differences(found, expected):
            more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
            raise ValueError(f"{folder} does not fit the model: {'; '.join(lines[:3])}{more}")
        return checkpointer.restore(folder, args=ocp.args.StandardRestore(_abstract(expected)))


def load_any(folder: epath.PathLike) -> PyTree:
    """Reads what `save_tree` wrote as it is there, on the host; a tree of dicts comes back as one."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(paths.absolute(folder))
