"""The command line: one config to one report.

kdjax --config=configs/digits.py --workdir=DIR
kdjax --config=configs/digits.py:runlocal --workdir=DIR --config.stages.student.steps=500
kdjax --config=configs/digits.py --workdir=DIR --stages=student,scratch --dry_run

A first word that is a command does something else with a work directory:

kdjax verify WORKDIR      reads all that finished stages have left, and says what is not as it was
kdjax reexport WORKDIR    writes exported files again with the installed jax, from what is kept

Of several processes (--distributed) that train one model, each is given the same command. Where one of
them is lost, every other ends with one line and exit status 75 (EX_TEMPFAIL: a scheduler may begin them
all again), at the latest after --peer_timeout_seconds and a few seconds more; where not all of them
come, after --join_timeout_seconds. The same command then goes on from what is kept.
"""

import contextlib
import importlib.util
import os
import shlex
import statistics
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import flags, logging
from etils import epath
from ml_collections import ConfigDict

from kdjax import config, files, lock, parse, pipeline, reexport, report, stages, train, verify
from kdjax.stages import Splits, proof
from kdjax.stages.parity import StageFailed
from kdjax.train import pod, recorder
from kdjax.types import BadInput, StorageFailed

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "config", None, "Config file, FILE.py or FILE.py:arg,arg=value", flag_values=FLAGS
)
flags.DEFINE_string("workdir", None, "Where the run is kept; may be gs://", flag_values=FLAGS)
flags.DEFINE_list("stages", None, "Do only these stages, and what they need", flag_values=FLAGS)
flags.DEFINE_bool("dry_run", False, "Print what there is to do, and do nothing", flag_values=FLAGS)
flags.DEFINE_bool("distributed", False, "Join the other processes of a pod", flag_values=FLAGS)
flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0, where no cluster says", flag_values=FLAGS
)
flags.DEFINE_integer("num_processes", None, "With --coordinator_address", flag_values=FLAGS)
flags.DEFINE_integer("process_id", None, "With --coordinator_address", flag_values=FLAGS)
flags.DEFINE_integer(
    "join_timeout_seconds",
    pod.JOIN_SECONDS,
    f"With --distributed: exit with status {pod.LOST} where not all processes have come by then",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "peer_timeout_seconds",
    pod.PEER_SECONDS,
    "With --distributed: a process that gives no sign of life for so long is lost, and the others "
    f"exit with status {pod.LOST}",
    lower_bound=1,
    flag_values=FLAGS,
)

COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "verify": verify.main,
    "reexport": reexport.main,
}
"""What a first word may be: `arguments -> exit status`. Without one it is a run."""


