"""The command line: one config to one report.

kdjax --config=configs/digits.py --workdir=DIR
kdjax --config=configs/digits.py:runlocal --workdir=DIR --config.stages.student.steps=500
kdjax --config=configs/digits.py --workdir=DIR --stages=student,scratch --dry_run
kdjax --config=configs/digits.py --workdir=DIR --seeds=3
kdjax --fields=SGD

An array job runs one seed each in one work directory, `--seeds=$INDEX`; the same command without
--seeds, after them, finds all of the config's seeds done and writes the report of them. A stage with a
`seed` of its own is run once for all of them; who comes to it second waits.

A first word that is a command does something else with a work directory:

kdjax verify WORKDIR      reads all that finished stages have left, and says what is not as it was
kdjax reexport WORKDIR    writes exported files again with the installed jax, from what is kept

Of several processes (--distributed) that train one model, each is given the same command. Where one of
them is lost, every other ends with one line and exit status 75 (EX_TEMPFAIL: a scheduler may begin them
all again), at the latest after --peer_timeout_seconds and a few seconds more; where not all of them
come, after --join_timeout_seconds. The same command then goes on from what is kept.
"""

import contextlib
import dataclasses
import importlib.util
import inspect
import os
import platform
import re
import shlex
import statistics
import sys
import threading
import traceback
import types
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
from absl import flags, logging
from etils import epath
from ml_collections import ConfigDict, FieldReference, FrozenConfigDict
from ml_collections.config_dict import RequiredValueError

from kdjax import (
    config,
    data,
    explain,
    files,
    lock,
    parse,
    paths,
    pipeline,
    reexport,
    report,
    stages,
    train,
    user_code,
    verify,
)
from kdjax.stages import Splits, proof
from kdjax.stages.parity import StageFailed
from kdjax.train import interruption, pod, recorder
from kdjax.types import BadInput, StorageFailed

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "config", None, "Config file, FILE.py or FILE.py:arg,arg=value", flag_values=FLAGS
)
flags.DEFINE_string(
    "workdir", None, "Where the run is kept: a local path or gs://", flag_values=FLAGS
)
flags.DEFINE_list("stages", None, "Do only these stages, and what they need", flag_values=FLAGS)
flags.DEFINE_string(
    "seeds", None, "Run these in place of the config's: 3, or 0,1,2", flag_values=FLAGS
)
flags.DEFINE_string(
    "fields",
    None,
    "Print what the fields of a part of a config take, and end: SGD; all for every part",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "traceback", False, "After a config file that fails, print where in it", flag_values=FLAGS
)
flags.DEFINE_bool("dry_run", False, "Print what there is to do, and do nothing", flag_values=FLAGS)
flags.DEFINE_integer(
    "replay_step",
    None,
    "Look at one step of the one stage of --stages: which examples and values are not finite",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "grace_seconds",
    interruption.GRACE_SECONDS,
    "How long a stop by SIGTERM or SIGINT may take: the steps under way and their checkpoint",
    lower_bound=0.0,
    flag_values=FLAGS,
)
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

_LEAST_SECONDS = 0.0
"""A program that takes less to compile is not kept."""

COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "verify": verify.main,
    "reexport": reexport.main,
}
"""What a first word may be: `arguments -> exit status`. Without one it is a run."""


class BadConfig(BadInput):
    """A config file failed as it was run; its cause is what it raised."""


def load_config(text: str, overrides: Sequence[str] = ()) -> config.Run:
    """The run of a config file, with `a.b=value` overrides.

    Args:
      text: `FILE.py` or `FILE.py:arg,arg=value`; the argument goes to the file's `get_config`.
      overrides: of fields, also of those that the file leaves at their defaults; each changes its own
        path alone, however often the file used one dict.

    Raises:
      BadConfig: the file cannot be run, or gives no config; the line names where in it.
      BadInput: there is no such file, or a field is wrong.
    """
    values = values_of(text)
    for item in overrides:
        name, _, value = item.partition("=")
        parse.override(values, name, value, config.Run)
    return parse.parse(
        config.Run, user_code.resolved(values, folder=_file_of(text).absolute().parent)
    )


