"""A run: one config to one report.

kdjax --config=configs/digits.py --workdir=DIR
kdjax --config=configs/digits.py:runlocal --workdir=DIR --config.stages.student.steps=500
kdjax --config=configs/digits.py --workdir=DIR --stages=student,scratch --dry_run
kdjax --config=configs/digits.py --workdir=DIR --seeds=3
kdjax --config=configs/digits.py --workdir=DIR --jobs=2
kdjax --fields=SGD

With --jobs=2 two processes do the stages that do not wait for each other, side by side, each with half of
the cores: small networks do not keep two cores busy, and compiling and tracing do not either. While one
of them times a model the others stand still.

An array job runs one seed each in one work directory, `--seeds=$INDEX`; after them `kdjax report DIR`, or
the same command without --seeds, writes the report of all of them. A stage with a `seed` of its own is
run once for all of them; whoever comes to it second waits.

Of several processes (--distributed) that train one model, each is given the same command. Where one of
them is lost, every other ends with one line and exit status 75 (EX_TEMPFAIL: a scheduler may start them
all again), at the latest after --peer_timeout_seconds and a few seconds more; where not all of them
come, after --join_timeout_seconds. The same command then goes on from what is kept.
"""

import contextlib
import dataclasses
import inspect
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager

import jax
from absl import flags
from etils import epath

from kdjax import alone, config, data, explain, files, parse, paths, pipeline, spelling
from kdjax.commands.flags import FLAGS
from kdjax.commands.report import write_report
from kdjax.contexts import Splits
from kdjax.load import load_config
from kdjax.train import interruption, pod
from kdjax.types import BadInput, StorageFailed

_LEAST_SECONDS = 0.0
"""A program that compiles in less time is not kept."""


def main(argv: Sequence[str]) -> int:
    """Runs a config; `argv[0]` is the program, the rest are flags.

    Returns:
      The exit status: 0, every failure is raised.

    Raises:
      BadInput: an argument or a field is wrong.
    """
    prefixes = ("--config.", "-config.")
    overrides = [a.partition(".")[2] for a in argv if a.startswith(prefixes)]
    for item in overrides:
        if "=" not in item:
            raise BadInput("", f"--config.{item}: write --config.{item}=VALUE")
    FLAGS.unparse_flags()
    try:
        rest = FLAGS([a for a in argv if not a.startswith(prefixes)])
    except flags.Error as error:
        raise BadInput("", str(error).splitlines()[0]) from None
    if len(rest) > 1:
        raise BadInput("", f"unexpected argument {rest[1]!r}", "flags begin with --")
    if FLAGS.fields is not None:
        print(fields(FLAGS.fields))
        return 0
    for name in ("config", "workdir"):
        if not FLAGS[name].value:
            raise BadInput("", f"--{name} is missing", "see kdjax --help")
    if FLAGS.distributed:
        if FLAGS.jobs > 1:
            raise BadInput("--jobs", "it does not go with --distributed", "leave one of them out")
        pod.join(
            coordinator_address=FLAGS.coordinator_address,
            num_processes=FLAGS.num_processes,
            process_id=FLAGS.process_id,
            join_seconds=FLAGS.join_timeout_seconds,
            peer_seconds=FLAGS.peer_timeout_seconds,
        )
    elif FLAGS.coordinator_address or FLAGS.num_processes or FLAGS.process_id is not None:
        raise BadInput(
            "", "--coordinator_address, --num_processes and --process_id go with --distributed"
        )

    with interruption.watched(
        grace_seconds=FLAGS.grace_seconds, then_exits=True, says=not alone.is_helper()
    ):
        _run_config(argv, overrides)
    return 0


def _run_config(argv: Sequence[str], overrides: Sequence[str]) -> None:
    run = whole = load_config(FLAGS.config, overrides)
    if FLAGS.seeds is not None:
        run = dataclasses.replace(run, seeds=seeds(FLAGS.seeds))
        whole = dataclasses.replace(run, seeds=tuple(dict.fromkeys(whole.seeds + run.seeds)))
    workdir = workdir_of(FLAGS.workdir, field="--workdir")
    kept = data.Kept(workdir / "records")
    splits = Splits(run.data, kept)
    paths.check_directory(workdir / "stages", field="--workdir")
    tasks = pipeline.plan(run, workdir, splits, only=FLAGS.stages)
    said_by_another = alone.is_helper() or jax.process_index() > 0
    for note in () if said_by_another else splits.notes:
        print(f"data: {note}", file=sys.stderr)
    if FLAGS.dry_run:
        _print_plan(tasks)
        pipeline.check(run, tasks, splits)
        return
    if FLAGS.replay_step is not None:
        for line in pipeline.replay(run, tasks, splits, only=FLAGS.stages, step=FLAGS.replay_step):
            print(line)
        return
    if alone.is_helper():
        pipeline.began()  # when the command has checked all that follows
        _keep_compiled(workdir)
        pipeline.help_out(run, tasks, splits, count=FLAGS.jobs)
        return
    command = shlex.join(["kdjax", *argv[1:]])
    if FLAGS.jobs == 1:
        carry_out(run, whole, workdir, tasks, splits, kept, command=command)
        return
    _check_jobs(workdir)
    helpers = pipeline.started(FLAGS.jobs, argv[1:])
    carry_out(run, whole, workdir, tasks, splits, kept, command=command, helpers=helpers)


