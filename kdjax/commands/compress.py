"""`kdjax compress`: a published network and a folder of pictures in, a small checked file out.

Its arguments, and what it says of itself: `kdjax.commands.words.compress`.
"""

import argparse
import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath

from kdjax import compress, config, data, files, paths, pipeline
from kdjax.commands import words
from kdjax.commands.run import carry_out, workdir_of
from kdjax.contexts import Splits
from kdjax.export.onnx_memory import PRECISE
from kdjax.files import from_json
from kdjax.load import load_config
from kdjax.types import BadInput

CONFIG, MODEL, ASKED, RUN = "config.py", "model.onnx", "compress.json", "run"
"""In the directory of the result: the config, the file, the arguments, the work directory."""

_WHY = "What was chosen, and what it follows from (kdjax/compress/rules.py):"

_NOTES = {
    "network": "the published weights, as they are",
    "teacher": "what the student learns from",
    "cache": "what the teacher says of several views of every picture, once",
    "scratch": "the same student on the labels alone: what the rest is worth",
    "shrunk": "smaller shapes, as far as the budget asks for",
}

_USE = """\
import numpy as np, onnxruntime; from PIL import Image, ImageOps
exact = onnxruntime.SessionOptions(); exact.add_session_config_entry({precise[0]!r}, {precise[1]!r})
image = {image}
(answer,) = onnxruntime.InferenceSession({file!r}, exact).run(None, {{{name!r}: np.asarray(image)[None]}})
print({shown})"""


def main(given: Sequence[str]) -> int:
    """Compresses one network.

    Returns:
      The exit status.

    Raises:
      BadInput: an argument, the weights or the pictures cannot be used.
      Busy, Diverged, StageFailed, StorageFailed: see `kdjax.pipeline.execute`.
    """
    args = words.compress().parse_args(given)
    asked = _asked(args)
    place = paths.parse(args.out, field="--out")
    out = Path(os.fspath(workdir_of(os.fspath(place), field="--out")))
    paths.check_directory(place / RUN / "stages", field="--out")
    _check_beside(out, asked.data)
    plain = {**asked._asdict(), "budget": args.budget}
    said = _before(out / ASKED, plain)
    chosen = None
    if said is None:
        chosen = compress.choose(asked, data.Kept(epath.Path(out) / RUN / "records"))
        said = {
            "asked": plain,
            "told": chosen.told,
            "most_bytes": chosen.most_bytes,
            "labels_a_class": chosen.labels_a_class,
        }
    print("\n".join(said["told"]), flush=True)
    if args.dry_run:
        run = load_config(str(out / CONFIG)) if chosen is None else chosen.parsed()
        splits, tasks = _planned(out, run)
        pipeline.check(run, tasks, splits)
        return 0
    if chosen is not None:
        _write(out, chosen.run, said)
    return _deliver(out, said, given)


def _asked(args: argparse.Namespace) -> compress.Asked:
    if not (math.isfinite(args.minutes) and args.minutes > 0):
        raise BadInput("--minutes", f"{args.minutes:g} is not above 0")
    if not 0 < args.test_share < 1:
        raise BadInput("--test_share", f"{args.test_share:g} is not between 0 and 1")
    if not 0 <= args.seed < 2**32:
        raise BadInput("--seed", f"{args.seed} is no seed", "give 0 or more")
    given = {name: value for name, value in vars(args).items() if name not in ("out", "dry_run")}
    return compress.Asked(**{**given, "budget": compress.parsed(args.budget)})