def _file_of(text: str) -> epath.Path:
    """The config file, of `FILE.py:arg`."""
    file, _, _ = text.partition(".py:")
    return paths.parse(file if file.endswith(".py") else f"{file}.py", field="--config")


def values_of(text: str) -> dict[str, Any]:
    """What `get_config` of a file gives, as plain values of which no two share anything."""
    _, _, arg = text.partition(".py:")
    path = _file_of(text)
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
        get_config = getattr(module, "get_config", None)
        if not callable(get_config):
            raise BadInput(f"--config: {path} has no function get_config(arg)")
        at = _where(path, get_config)
        try:
            inspect.signature(get_config).bind(arg or None)
        except TypeError:
            raise BadInput(
                f"{at}: get_config cannot be called with one argument; write "
                "def get_config(arg=None), where arg is what stands behind FILE.py:"
            ) from None
        found = get_config(arg or None)
        if inspect.iscoroutine(found):
            found.close()  # or Python warns that nobody waited for it
        values = plain(found)
    except (BadInput, interruption.Interrupted):
        raise
    except (Exception, SystemExit) as error:
        raise BadConfig(_failed(path, error)) from error
    finally:
        sys.path[:] = before
    if not isinstance(values, dict):
        given = "None" if found is None else type(found).__name__
        raise BadInput(
            f"{at}: get_config gave {given}, not a ConfigDict or a dict; does it return what it makes?"
        )
    return values


def plain(value: Any, path: str = "config") -> Any:
    """What a config file made as dicts, lists and what is in them, each its own.

    A ConfigDict keeps one dict wherever the file used one, where a change of one would be a change of
    all.

    Raises:
      BadInput: something contains itself; the line names its path.
    """

    def own(value: Any, path: str, within: tuple[int, ...]) -> Any:
        if isinstance(value, FieldReference):
            value = value.get()
        if not isinstance(value, ConfigDict | FrozenConfigDict | Mapping | list | tuple):
            return value
        if id(value) in within:
            raise BadInput(f"{path}: contains itself")
        within = (*within, id(value))
        if isinstance(value, list | tuple):
            return [own(item, f"{path}[{i}]", within) for i, item in enumerate(value)]
        given = [name for name in value if not _is_open(value, name)]
        return {name: own(value[name], f"{path}.{name}", within) for name in given}

    return own(value, path, ())


def _is_open(value: Any, name: Any) -> bool:
    """Whether a field is a placeholder without a value: it is missing, unless an override gives it."""
    if not isinstance(value, ConfigDict | FrozenConfigDict):
        return False
    try:
        value[name]
    except RequiredValueError:
        return True
    return False


