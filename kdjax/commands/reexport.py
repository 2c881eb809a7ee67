"""`kdjax reexport WORKDIR`: writes every exported file again, with the installed jax.

Its arguments, and what it says of itself: `kdjax.commands.words.reexport`.
"""

import dataclasses
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from kdjax import config, export, files, lock, report
from kdjax.artifacts import MANIFEST, Artifact, proof, replace
from kdjax.artifacts.model import Spec, load
from kdjax.commands import words
from kdjax.config import own
from kdjax.files import from_json
from kdjax.measuring.parity import StageFailed
from kdjax.stages.export import exported, judged, runtimes_of
from kdjax.train import recorder
from kdjax.types import BadFile, BadInput

_EXAMPLES = 64
_BESIDE = f".reexport{files.PART}"

Run = Callable[[Mapping[str, np.ndarray]], Any]


def main(given: Sequence[str]) -> int:
    """The exit status; see `reexport`."""
    return reexport(words.reexport().parse_args(given).workdir)


def reexport(workdir: epath.PathLike) -> int:
    """Writes every exported file of a work directory again and brings manifests and report up to date.

    No config is needed: the models are as their manifests describe them. Each new file is held
    against the live model, and against the old file where that can still be read; only when all of a
    stage are does any take an old one's place. What fails is named, and the rest is done all the same.
    Wherever it is killed, each stage is whole, and the same command brings it to its end.

    Args:
      workdir: of a run.

    Returns:
      The exit status: 0 where all files were written, 1 where one was not and is as it was.

    Raises:
      BadInput: there is no run in that place, or it has exported nothing.
    """
    root = epath.Path(workdir)
    if not (root / "stages").is_dir():
        raise BadInput(
            "", f"reexport: {root} is no work directory of a run: it has no folder stages"
        )
    found = [folder for folder in sorted((root / "stages").iterdir()) if _is_export(folder)]
    if not found:
        raise BadInput(
            "", f"reexport: {root} has no finished export", "run a config with one first"
        )
    written = _Report.of(root)
    failed, fresh = 0, {}
    for folder in found:
        try:
            with lock.held(proof.lock_of(folder), waiting=_waiting):
                fresh.update(_again(root, Artifact.alone(folder)))
        except (BadInput, StageFailed, OSError, ValueError) as error:
            print(f"kdjax: reexport: {folder}: {str(error).splitlines()[0]}", file=sys.stderr)
            failed += 1
        finally:
            shutil.rmtree(folder / _BESIDE, ignore_errors=True)
    if fresh and written is not None:
        written.update(root, fresh)
    return 1 if failed else 0


def _waiting(holder: lock.Holder) -> None:
    print(f"kdjax: reexport: waiting for {holder}", file=sys.stderr)


def _is_export(folder: epath.Path) -> bool:
    """Raises `BadInput` where the manifest is damaged, or this version cannot read the config."""
    if proof.folder_name(folder.name) is None or (manifest := proof.read(folder)) is None:
        return False
    return manifest["config"].get("kind") == "export" and bool(Artifact.alone(folder))


def _again(root: epath.Path, artifact: Artifact) -> dict[tuple[int, str], dict[str, Any]]:
    """Writes the files of one export stage; returns what the report says of each."""
    folder, manifest = artifact.folder, dict(artifact.manifest)
    c, seed = artifact.config, manifest["seed"]
    assert isinstance(c, config.Export)
    source = proof.find(root, c.model, manifest["upstream"][c.model])
    if source is None:
        raise BadInput("", f"the model that it was made of is gone: {c.model} (seed {seed})")
    at = f"{folder / MANIFEST}: config"
    spec, variables = load(Artifact.alone(source), field=f"{at}.model")
    variables = jax.device_put(variables)
    names = tuple(manifest.get("class_names", ()))
    model = exported(spec, variables, class_names=names)
    inputs = {name: field.made_up(_EXAMPLES) for name, field in spec.inputs.fields.items()}
    live = np.asarray(spec.compiled(fast=False)(variables, inputs))
    beside = folder / _BESIDE
    shutil.rmtree(beside, ignore_errors=True)  # what a kill has left may have other names
    beside.mkdir()
    entries = []
    for (_, runtime), entry in zip(runtimes_of(c, at), manifest["parity"], strict=True):
        new = beside / entry["artifact"]
        with own.explaining((c.formats, f"{at}.formats")):
            runtime.require()
            runtime.write(model, new)
            said = _compare(c, spec, runtime, folder / new.name, new, inputs, live)
            facts = export.described(runtime, new, model)
        entries.append({**entry, **facts})
        print(f"{folder.name}/{new.name}: written again, {said}")
    replace(folder, {**manifest, "parity": entries}, beside)
    return {(seed, entry["artifact"]): entry for entry in entries}


