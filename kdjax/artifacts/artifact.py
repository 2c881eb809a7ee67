"""What a finished stage leaves: a folder with parameters or files, and a manifest written last."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from kdjax import files, fingerprint, parse, teacher, train
from kdjax.artifacts import machine, proof
from kdjax.artifacts.proof import MANIFEST
from kdjax.config import Stage
from kdjax.teacher import layout
from kdjax.types import PyTree, Variables

__all__ = [
    "CACHE",
    "EARLY",
    "MANIFEST",
    "VARIABLES",
    "Artifact",
    "finish",
    "replace",
    "restate",
    "save_variables",
    "variables_bytes",
]

CACHE = "cache"
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
        """Reads the manifest.

        Raises:
          BadInput: there is none, so that the stage is not finished, or it is not what was written.
        """
        return cls(folder, _read(folder), stage)

    @classmethod
    def alone(cls, folder: epath.Path) -> "Artifact":
        """One whose run is not at hand: the config of the stage is that of the manifest.

        Raises:
          BadInput: as `open`, or the config is not one that this version reads.
        """
        manifest = _read(folder)
        stage: Any = parse.parse(Stage, manifest.get("config"), f"{folder / MANIFEST}: config")
        return cls(folder, manifest, stage)

    def variables(self, expected: PyTree, *, name: str = VARIABLES) -> Variables:
        """The model's variables, strictly in the structure, shapes and dtypes of `expected`.

        Args:
          expected: arrays or shapes.
          name: `VARIABLES`, or `EARLY` for those that a lottery ticket goes back to.

        Raises:
          BadInput: they are not there, do not fit, cannot be read, or are not the ones that the
            manifest was written for.
        """
        if name not in self.manifest:
            raise proof.Damaged(self.folder, f"its stage has left no {name}")
        return self._restored(name, expected, mark=self.manifest[name])

    def student(self, expected: PyTree, i: int) -> Variables:
        """The variables of a student of a sweep; see `variables`."""
        mark = self.manifest["sweep"]["students"][i]["variables"]
        return self._restored(f"student{i}/{VARIABLES}", expected, mark=mark)

    def _restored(self, name: str, expected: PyTree, *, mark: str) -> Variables:
        path = self.folder / name
        if not path.is_dir():
            raise proof.Damaged(self.folder, f"{name} is missing")
        try:
            found = train.load_tree(path, expected)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            reason = reason.removeprefix(f"{path.absolute()} ")
            raise proof.Damaged(self.folder, f"{name} cannot be read: {reason}") from error
        if fingerprint.of_arrays(found) != mark:
            raise proof.Damaged(self.folder, f"{name} is not what the manifest was written for")
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
    with files.storing(folder / name):
        train.save_tree(folder / name, variables, alone=alone)
    return fingerprint.of_arrays(variables)


def variables_bytes(folder: epath.Path) -> int:
    """Bytes on disk of what `save_variables` wrote."""
    kept = folder / VARIABLES
    return sum(files.size(kept / name) or 0 for name in files.names(kept))


def _read(folder: epath.Path) -> dict[str, Any]:
    if (manifest := proof.read(folder)) is None:
        raise proof.Damaged(folder, f"{MANIFEST} is missing")
    return manifest


def finish(folder: epath.Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest, in one move: from here on the stage is finished.

    It lists every file in the folder with its size and its SHA-256, see `kdjax.artifacts.proof`, and has
    the `device` and the `versions` of this process, see `kdjax.artifacts.machine`. To write it again
    after a file has been changed on purpose, call this with what `Artifact.open` read: that says whose
    they are.

    Raises:
      StorageFailed: the files cannot be read back, or the manifest cannot be written.
      ValueError: a figure in the manifest is not finite.
    """
    with files.storing(folder):
        listed = proof.inventory(folder, known=_hashed(folder))
    here = {"device": machine.device(), "versions": machine.versions()}
    said = {**here, **manifest, "files": listed}
    files.write(folder / MANIFEST, proof.spell(said))


def restate(folder: epath.Path, manifest: Mapping[str, Any]) -> None:
    """Writes what else a finished stage says of the same files, in one move.

    Args:
      folder: of the stage.
      manifest: as `Artifact.open` read it, but for what it says otherwise. The files are listed as they
        were: one that has been damaged since stays so.

    Raises:
      StorageFailed: it cannot be written; the one before it stays.
    """
    files.write(folder / MANIFEST, proof.spell(manifest))


def replace(folder: epath.Path, manifest: Mapping[str, Any], others: epath.Path) -> None:
    """Puts other files in the place of those of a finished stage, and finishes it anew.

    Whenever this ends, and if by a kill, the stage is finished and whole: while the files give way its
    manifest takes each of them as it was and as it will be. Begun again, with these files or others, it
    comes to its end.

    Args:
      folder: of the stage.
      manifest: what it says in the end, see `finish`.
      others: a folder of the files, inside that of the stage, whose name says that it is unfinished
        (`files.PART`). It is gone in the end.

    Raises:
      StorageFailed: as `finish`, or a file cannot be moved.
    """
    with files.storing(folder):
        before = proof.read(folder)
        if before is None:
            raise proof.Damaged(folder, f"{MANIFEST} is missing")
        journal = proof.replacing(folder, before, others)
    files.write(folder / MANIFEST, proof.spell(journal))
    with files.storing(folder):
        for name in journal[proof.REPLACING]:
            (others / name).replace(folder / name)
    finish(folder, {name: said for name, said in manifest.items() if name != proof.REPLACING})


def _hashed(folder: epath.Path) -> dict[str, str]:
    """Hashes of the files of a cache, which whoever wrote it has just taken."""
    if not (folder / CACHE).is_dir():
        return {}
    manifest = layout.read_manifest(teacher.Folder(os.fspath(folder / CACHE)))
    return {f"{CACHE}/{name}": content for name, content in manifest["checksums"].items()}
