"""Checkpoints of a run under way: whole states, with the hash of all that is in them."""

import contextlib
import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, cast

import jax
import numpy as np
from etils import epath, epy
from jax import tree_util
from jax.experimental import multihost_utils
from jaxtyping import Array

from kdjax import fingerprint, paths, tree
from kdjax.files import from_json
from kdjax.train.state import TrainState
from kdjax.train.storage import orbax_checkpointer, storing
from kdjax.types import BadFile, PyTree

with epy.lazy_imports():  # slow to import, and a plan or a refusal does without
    import orbax.checkpoint as ocp

_TRIES, _BETWEEN_SECONDS, _GONE = 30, 0.1, 5
"""Tries to remove what was not finished, the pause after each, and how many in a row find nothing."""

_ARRAYS, _RECORD, _UNFINISHED = "arrays", "record.json", ".unfinished"
_NAMED = 64
"""At most so many checkpoints are tried, the newest first."""


class _Damaged(Exception):
    """A checkpoint is not what was saved; the message says how."""


class Checkpoints:
    """The newest whole states of one run.

    A checkpoint is a folder with the arrays, as Orbax writes them, and `record.json`, written last,
    with the hash of every file, which is checked before any is parsed, and of the arrays as they were
    in memory before anything was written, which is checked after: what comes back is what was saved.
    The folder gets its name, the step, when all of it is there; one without its record is not whole.

    Saving is asynchronous: a save is finished when the next begins, or at `close`. Of several
    processes, which all hold the whole state, the first one writes and all read; they agree on which.

    Attributes:
      record: what was given to `save` beside the state that `latest` found; empty where there was none.
    """

    def __init__(self, folder: epath.PathLike, *, keep: int = 2, reads_only: bool = False):
        """Opens `folder`, which is made unless it `reads_only`.

        Raises:
          OSError: it cannot be made.
        """
        self._folder, self._keep = paths.absolute(folder), keep
        self._damaged: set[int] = set()
        self._writes = not reads_only and jax.process_index() == 0
        self._writing: threading.Thread | None = None
        self._fault: BaseException | None = None
        self.record: Mapping[str, Any] = {}
        if self._writes:
            with storing(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self.close()
        except Exception:
            if error is None:
                raise  # otherwise what came first is what is said

    def steps(self) -> list[int]:
        """Those that are there, whole or not, the oldest first."""
        if not self._folder.exists():
            return []
        names = [path.name for path in self._folder.iterdir()]
        return sorted(int(name) for name in names if re.fullmatch(r"\d+", name))

    def latest(self, state: TrainState, *, before: int | None = None) -> TrainState:
        """The newest state that is whole, laid out over devices as `state` is; `state` if there is none.

        Each newer one that is not whole is named on stderr. What a run that was killed was about to
        remove is removed.

        Args:
          state: what is expected.
          before: of the steps before this one alone.

        Raises:
          BadInput: it is whole, and of something else than `state`.
        """
        there = [s for s in self.steps() if before is None or s < before][: -_NAMED - 1 : -1]
        for i, step in enumerate(there := _of_first(there)):
            fault, arrays, record = None, {}, {}
            try:
                arrays, record = self._read(step)
            except _Damaged as error:
                fault = str(error)
            if _all_of_them(fault is None):
                found = _fitted(arrays, state, folder=self._folder / str(step))
                self.record = record
                if self._writes:
                    with storing(self._folder):
                        self._forget(step)
                return found
            self._damaged.add(step)
            then = f"the one of step {there[i + 1]}" if i + 1 < len(there) else "the start"
            if fault is not None:  # otherwise the process that cannot read it says so
                where = self._folder / str(step)
                print(f"{where}: {fault}; going on from {then}", file=sys.stderr, flush=True)
        return state

    def save(
        self, step: int, state: TrainState, *, record: Mapping[str, Any] | None = None
    ) -> None:
        """Begins to write `state`; the arrays may be donated once this returns.

        Args:
          step: its number; a checkpoint of the same step is replaced once this one is whole.
          state: equal in all processes.
          record: plain data that is kept with it, see `record`.

        Raises:
          OSError: the save before it failed.
        """
        self.wait()
        if jax.process_index() != 0:
            return
        arrays = _on_host(state)
        # Not waited for by the interpreter: a write that hangs never holds an exit up.
        self._writing = threading.Thread(
            target=self._write_or_keep_fault, args=(step, arrays, dict(record or {})), daemon=True
        )
        self._writing.start()

    def check(self) -> None:
        """Raises what a save under way has failed with, if it has."""
        if self._fault is not None:
            self.wait()

    def wait(self) -> None:
        """Waits for what is being written.

        Raises:
          OSError: it could not be; what is kept before it is whole.
        """
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault

    def wait_for_all(self) -> None:
        """As `wait`; of several processes none goes on before the first one has written."""
        self.wait()
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"written {self._folder}")

    def close(self) -> None:
        """Waits for what is being written; raises as `wait`."""
        self.wait()

    def _write_or_keep_fault(self, step: int, arrays: dict[str, np.ndarray], record: dict) -> None:
        try:
            self._write(step, arrays, record)
        except BaseException as error:
            self._fault = error

    def _write(self, step: int, arrays: dict[str, np.ndarray], record: dict) -> None:
        whole, beside = self._folder / str(step), self._folder / f"{step}{_UNFINISHED}"
        with storing(whole):
            for left in self._unfinished():
                left.rmtree()
            try:
                beside.mkdir(parents=True, exist_ok=True)
                with orbax_checkpointer(ocp.PyTreeCheckpointHandler) as checkpointer:
                    checkpointer.save(beside / _ARRAYS, args=ocp.args.PyTreeSave(arrays))
                content = {
                    "step": step,
                    "files": _hashes(beside / _ARRAYS),
                    "hash": fingerprint.of_arrays(arrays),
                    "record": record,
                }
                text = json.dumps({**content, "own_hash": fingerprint.of_json(content)})
                (beside / _RECORD).write_text(text)
            except BaseException:
                _remove(beside)  # it holds space that others may need
                raise
            if whole.exists():
                whole.rmtree()
            beside.rename(whole)
            self._damaged.discard(step)
            self._forget(step)

    def _unfinished(self) -> list[epath.Path]:
        if not self._folder.exists():
            return []
        # Orbax's own name for it, too: of runs before there was a record.
        marks = (_UNFINISHED, ".orbax-checkpoint-tmp")
        return [p for p in self._folder.iterdir() if any(mark in p.name for mark in marks)]

    def _forget(self, newest: int) -> None:
        """Removes what is too old; and what is damaged, now that something newer is whole."""
        there = self.steps()
        whole = [step for step in there if step not in self._damaged]
        kept = {*whole[-self._keep :], *(step for step in self._damaged if step > newest)}
        for step in there:
            if step not in kept:
                (self._folder / str(step)).rmtree()

    def _read(self, step: int) -> tuple[dict[str, np.ndarray], Mapping[str, Any]]:
        """Raises `_Damaged` where anything is not as it was saved."""
        folder = self._folder / str(step)
        try:
            content = from_json((folder / _RECORD).read_text())
            mark = content.pop("own_hash")
            record = content["record"]
        except FileNotFoundError:
            raise _Damaged("this checkpoint is not complete (it has no record.json)") from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise _Damaged(f"this checkpoint is damaged (its record.json: {_one(error)})") from None
        if mark != fingerprint.of_json(content) or content["step"] != step:
            raise _Damaged("this checkpoint is damaged (its record.json is not what was written)")
        try:
            files = _hashes(folder / _ARRAYS)
        except OSError as error:
            raise _Damaged(f"this checkpoint is damaged ({_one(error)})") from None
        for name in sorted(files.keys() | content["files"].keys()):
            if name not in files:
                raise _Damaged(f"this checkpoint is not complete ({_ARRAYS}/{name} is not there)")
            if files[name] != content["files"].get(name):
                raise _Damaged(f"this checkpoint is damaged ({_ARRAYS}/{name})")
        try:
            with orbax_checkpointer(ocp.PyTreeCheckpointHandler) as checkpointer:
                there = checkpointer.metadata(folder / _ARRAYS).item_metadata.tree
                args = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in there}
                restored = checkpointer.restore(
                    folder / _ARRAYS, args=ocp.args.PyTreeRestore(restore_args=args)
                )
            found = {name: np.asarray(x) for name, x in restored.items()}
        except Exception as error:  # it was written damaged: whatever the libraries make of that
            raise _Damaged(f"this checkpoint is damaged ({_one(error)})") from None
        if fingerprint.of_arrays(found) != content["hash"]:
            raise _Damaged("this checkpoint is damaged (its arrays are not those that were saved)")
        return found, record


