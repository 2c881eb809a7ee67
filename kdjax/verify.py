"""`kdjax verify WORKDIR`: reads all that finished stages have left; is it what was written?

Every file by its SHA-256, models by the fingerprint of their arrays, caches by their own checksums as
well. No config is needed: the manifests say it all. One line for each folder, nothing is changed:

    whole         all of it is as it was written
    damaged       the file, what was found, what was expected, and what to do
    not finished  a stage under way, or one that was stopped: it goes on when its run is started again
    not ours      nothing that kdjax has made; in a folder that is whole, files that its manifest does
                  not know

Exit status 0 where nothing is damaged, 1 where something is, 2 where there is no work directory. That a
cache says what its teachers say is asked by `python -m kdjax.teacher.verify`.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from kdjax import files, fingerprint, lock, teacher, train
from kdjax.parse import Arguments
from kdjax.stages import proof
from kdjax.stages.artifact import CACHE, EARLY, VARIABLES
from kdjax.teacher import layout
from kdjax.types import BadInput, StorageFailed


class Verdict(NamedTuple):
    """About one folder.

    Attributes:
      state: `whole`, `damaged`, `not finished` or `not ours`.
      name: of the folder.
      said: the rest of the line.
    """

    state: str
    name: str
    said: str


def main(arguments: Sequence[str]) -> int:
    """The exit status.

    Raises:
      BadInput: there is no work directory.
    """
    parser = Arguments(
        prog="kdjax verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("workdir", help="of a run")
    workdir = epath.Path(parser.parse_args(arguments).workdir)
    counts: Counter[str] = Counter()
    for verdict in verify(workdir):
        counts[verdict.state] += 1
        print(f"{verdict.state:<12}  {verdict.name}: {verdict.said}", flush=True)
    states = ("whole", "damaged", "not finished", "not ours")
    print(", ".join(f"{counts[state]} {state}" for state in states))
    return 1 if counts["damaged"] else 0


def verify(workdir: epath.Path) -> Iterator[Verdict]:
    """A verdict about each stage of a work directory, and about what else lies among them.

    Raises:
      BadInput: there is no work directory.
    """
    folder = workdir / "stages"
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        fault, _ = files.meaning(error) or (str(error), "")
        raise BadInput(
            f"{workdir}: not a work directory of kdjax: {folder}: {fault}; name the --workdir of a run"
        ) from None
    for path in inside:
        if path.name.startswith(".") and path.name.endswith(".lock"):
            continue  # said with its folder
        try:
            yield _verdict(path)
        except (OSError, StorageFailed) as error:
            said = files.described(error, path) or str(error)
            yield Verdict("damaged", path.name, said)


def _verdict(folder: epath.Path) -> Verdict:
    parts = proof.folder_name(folder.name)
    if parts is None:
        return Verdict("not ours", folder.name, "no stage has left it; it is never read")
    try:
        manifest = proof.prove(folder, full=True)
    except proof.Damaged as error:
        return _damaged(folder, error.fault)
    except BadInput as error:
        return Verdict("damaged", folder.name, str(error))
    if manifest is None:
        return _unfinished(folder)
    if wrong := [*_misplaced(manifest, *parts), *_contents(folder, manifest)]:
        return _damaged(folder, proof.in_words(wrong))
    listed: Mapping[str, Any] = manifest["files"]
    total = sum(entry["bytes"] for entry in listed.values())
    others = [name for name in proof.foreign(folder, manifest) if not proof.is_leftover(name)]
    more = f"; not ours: {proof.in_words(others)}" if others else ""
    if proof.REPLACING in manifest:
        more += "; kdjax reexport was ended while files gave way to new ones: run it again"
    return Verdict("whole", folder.name, f"{len(listed)} files, {total:,} bytes{more}")


def _damaged(folder: epath.Path, fault: str) -> Verdict:
    stage, seed, _ = proof.folder_name(folder.name) or ("", "", "")
    return Verdict(
        "damaged",
        folder.name,
        f"stage {stage} of seed {seed}: {fault}; put a copy of it back, or delete {folder} and run the "
        "command that made it again",
    )


def _unfinished(folder: epath.Path) -> Verdict:
    if not folder.is_dir():
        said = f"a file is where the folder of a stage must be; delete {folder}"
        return Verdict("damaged", folder.name, said)
    holder = lock.holder(proof.lock_of(folder))
    said = f"{holder} is at it" if holder else "it goes on when its run is started again"
    if (folder / proof.MANIFEST).exists():
        said = "only its manifest is left; it is run again when its run is started again"
    return Verdict("not finished", folder.name, said)


def _misplaced(manifest: Mapping[str, Any], stage: str, seed: int, mark: str) -> Iterator[str]:
    """What a folder's name says and its manifest does not."""
    said = (manifest.get("stage"), manifest.get("seed"), str(manifest.get("fingerprint"))[:8])
    if said != (stage, seed, mark):
        found = f"stage {said[0]}, seed {said[1]} and fingerprint {said[2]}"
        yield f"{proof.MANIFEST} is of {found}, which is not what the folder is called"


def _contents(folder: epath.Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the arrays and the cache, though every file may be what was written."""
    for name, wanted in _models(manifest):
        try:
            found = fingerprint.of_arrays(train.load_any(folder / name))
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield f"{name} cannot be read: {(str(error).strip() or repr(error)).splitlines()[0]}"
            continue
        if found != wanted:
            yield f"{name} has the arrays of fingerprint {found}, expected {wanted}"
    if (folder / CACHE).is_dir():
        cache = teacher.Folder(folder / CACHE, owner=folder)
        try:
            layout.check_files(cache, layout.read_manifest(cache))
        except BadInput as error:
            yield str(error).removeprefix(f"teacher cache {cache}: ").partition(";")[0]


def _models(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """`(folder, fingerprint of its arrays)` of each model that a stage has left."""
    for name in (VARIABLES, EARLY):
        if name in manifest:
            yield name, manifest[name]
    for i, student in enumerate(manifest.get("sweep", {}).get("students", ())):
        yield f"student{i}/{VARIABLES}", student["variables"]
