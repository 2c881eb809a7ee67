"""`kdjax verify WORKDIR`: is everything that finished stages left still as it was written?

Its arguments, and what it says of itself: `kdjax.commands.words.verify`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from kdjax import files, fingerprint, lock, teacher, train
from kdjax.artifacts import proof
from kdjax.artifacts.artifact import CACHE, EARLY, VARIABLES
from kdjax.commands import words
from kdjax.teacher import layout
from kdjax.teacher_targets.audit import audit
from kdjax.types import BadFile, BadInput, StorageFailed


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


def main(given: Sequence[str]) -> int:
    """Verifies a work directory, or one stage of it.

    Returns:
      The exit status.

    Raises:
      BadInput: there is no such work directory or stage, or a cache is refused.
    """
    args = words.verify().parse_args(given)
    how = {name: getattr(args, name) for name in ("samples", "seed", "tolerance", "data_dir")}
    how = {name: value for name, value in how.items() if value is not None}
    if how and not args.teachers:
        raise BadInput("", f"--{next(iter(how))} goes with --teachers")
    for name, least in (("samples", 1), ("seed", 0), ("tolerance", 0)):
        if name in how and not how[name] >= least:
            raise BadInput(f"--{name}", f"{how[name]} is not at least {least}")
    path = epath.Path(args.path)
    alone = proof.folder_name(path.name) is not None and path.parent.name == "stages"
    workdir, only = (path.parent.parent, path.name) if alone else (path, None)
    counts: Counter[str] = Counter()
    caches = []
    for verdict in verify(workdir, only=only):
        counts[verdict.state] += 1
        print(f"{verdict.state:<12}  {verdict.name}: {verdict.said}", flush=True)
        if verdict.state == "whole" and (workdir / "stages" / verdict.name / CACHE).is_dir():
            caches.append(workdir / "stages" / verdict.name)
    states = ("whole", "damaged", "not finished", "not ours")
    print(", ".join(f"{counts[state]} {state}" for state in states))
    if not args.teachers:
        return 1 if counts["damaged"] else 0
    if not caches and not counts["damaged"]:
        raise BadInput("--teachers", f"{path} has no finished teacher cache")
    within = [_asked_again(cache, **{"samples": 256, "seed": 0, **how}) for cache in caches]
    return 0 if all(within) and not counts["damaged"] else 1


def _asked_again(cache: epath.Path, **how: Any) -> bool:
    """Prints how far a cache is from its teachers; whether that is within the tolerance."""
    found = audit(cache, **how)
    within = found.difference <= found.tolerance
    print(
        f"{cache.name}: {found.samples} samples: largest difference {found.difference:.3g} (id "
        f"{found.id}, view {found.view}), {'within' if within else 'beyond'} {found.tolerance:.3g}; "
        f"the largest value is {found.largest:.3g}",
        flush=True,
    )
    return within


def verify(workdir: epath.Path, *, only: str | None = None) -> Iterator[Verdict]:
    """Yields a verdict about each stage of a work directory, and about what else lies among them.

    Args:
      workdir: of a run.
      only: the folder of the one stage to read; None for all.

    Raises:
      BadInput: there is no work directory, or no such stage.
    """
    folder = workdir / "stages"
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        fault, _ = files.meaning(error) or (str(error), "")
        raise BadFile(
            workdir,
            f"not a work directory of kdjax: {folder}: {fault}",
            "name the --workdir of a run",
        ) from None
    if only is not None:
        inside = [path for path in inside if path.name == only]
        if not inside:
            raise BadFile(folder / only, "no such stage", "name one, or the --workdir of a run")
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
        return Verdict("not ours", folder.name, "no stage wrote it; it is never read")
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
        more += "; kdjax reexport was stopped while it replaced files: run it again"
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
        said = f"a file is where the folder of a stage should be; delete {folder}"
        return Verdict("damaged", folder.name, said)
    holder = lock.holder(proof.lock_of(folder))
    said = f"{holder} is at it" if holder else "it continues when its run is started again"
    if (folder / proof.MANIFEST).exists():
        said = "only its manifest is left; it is run again when its run is started again"
    return Verdict("not finished", folder.name, said)


def _misplaced(manifest: Mapping[str, Any], stage: str, seed: int, mark: str) -> Iterator[str]:
    """Where the name of a folder and its manifest disagree."""
    said = (manifest.get("stage"), manifest.get("seed"), str(manifest.get("fingerprint"))[:8])
    if said != (stage, seed, mark):
        found = f"stage {said[0]}, seed {said[1]} and fingerprint {said[2]}"
        yield f"{proof.MANIFEST} is of {found}, unlike the name of its folder"


def _contents(folder: epath.Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Faults of the arrays and the cache, although every file may be as it was written."""
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
            yield error.fault


def _models(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """`(folder, fingerprint of its arrays)` of each model of a stage."""
    for name in (VARIABLES, EARLY):
        if name in manifest:
            yield name, manifest[name]
    for i, student in enumerate(manifest.get("sweep", {}).get("students", ())):
        yield f"student{i}/{VARIABLES}", student["variables"]