def load_config(text: str, overrides: Sequence[str] = ()) -> config.Run:
    """The run of a config file, with `a.b=value` overrides.

    Args:
      text: `FILE.py` or `FILE.py:arg,arg=value`; the argument goes to the file's `get_config`.
      overrides: of fields, also of those that the file leaves at their defaults.

    Raises:
      BadInput: the file is missing or has no `get_config`, or a field is wrong.
    """
    file, _, arg = text.partition(".py:")
    path = epath.Path(file if file.endswith(".py") else f"{file}.py")
    if not path.is_file():
        raise BadInput(f"--config: {path} is not a file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As for a script, and one folder more: a config may import one that lies beside it, or above.
    before, folder = list(sys.path), path.absolute().parent
    sys.path[:0] = [os.fspath(folder), os.fspath(folder.parent)]
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    if not hasattr(module, "get_config"):
        raise BadInput(f"--config: {path} has no function get_config(arg)")
    found = module.get_config(arg or None)
    values = found.to_dict() if isinstance(found, ConfigDict) else dict(found)
    for item in overrides:
        name, _, value = item.partition("=")
        parse.override(values, name, value)
    return parse.parse(config.Run, values)


def main(argv: Sequence[str]) -> None:
    """Does what the arguments say; `argv[0]` is the program.

    Raises:
      BadInput: an argument or a field is wrong.
    """
    prefixes = ("--config.", "-config.")
    overrides = [a.partition(".")[2] for a in argv if a.startswith(prefixes)]
    for item in overrides:
        if "=" not in item:
            raise BadInput(f"--config.{item}: write --config.{item}=VALUE")
    FLAGS.unparse_flags()
    try:
        rest = FLAGS([a for a in argv if not a.startswith(prefixes)])
    except flags.Error as error:
        raise BadInput(str(error).splitlines()[0]) from None
    if len(rest) > 1:
        raise BadInput(f"unexpected argument {rest[1]!r}; flags begin with --")
    for name in ("config", "workdir"):
        if not FLAGS[name].value:
            raise BadInput(f"--{name} is missing; see kdjax --help")
    if FLAGS.distributed:
        pod.join(
            coordinator_address=FLAGS.coordinator_address,
            num_processes=FLAGS.num_processes,
            process_id=FLAGS.process_id,
            join_seconds=FLAGS.join_timeout_seconds,
            peer_seconds=FLAGS.peer_timeout_seconds,
        )
    elif FLAGS.coordinator_address or FLAGS.num_processes or FLAGS.process_id is not None:
        raise BadInput(
            "--coordinator_address, --num_processes and --process_id go with --distributed"
        )

    run = load_config(FLAGS.config, overrides)
    if not run.seeds:
        raise BadInput("config.seeds: give at least one")
    for field in ("latency_batch", "latency_bulk_batch", "latency_threads"):
        if getattr(run, field) < 1:
            raise BadInput(f"config.{field}: {getattr(run, field)} is not positive")
    splits = Splits(run.data)
    workdir = _workdir(FLAGS.workdir)
    tasks = pipeline.plan(run, workdir, splits, only=FLAGS.stages)
    if FLAGS.dry_run:
        _print_plan(tasks)
        return
    with files.storing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    _keep_compiled(workdir)
    pipeline.execute(run, tasks, splits)
    if jax.process_index() == 0:
        write_report(run, workdir, splits, command=shlex.join(["kdjax", *argv[1:]]))
        print(workdir / "report.html")


def _workdir(text: str) -> epath.Path:
    """The work directory, which may be made yet.

    Raises:
      BadInput: it can be none.
    """
    workdir = epath.Path(text)
    try:
        if workdir.is_dir():
            return workdir
        found = files.size(workdir)
    except (OSError, ValueError) as error:
        fault = files.meaning(error) or (str(error), "name another")
        raise BadInput(f"--workdir: {text!r}: {'; '.join(fault)}") from None
    if found is not None:
        raise BadInput(f"--workdir: {workdir} is a file; name a directory")
    return workdir


def _print_plan(tasks: Sequence[pipeline.Task]) -> None:
    """What is done and what there is to do.

    Raises:
      BadInput: something that is done is not whole; after the others have been printed.
    """
    wrong: BadInput | None = None
    for task in tasks:
        try:
            state = "done" if task.done else "to do"
        except BadInput as error:
            state, wrong = "damaged", wrong or error
        print(f"{state:<7} {task.folder.name}")
    if wrong is not None:
        raise wrong


def write_report(run: config.Run, workdir: epath.Path, splits: Splits, *, command: str) -> None:
    """`report.json` and `report.html` of all that is done of a config, one row a model over all seeds.

    Whatever runs have left in the work directory, in parts, by seeds or at the same time: who comes
    last writes of all of it.
    """
    with lock.held(workdir / ".report.lock", waiting=lambda other: None), files.storing(workdir):
        _write_report(run, workdir, pipeline.finished(run, workdir, splits), splits, command)


def _write_report(
    run: config.Run,
    workdir: epath.Path,
    found: pipeline.Finished,
    splits: Splits,
    command: str,
) -> None:
    rows: dict[tuple[str, str], list[report.Row]] = defaultdict(list)
    parity: list[dict[str, Any]] = []
    curves: dict[str, list[dict[str, int | float]]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    lie: dict[str, list[dict[str, float]]] = defaultdict(list)
    for task, manifest in found.manifests:
        for row in manifest.get("rows", ()):
            made = parse.parse(report.Row, row, str(task.folder))
            rows[made.stage, made.model].append(made)
        parity += [{"seed": task.seed, **entry} for entry in manifest.get("parity", ())]
        curves[task.name] += _log(task)
        seconds[task.name] += manifest["wall_seconds"]
        if "pairs" in manifest:
            lie[task.name].append(manifest["pairs"])
    for entry in found.missing:
        if entry["why"] != "not done":
            print(f"{entry['stage']} (seed {entry['seed']}): left out of the report, {entry['why']}",
                  file=sys.stderr)  # fmt: skip
    train_set, test_set = splits.train, splits.test
    share = run.data.labels_share
    labels = run.data.labels_per_class if share is None else f"{100 * share:g} %"
    report.write(
        workdir,
        run={
            "name": run.name,
            "command": command,
            "seeds": found.seeds,
            "dataset": {
                "name": run.data.name,
                "train": len(train_set),
                "test": len(test_set),
                "classes": train_set.classes,
                "labels per class": "all" if labels is None else labels,
            },
            **_features(lie),
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "versions": stages.versions(),
            "wall_seconds": {name: round(s, 1) for name, s in seconds.items()},
            "not_done": found.missing,
            "config": parse.plain(run),
        },
        rows=[report.aggregate(seeds) for seeds in rows.values()],
        curves={name: lines for name, lines in curves.items() if lines},
        parity=parity,
        shrunk=pipeline.first_said(found.manifests, "shrunk"),
        sensitivity=pipeline.first_said(found.manifests, "sensitivity"),
        twins=pipeline.twins(run),
    )


def _log(task: pipeline.Task) -> list[dict[str, int | float]]:
    try:
        return recorder.read(task.folder / "metrics.jsonl")
    except BadInput as error:  # too large a file to be hashed each time
        raise proof.Damaged(task.folder, str(error).partition(";")[0]) from None


def _features(lie: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """How the features of each encoder lie, the mean over its seeds, for the facts of a run."""
    means = {
        stage: {name: statistics.fmean(p[name] for p in pairs) for name in pairs[0]}
        for stage, pairs in lie.items()
    }
    return {"features": means} if means else {}


def _keep_compiled(workdir: epath.Path) -> None:
    """Programs are kept beside the run: a seed, or a run begun again, does not compile anew."""
    if "://" in str(workdir) or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    jax.config.update("jax_compilation_cache_dir", str(workdir.absolute() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pod.ends_with_the_others
def run() -> None:
    """Does what the command line says, and raises `SystemExit` where its status is not 0.

    0: every stage finished. 1: a stage, the storage or a check failed, or another run is at the same
    task. 2: bad input. 75: another of several processes is lost, see `kdjax.train.pod`. Each of them with
    one line; what was finished before stays so.
    """
    logging.set_verbosity(logging.FATAL)  # what a library logs as an error it also raises
    if "--help" in sys.argv or "-h" in sys.argv:
        print(__doc__, FLAGS.main_module_help() or FLAGS.get_help(), sep="\n")
        return
    command = COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    try:
        status = command(sys.argv[2:]) if command is not None else main(sys.argv)
    except BadInput as error:
        print(f"kdjax: {error}", file=sys.stderr)
        sys.exit(2)
    except (train.Diverged, StageFailed, StorageFailed, lock.Busy) as error:
        print(f"kdjax: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # nobody nearer to it has said more
        print(f"kdjax: {files.described(error, 'the storage')}", file=sys.stderr)
        sys.exit(1)
    if status:
        sys.exit(status)


def _of_a_thread(error: BaseException | None) -> bool:
    """Whether a thread of a library ended of what has a line of its own elsewhere.

    That is a fault of the storage, or that nobody waits any more for what it was writing.
    """
    if error is None:
        return False
    return files.meaning(error) is not None or str(error) == "Event loop is closed"


def _quiet_threads() -> None:
    """Threads of libraries do not print where the one line that is said is of the same fault."""

    def of_python(said: threading.ExceptHookArgs) -> None:
        if not _of_a_thread(said.exc_value):
            threading.__excepthook__(said)

    def of_others(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not _of_a_thread(error):
            sys.__excepthook__(kind, error, trace)

    threading.excepthook, sys.excepthook = of_python, of_others


def program() -> None:
    """Entry point. A failure ends at once: what threads were about to write is not waited for."""
    _quiet_threads()
    status: int | str | None = 1
    try:
        return run()
    except SystemExit as stop:
        status = stop.code
    except Exception:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status if isinstance(status, int) else 1)


if __name__ == "__main__":
    program()