def _where(path: epath.Path, function: Any) -> str:
    """`--config: FILE.py:LINE` of a function of a config file, or of the file."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    line = f":{code.co_firstlineno}" if isinstance(code, types.CodeType) else ""
    return f"--config: {path}{line}"


def _failed(path: epath.Path, error: BaseException) -> str:
    """The line of a config file in which it failed, and with what."""
    own = os.fspath(path.absolute())
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if os.path.abspath(frame.filename) == own]
    said = " ".join(str(error).split())[:300]
    said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename is not None:
        if os.path.abspath(error.filename) == own:
            lines = [error.lineno]
        said = f"SyntaxError: {error.msg} ({error.filename}, line {error.lineno})"
    elif frames and os.path.abspath(frames[-1].filename) != own:
        said += f" ({frames[-1].filename}, line {frames[-1].lineno})"
    line = f":{lines[-1]}" if lines else ""
    return f"--config: {path}{line}: {said}; --traceback shows the whole of it"


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
    if FLAGS.fields is not None:
        print(fields(FLAGS.fields))
        return
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

    with interruption.watched(grace_seconds=FLAGS.grace_seconds, then_exits=True):
        _run_config(argv, overrides)


def _run_config(argv: Sequence[str], overrides: Sequence[str]) -> None:
    run = whole = load_config(FLAGS.config, overrides)
    if FLAGS.seeds is not None:
        run = dataclasses.replace(run, seeds=seeds(FLAGS.seeds))
        whole = dataclasses.replace(run, seeds=tuple(dict.fromkeys(whole.seeds + run.seeds)))
    workdir = _workdir(FLAGS.workdir)
    kept = data.Kept(workdir / "records")
    splits = Splits(run.data, kept)
    paths.check_directory(workdir / "stages", field="--workdir")
    tasks = pipeline.plan(run, workdir, splits, only=FLAGS.stages)
    if FLAGS.dry_run:
        _print_plan(tasks)
        pipeline.check(run, tasks, splits)
        return
    if FLAGS.replay_step is not None:
        for line in pipeline.replay(run, tasks, splits, only=FLAGS.stages, step=FLAGS.replay_step):
            print(line)
        return
    with files.storing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
        kept.write()
    _keep_compiled(workdir)
    pipeline.execute(run, tasks, splits)
    if jax.process_index() == 0:
        write_report(whole, workdir, splits, command=shlex.join(["kdjax", *argv[1:]]))
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


def seeds(text: str) -> tuple[int, ...]:
    """The seeds of the flag, held against what `config.seeds` takes.

    Raises:
      BadInput: they are no seeds.
    """
    found = parse.literal(text)
    if type(found) is int:
        found = (found,)
    return parse.parse(parse.hints(config.Run)["seeds"], found, "--seeds")


def fields(name: str) -> str:
    """What the fields of a part of a config take, with their ranges and defaults; `all` for every part.

    Raises:
      BadInput: there is no such part.
    """
    known = {kind.__name__: kind for kind in explain.dataclasses_in(config.Run)}
    if name != "all" and name not in known:
        raise BadInput(f"--fields: there is no {name!r}{parse.nearest(name, [*known, 'all'])}")
    chosen = known.values() if name == "all" else [known[name]]
    return "\n\n".join(f"{kind.__name__}: {inspect.getdoc(kind)}" for kind in chosen)


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
            "device": _device(),
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


def _device() -> str:
    """How many of what, and of a CPU what it is called and how many cores this process may use."""
    found = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    if jax.default_backend() != "cpu":
        return found
    try:
        said = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        said = ""
    model = re.search(r"^model name\s*: (.+)$", said, re.MULTILINE)
    name = model[1] if model else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{found} ({name}, {cores} cores)"


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


EIGEN = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
"""XLA:CPU runs convolutions by Eigen, not by YNNPACK, which takes 1.3 to 1.6 times as long for them."""

_MEASURED_JAXLIB = "0.10."


def _prefer_eigen() -> None:
    """Sets the flag of XLA where it was measured, and nobody has set flags; before jax starts."""
    if jaxlib.version.__version__.startswith(_MEASURED_JAXLIB):
        os.environ.setdefault("XLA_FLAGS", EIGEN)


def _keep_compiled(workdir: epath.Path) -> None:
    """Programs are kept beside the run: a seed, or a run begun again, does not compile anew.

    Small ones as well: there are hundreds. One that is not whole, since another process is writing it or
    was killed as it did, is compiled, and nothing need be said.
    """
    if "://" in str(workdir) or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    jax.config.update("jax_compilation_cache_dir", str(workdir.absolute() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry")


@pod.ends_with_the_others
def run() -> None:
    """Does what the command line says, and raises `SystemExit` where its status is not 0.

    0: every stage finished. 1: a stage, the storage or a check failed, or another run is at the same
    task. 2: bad input. 75: another of several processes is lost, see `kdjax.train.pod`. 143, 130:
    SIGTERM, SIGINT, see `kdjax.train.interruption`. Each of them with one line; what was finished before
    stays so.
    """
    logging.set_verbosity(logging.FATAL)  # what a library logs as an error it also raises
    if "--help" in sys.argv or "-h" in sys.argv:
        print(__doc__, FLAGS.main_module_help() or FLAGS.get_help(), sep="\n")
        return
    command = COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    try:
        if command is None:
            status = main(sys.argv)
        else:
            with interruption.watched(then_exits=True):
                status = command(sys.argv[2:])
    except BadInput as error:
        if isinstance(error, BadConfig) and FLAGS["traceback"].value:
            traceback.print_exception(error.__cause__)
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
    _prefer_eigen()
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
