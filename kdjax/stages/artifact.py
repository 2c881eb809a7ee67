"""What a finished stage leaves: a folder with parameters or files, and a manifest written last."""

import dataclasses
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from kdjax import fingerprint, train
from kdjax.config import Stage
from kdjax.types import PyTree, Variables

MANIFEST = "manifest.json"
VARIABLES = "variables"
EARLY = "early"


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A finished stage.

    Attributes:
      folder: where it is.
      manifest: see `finish`.
      config: of the stage.
    """

    folder: epath.Path
    manifest: Mapping[str, Any]
    config: Stage

    @classmethod
    def open(cls, folder: epath.Path, stage: Stage) -> "Artifact":
        """Reads the manifest; a folder without one is not finished."""
        return cls(folder, json.loads((folder / MANIFEST).read_text()), stage)

    def variables(self, expected: PyTree, *, name: str = VARIABLES) -> Variables:
        """The model's variables, strictly in the structure, shapes and dtypes of `expected`.

        Args:
          expected: arrays or shapes.
          name: `VARIABLES`, or `EARLY` for those that a lottery ticket goes back to.

        Raises:
          ValueError: they do not fit, or are not the ones the manifest was written for.
        """
        found = train.load_tree(self.folder / name, expected)
        if fingerprint.of_arrays(found) != self.manifest[name]:
            raise ValueError(f"{self.folder / name} is not what the manifest was written for")
        return found


@dataclasses.dataclass(frozen=True)
class Expected(Artifact):
    """What a stage will leave, said before it has run.

    Its manifest has what a later stage asks of it, as far as the configs tell; the widths of a model
    that is to be shrunk are those that it has before.

    Attributes:
      exact: the shapes are those that the stage will leave.
    """

    exact: bool = True

    def variables(self, expected: PyTree, *, name: str = VARIABLES) -> Variables:
        """Zeros, which cost nothing where they are traced."""
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), expected)


def save_variables(
    folder: epath.Path, variables: Variables, *, name: str = VARIABLES, alone: bool = False
) -> str:
    """Keeps a model's variables in an artifact's folder; returns their fingerprint.

    Args:
      folder: of the artifact.
      variables: of the model.
      name: `VARIABLES`, or `EARLY`.
      alone: of several processes the first one alone runs the stage, see `kdjax.pipeline.execute`.
    """
    train.save_tree(folder / name, variables, alone=alone)
    return fingerprint.of_arrays(variables)


def variables_bytes(folder: epath.Path) -> int:
    """Bytes on disk of what `save_variables` wrote."""
    pending, total = [folder / VARIABLES], 0
    while pending:
        for path in pending.pop().iterdir():
            if path.is_dir():
                pending.append(path)
            else:
                total += path.stat().length
    return total


def finish(folder: epath.Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest, in one move: from here on the stage is finished."""
    text = json.dumps({**manifest, "versions": versions()}, indent=1, allow_nan=False)
    beside = folder / (MANIFEST + ".tmp")
    beside.write_text(text)
    beside.replace(folder / MANIFEST)


def versions() -> dict[str, str]:
    """Of what a result depends on."""
    packages = ("kdjax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {name: _version(name) for name in packages}
    return {"python": platform.python_version(), **found, "backend": jax.default_backend()}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"  # run from a checkout