def _remove(folder: epath.Path) -> None:
    """Removes what could not be written, as far as that can be done.

    Some of Orbax's threads may be at it still, and make the folder anew for the file that they write:
    it is gone once it has been away for half a second.
    """
    gone = 0
    for _ in range(_TRIES):
        there = folder.exists()
        with contextlib.suppress(OSError):  # a file came while others went
            folder.rmtree(missing_ok=True)
        gone = 0 if there else gone + 1
        if gone == _GONE:
            return
        time.sleep(_BETWEEN_SECONDS)


def _one(error: Exception) -> str:
    """Its first line, short."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return line if len(line) <= 200 else f"{line[:200]}..."


def _hashes(folder: epath.Path) -> dict[str, str]:
    """Of every file below `folder`, by its path in it."""
    found: dict[str, str] = {}
    pending = [(folder, "")]
    while pending:
        at, within = pending.pop()
        for path in at.iterdir() if at.exists() else ():
            if path.is_dir():
                pending.append((path, f"{within}{path.name}/"))
            else:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
                found[f"{within}{path.name}"] = digest
    return found


def _of_first(steps: list[int]) -> list[int]:
    """What the first of several processes has."""
    if jax.process_count() == 1:
        return steps
    padded = np.full(_NAMED, -1, np.int32)
    padded[: len(steps)] = steps
    told = np.asarray(multihost_utils.broadcast_one_to_all(padded))
    return [int(step) for step in told if step >= 0]


def _all_of_them(flag: bool) -> bool:
    """Whether it holds in every process."""
    if jax.process_count() == 1:
        return flag
    return bool(np.all(multihost_utils.process_allgather(np.asarray(flag))))


def _is_key(x: Any) -> bool:
    return jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)


def _on_host(state: PyTree) -> dict[str, np.ndarray]:
    """Copies of all leaves by name; keys as their words."""
    leaves = {
        name: jax.random.key_data(x) if _is_key(x) else x
        for name, x in tree.named_leaves(state).items()
    }
    for leaf in leaves.values():
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    # Of a part, an object of its own: an array that has shown its buffer cannot be donated on a CPU.
    return {
        name: np.array(x.addressable_data(0) if isinstance(x, jax.Array) else x)
        for name, x in leaves.items()
    }


def _fitted(arrays: Mapping[str, np.ndarray], state: TrainState, *, folder: epath.Path):
    """The arrays in the structure of `state`, and laid out as it is."""
    wanted = {
        name: jax.eval_shape(jax.random.key_data, x) if _is_key(x) else x
        for name, x in tree.named_leaves(state).items()
    }
    if lines := tree.differences(dict(arrays), wanted):
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise BadFile(
            folder,
            f"this checkpoint does not fit what is trained: {'; '.join(lines[:3])}{more}",
            f"was it written by another version? Remove {folder.parent} to begin the stage anew",
        )

    def placed(path: Any, like: Array) -> Array:
        x = arrays[tree_util.keystr(path, simple=True, separator="/")]
        if _is_key(like):
            return jax.random.wrap_key_data(jax.numpy.asarray(x), impl=jax.random.key_impl(like))
        if not isinstance(like, jax.Array):
            return jax.numpy.asarray(x)
        return jax.make_array_from_callback(x.shape, like.sharding, lambda index: x[index])

    return tree_util.tree_map_with_path(placed, state)
