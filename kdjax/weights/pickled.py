"""Checkpoints of torch to safetensors: arrays only, and nothing in the file is run.

The weights in a checkpoint are found so:

* A dict of names that has tensors, and no other such dict inside, is the weights.
* Otherwise the dicts of names that have tensors are looked for inside, but not in what is of an optimizer
  or a schedule, as its key says. If there is one, it is taken; of several the one called `state_dict`,
  `model` or `model_state_dict`, if one alone is.
* Whatever else there is is refused, with what is there; `key` says which one to take.
* What all names begin with because torch had wrapped the model, `module.` and `_orig_mod.`, goes.
* Values that are no tensors (a step, a version) are left out, and said.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from kdjax import files, paths
from kdjax.types import BadFile, BadInput
from kdjax.weights import torch_files
from kdjax.weights.torch_tensors import Tensor

_MEANT = ("state_dict", "model", "model_state_dict")
_ASIDE = ("optim", "sched", "scaler")
_WRAPPERS = ("module.", "_orig_mod.")
_DEEPEST = 4
_IN_NO_FILE = ("complex128",)


class Weights(NamedTuple):
    """What was found in a checkpoint.

    Attributes:
      arrays: by name, views of the file.
      key: of the dict that they are from, `model/encoder`; empty where they are the whole.
      stripped: what all names began with.
      left_out: what else there was, by key.
    """

    arrays: Mapping[str, np.ndarray]
    key: str
    stripped: str
    left_out: Sequence[str]

    @property
    def nbytes(self) -> int:
        """Of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())


def read(path: Path, *, key: str = "", prefix: str = "") -> Weights:
    """The weights in a checkpoint of `torch.save`, of any version since 0.1.12.

    Args:
      path: of a local file.
      key: of the dict to take, with slashes between those of dicts inside each other.
      prefix: take only names that begin so, without it.

    Raises:
      BadFile: it is no such file, it is damaged, it has more than arrays, or it is not clear which of
        its dicts are the weights.
    """
    tree = torch_files.read(path)
    if not isinstance(tree, dict):
        raise BadFile(
            path, f"there is no dict of names in it, but {_what(tree)}", "save a state_dict()"
        )
    found = dict(_candidates(tree))
    taken = _taken(path, tree, found, key)
    weights = found[taken]
    named = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    left_out = [name for name in weights if name not in named]
    if taken:
        left_out += [_shown(name) for name in tree if name != taken.partition("/")[0]]
    stripped = ""
    while wrapper := next((w for w in _WRAPPERS if all(n.startswith(w) for n in named)), None):
        stripped += wrapper
        named = {name.removeprefix(wrapper): tensor for name, tensor in named.items()}
    if prefix:
        first = next(iter(named))
        named = {n.removeprefix(prefix): t for n, t in named.items() if n.startswith(prefix)}
        if not named:
            raise BadFile(
                path, f"no name in it begins with {prefix!r}", f"the first of them is {first!r}"
            )
    for name, tensor in named.items():
        _check(path, name, tensor)
    return Weights({n: t.array() for n, t in named.items()}, taken, stripped, left_out)


def convert(path: Path, out: Path, *, key: str = "", prefix: str = "") -> Weights:
    """Writes the weights in a checkpoint of `torch.save` as safetensors; see `read`.

    The metadata has the SHA-256 of the file (`source_sha256`), and `format` as transformers wants it.

    Args:
      path: of the checkpoint.
      out: the file to write, `NAME.safetensors`; it is there whole or not at all.
      key: see `read`.
      prefix: see `read`.

    Raises:
      BadFile: see `read`.
      BadInput: the name of `out` ends otherwise, its directory is not there, or it is the checkpoint.
      StorageFailed: it cannot be written.
    """
    out = Path(paths.to_write(os.fspath(out), suffix=".safetensors", field="OUT"))
    if out.exists() and path.exists() and out.samefile(path):
        raise BadInput(
            "OUT", f"{out} is the checkpoint itself", "give another name: it would be lost"
        )
    found = read(path, key=key, prefix=prefix)
    arrays = {name: np.ascontiguousarray(array) for name, array in found.arrays.items()}
    arrays = {name: array.reshape(found.arrays[name].shape) for name, array in arrays.items()}
    metadata = {"format": "pt", "source_sha256": files.sha256(path)}
    files.write(out, save(arrays, metadata=metadata))
    return found


def _candidates(
    tree: Mapping[Any, Any], path: str = "", depth: int = 0
) -> Iterator[tuple[str, Any]]:
    """Dicts of names that have tensors, each with its path."""
    names = [name for name in tree if isinstance(name, str)]
    if len(names) == len(tree) and any(isinstance(value, Tensor) for value in tree.values()):
        yield path, tree
    inside = [name for name in names if isinstance(tree[name], dict)] if depth < _DEEPEST else []
    for name in inside:
        if not any(word in name.lower() for word in _ASIDE):
            yield from _candidates(tree[name], f"{path}/{name}".lstrip("/"), depth + 1)


def _check(path: Path, name: str, tensor: Tensor) -> None:
    """Refuses what no file of safetensors has."""
    try:
        name.encode()
    except UnicodeEncodeError:
        name = ""
    if name in ("", "__metadata__"):
        raise BadFile(path, "a tensor in it has no name, or one that safetensors does not take")
    if tensor.dtype.name in _IN_NO_FILE:
        raise BadFile(
            path,
            f"{_shown(name)} is a tensor of {tensor.dtype.name}, which safetensors does not have",
        )


def _shown(name: Any) -> str:
    """A key in one line."""
    return ascii(name[:60])[1:-1] if isinstance(name, str) else f"a {type(name).__name__}"


def _taken(path: Path, tree: Mapping[Any, Any], found: Mapping[str, Any], key: str) -> str:
    """The path of the dict that is the weights."""
    if key:
        if key not in found:
            raise BadFile(
                path, f"there are no weights at {key!r}", f"there are {_listed(tree, found)}"
            )
        return key
    if len(found) == 1:
        return next(iter(found))
    meant = [at for at in found if at.rpartition("/")[2] in _MEANT]
    if len(meant) == 1:
        return meant[0]
    if not found:
        raise BadFile(
            path, f"there are no weights in it, but {_listed(tree, found)}", "save a state_dict()"
        )
    raise BadFile(
        path,
        f"several dicts in it may be the weights: {_listed(tree, found)}",
        "choose one with --key",
    )


def _listed(tree: Mapping[Any, Any], found: Mapping[str, Any]) -> str:
    """What is there, in few words."""
    if found:
        sizes = {
            at or "the whole": sum(isinstance(v, Tensor) for v in one.values())
            for at, one in found.items()
        }
        said = [f"{_shown(at)} ({n} tensors)" for at, n in sizes.items()]
    else:
        said = [f"{_shown(name)} ({_what(value)})" for name, value in tree.items()]
    more = [] if len(said) <= 6 else [f"{len(said) - 6} more"]
    return ", ".join([*said[:6], *more]) or "nothing"


def _what(value: Any) -> str:
    if isinstance(value, Tensor):
        return "a tensor"
    if isinstance(value, dict | list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a value of type {type(value).__name__}"