def _load(runtime: export.Runtime, path: epath.Path, spec: Spec) -> Run:
    return judged(runtime.load(path, threads=1), spec)


def _compare(
    c: config.Export,
    spec: Spec,
    runtime: export.Runtime,
    old: epath.Path,
    new: epath.Path,
    inputs: Mapping[str, np.ndarray],
    live: np.ndarray,
) -> str:
    """How a new file compares with the live model, and with the old one if that can be read.

    Raises:
      StageFailed: it gives something else.
    """
    answers = np.asarray(_load(runtime, new, spec)(inputs))
    others = {"the live model": live}
    said = ""
    try:
        others["the old file"] = np.asarray(_load(runtime, old, spec)(inputs))
    except Exception as error:  # whatever a runtime raises for a format that it no longer reads
        said = f"; the old file cannot be read here: {str(error).splitlines()[0]}"
    rounds = any(rule.activations for rule in spec.rules.values())
    parts = []
    for name, other in others.items():
        found = spec.task.agreement(answers, other)
        apart = found.max_difference / max(float(np.abs(other).max()), 1e-30)
        parts.append(f"{apart:.1e} of the largest output from {name}")
        # With rounding, a sum in another order may round the other way: the agreement decides then.
        if not (found.agreement >= c.agreement if rounds else apart <= c.tolerance):
            raise StageFailed(
                f"{new.name}: the new file disagrees with {name}: an output differs by "
                f"{apart:.2g} of the largest one, {spec.task.agreed(found.agreement)}; "
                "the old file stays"
            )
    return ", ".join(parts) + said


@dataclasses.dataclass(frozen=True)
class _Report:
    """The report as it is."""

    data: Mapping[str, Any]
    rows: Sequence[report.Row]

    @classmethod
    def of(cls, root: epath.Path) -> "_Report | None":
        """None where there is none. Raises `BadInput` where it is not one that kdjax wrote."""
        path = root / "report.json"
        try:
            data = from_json(path.read_text())
            parts = data["run"]["wall_seconds"], data["run"]["seeds"], data["parity"], data["rows"]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadInput("", str(files.described(error, path))) from None
        except (ValueError, LookupError, TypeError):
            raise BadFile(path, "not a report of kdjax", "remove it, or put it back") from None
        rows = [report.row_of(row, f"{path}: rows") for row in parts[-1]]
        return cls(data, rows)

    def update(self, root: epath.Path, fresh: Mapping[tuple[int, str], Mapping[str, Any]]) -> None:
        """Writes it with the new facts about the files; everything else in it stays."""
        data = self.data
        parity = [
            {**entry, **fresh.get((entry.get("seed", 0), entry["artifact"]), {})}
            for entry in data["parity"]
        ]
        report.write(
            root,
            run=data["run"],
            rows=self.rows,
            curves=_curves(root, list(data["run"]["wall_seconds"]), data["run"]["seeds"]),
            parity=parity,
            shrunk=data.get("shrunk", {}),
            sensitivity=data.get("sensitivity", {}),
            twins=[(pair["student"], pair["scratch"]) for pair in data.get("over_scratch", ())],
        )


def _curves(
    root: epath.Path, names: Sequence[str], seeds: Sequence[int]
) -> dict[str, list[dict[str, int | float]]]:
    """The logs of the stages in the report, for each seed from the folder that was finished last."""
    lines: dict[str, list[dict[str, int | float]]] = {}
    for name in names:
        for seed in seeds:
            folders = [
                path.parent for path in (root / "stages").glob(f"{name}-seed{seed}-*/{MANIFEST}")
            ]
            if folders:
                last = max(folders, key=lambda folder: (folder / MANIFEST).stat().mtime)
                lines.setdefault(name, []).extend(recorder.read(last / "metrics.jsonl"))
    return {name: found for name, found in lines.items() if found}