def _check_jobs(workdir: epath.Path) -> None:
    """Raises BadInput where stages cannot be done side by side."""
    if (backend := jax.default_backend()) != "cpu":
        raise BadInput(
            "--jobs",
            f"processes side by side are for a CPU, and jax runs on {backend} here",
            "leave it out, or start a process for each device, with --seeds",
        )
    if not files.is_local(workdir):
        raise BadInput("--jobs", f"{workdir} is no local directory", "leave it out, or name one")


def carry_out(
    run: config.Run,
    whole: config.Run,
    workdir: epath.Path,
    tasks: Sequence[pipeline.Task],
    splits: Splits,
    kept: data.Kept,
    *,
    command: str,
    helpers: AbstractContextManager[pipeline.Workers | None] | None = None,
) -> None:
    """Does what is not done, and writes the report.

    Args:
      run: the config.
      whole: with all the seeds that the report is of.
      workdir: of the run.
      tasks: the plan.
      splits: the data.
      kept: what was found of them.
      command: that started the run.
      helpers: processes that do it side by side. They are started when what was found of the data is
        kept, and read them while all stages are checked.

    Raises:
      BadInput, Busy, Diverged, StageFailed, StorageFailed: see `kdjax.pipeline.execute`.
    """
    with files.storing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
        kept.write()
    _keep_compiled(workdir)
    with helpers or contextlib.nullcontext() as workers:
        pipeline.execute(run, tasks, splits, helpers=workers)
    if jax.process_index() == 0:
        found = write_report(whole, workdir, splits, command=command)
        print(workdir / "report.html")
        _refuse_lost(tasks, found)


def _refuse_lost(tasks: Sequence[pipeline.Task], found: pipeline.Finished) -> None:
    """Raises StorageFailed: what this run has done or found whole was gone before it ended."""
    whole = {(task.name, task.seed) for task, _ in found.manifests}
    for task in tasks:
        if (task.name, task.seed) not in whole:
            raise StorageFailed(
                f"{task.folder}: it was done, and was taken away or changed before the run ended, so "
                "that the report is without it; run the same command again"
            )


def workdir_of(text: str, *, field: str) -> epath.Path:
    """The directory that a field names, which need not exist yet.

    Raises:
      BadInput: it is a file, or cannot be a directory.
    """
    workdir = epath.Path(text)
    try:
        if workdir.is_dir():
            return workdir
        found = files.size(workdir)
    except (OSError, ValueError) as error:
        fault = files.meaning(error) or (str(error), "name another")
        raise BadInput(field, f"{text!r}: {'; '.join(fault)}") from None
    if found is not None:
        raise BadInput(field, f"{workdir} is a file", "name a directory")
    return workdir


def _print_plan(tasks: Sequence[pipeline.Task]) -> None:
    """Prints what is done and what there is to do.

    Raises:
      BadInput: something that is done is damaged; raised after all have been printed.
    """
    wrong: BadInput | None = None
    for task in tasks:
        try:
            state = "to do" if not task.done else "done" if task.is_measured else "measure"
        except BadInput as error:
            state, wrong = "damaged", wrong or error
        print(f"{state:<7} {task.folder.name}")
    if wrong is not None:
        raise wrong


def seeds(text: str) -> tuple[int, ...]:
    """The seeds of the flag, checked as `config.seeds` is.

    Raises:
      BadInput: they are not seeds.
    """
    found = parse.literal(text)
    if type(found) is int:
        found = (found,)
    return parse.parse(parse.hints(config.Run)["seeds"], found, "--seeds")


def fields(name: str) -> str:
    """Describes the fields of a part of a config with ranges and defaults; `all` for every part.

    Raises:
      BadInput: there is no such part.
    """
    known = {kind.__name__: kind for kind in explain.dataclasses_in(config.Run)}
    if name != "all" and name not in known:
        raise BadInput(
            "--fields", f"there is no {name!r}", spelling.suggestion(name, [*known, "all"])
        )
    chosen = known.values() if name == "all" else [known[name]]
    return "\n\n".join(f"{kind.__name__}: {inspect.getdoc(kind)}" for kind in chosen)


def _keep_compiled(workdir: epath.Path) -> None:
    """Keeps compiled programs in the work directory, for other seeds and for a run that is restarted.

    Small ones as well: there are hundreds. One that is incomplete, because another process is writing it
    or was killed while writing, is compiled again without a warning.
    """
    if "://" in str(workdir) or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    jax.config.update("jax_compilation_cache_dir", str(workdir.absolute() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry")