def _before(path: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """What an earlier start has chosen for the same arguments; None where there was none.

    Raises:
      BadInput: it was for other arguments.
    """
    try:
        found = from_json(path.read_text())
    except FileNotFoundError:
        _check_free(path.parent)
        return None
    except (OSError, ValueError):
        found = None
    kinds = {"asked": dict, "told": list, "most_bytes": float | int | None, "labels_a_class": float}
    if not isinstance(found, dict) or not all(
        name in found and isinstance(found[name], kind) for name, kind in kinds.items()
    ):
        raise BadInput("--out", f"{path} is not what was written", "remove it to choose anew")
    names = sorted(name for name in asked if asked[name] != found["asked"].get(name))
    if names:
        raise BadInput(
            "--out",
            f"{path.parent} was begun with another {', '.join(f'--{name}' for name in names)}",
            "give the same again to go on, or another directory",
        )
    return found


def _check_free(out: Path) -> None:
    """Raises `BadInput` where the result would be written over the files of somebody else."""
    try:
        ours = _WHY in (out / CONFIG).read_text(errors="replace")
    except OSError:
        ours = False
    for name in () if ours else (CONFIG, MODEL):
        if os.path.lexists(out / name):
            raise BadInput(
                "--out",
                f"{out / name} is there, and not from kdjax compress",
                "move it away, or name another directory",
            )


def _check_beside(out: Path, of_data: str) -> None:
    """Raises `BadInput` where the result would lie among the pictures, and be taken for some of them."""
    root = os.path.realpath(paths.parse(of_data, field="--data"))
    if os.path.isdir(root) and Path(os.path.realpath(out)).is_relative_to(root):
        raise BadInput("--out", f"{out} is inside of --data, {root}", "name a directory beside it")


def _write(out: Path, run: dict[str, Any], said: dict[str, Any]) -> None:
    """The config, then the arguments that it is of."""
    with files.storing(epath.Path(out)):
        out.mkdir(parents=True, exist_ok=True)
    text = compress.config_file(
        run,
        title=f"{run['name']}.",
        command=_command(out),
        why=[
            _WHY,
            "",
            *said["told"],
        ],
        notes=_NOTES,
    )
    files.write(epath.Path(out) / CONFIG, text.encode())
    files.write(epath.Path(out) / ASKED, json.dumps(said, indent=2).encode())


def _command(out: Path) -> str:
    return shlex.join(["kdjax", f"--config={out / CONFIG}", f"--workdir={out / RUN}"])


def _planned(out: Path, run: config.Run) -> tuple[Splits, list[pipeline.Task]]:
    workdir = epath.Path(out) / RUN
    splits = Splits(run.data, data.Kept(workdir / "records"))
    return splits, pipeline.plan(run, workdir, splits)


def _deliver(out: Path, said: dict[str, Any], given: Sequence[str]) -> int:
    """Runs the config that is there, which may have been edited, and copies the file out.

    Returns:
      The exit status: 1 where the file is over the budget.
    """
    run, workdir = load_config(str(out / CONFIG)), epath.Path(out) / RUN
    splits, tasks = _planned(out, run)
    assert splits.kept is not None
    command = shlex.join(["kdjax", "compress", *given])
    try:
        carry_out(run, run, workdir, tasks, splits, splits.kept, command=command)
    except BadInput as error:  # which only training could show
        if error.path != "config.stages.shrunk.budget":
            raise
        mend = f"give more in {out / CONFIG}, and run the same command again"
        raise BadInput(error.path, error.fault, mend) from None
    (file,) = (task.folder / "int8.onnx" for task in tasks if task.name == "file")
    shutil.copyfile(os.fspath(file), out / MODEL)
    rows = compress.rows_of((workdir / "report.json").read_text())
    budget = compress.parsed(said["asked"]["budget"])
    most_ms = budget.value if budget.kind == "ms" else None
    found = compress.result(
        rows, labels_a_class=said["labels_a_class"], most_bytes=said["most_bytes"], most_ms=most_ms
    )
    print(f"\n{out / MODEL}: {found.lines[0]}")
    print("\n".join(found.lines[1:]))
    print(f"the report: {workdir / 'report.html'}; the config: {out / CONFIG}")
    print(f"\nTo use it:\n\n{_use(out / MODEL, run, splits)}\n")
    if found.verdict:
        print(found.verdict)
    if found.over:
        print(f"kdjax: {out / MODEL} is over the budget: {found.over}", file=sys.stderr)
    return 1 if found.over else 0


def _use(file: Path, run: config.Run, splits: Splits) -> str:
    """Five lines that load the file, and ask it about a picture."""
    ((name, field),) = splits.test.fields.items()
    names = [*getattr(splits.test.target, "names", ())]
    return _USE.format(
        image=compress.opened(run.data.source, field.shape),
        file=str(file),
        name=name,
        precise=PRECISE,
        shown=f"{names}[answer[0].argmax()]" if 0 < len(names) <= 20 else "answer[0]",
    )
