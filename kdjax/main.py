"""The command line: one config to one report.

kdjax --config=configs/digits.py --workdir=DIR
kdjax --config=configs/digits.py:runlocal --workdir=DIR --config.stages.student.steps=500
kdjax --config=configs/digits.py --workdir=DIR --stages=student,scratch --dry_run
"""

import importlib.util
import os
import shlex
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import flags, logging
from etils import epath
from ml_collections import ConfigDict

from kdjax import config, parse, pipeline, report, stages, train
from kdjax.stages import Splits
from kdjax.stages.parity import StageFailed
from kdjax.train import interruption, recorder
from kdjax.types import BadInput

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "config", None, "Config file, FILE.py or FILE.py:arg,arg=value", flag_values=FLAGS
)
flags.DEFINE_string("workdir", None, "Where the run is kept; may be gs://", flag_values=FLAGS)
flags.DEFINE_list("stages", None, "Do only these stages, and what they need", flag_values=FLAGS)
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
        jax.distributed.initialize(FLAGS.coordinator_address, FLAGS.num_processes, FLAGS.process_id)

    run = load_config(FLAGS.config, overrides)
    if not run.seeds:
        raise BadInput("config.seeds: give at least one")
    for field in ("latency_batch", "latency_bulk_batch", "latency_threads"):
        if getattr(run, field) < 1:
            raise BadInput(f"config.{field}: {getattr(run, field)} is not positive")
    splits = Splits(run.data)
    workdir = epath.Path(FLAGS.workdir)
    if workdir.exists() and not workdir.is_dir():
        raise BadInput(f"--workdir: {workdir} is a file; name a directory")
    tasks = pipeline.plan(run, workdir, splits, only=FLAGS.stages)
    if FLAGS.dry_run:
        for task in tasks:
            print(f"{'done' if task.done else 'to do':<6} {task.folder.name}")
        return
    if FLAGS.replay_step is not None:
        for line in pipeline.replay(run, tasks, splits, only=FLAGS.stages, step=FLAGS.replay_step):
            print(line)
        return
    workdir.mkdir(parents=True, exist_ok=True)
    _keep_compiled(workdir)
    with interruption.watched(grace_seconds=FLAGS.grace_seconds, then_exits=True):
        pipeline.execute(run, tasks, splits)
    if jax.process_index() == 0:
        write_report(run, workdir, tasks, splits, command=shlex.join(["kdjax", *argv[1:]]))
        print(workdir / "report.html")


def write_report(
    run: config.Run,
    workdir: epath.Path,
    tasks: Sequence[pipeline.Task],
    splits: Splits,
    *,
    command: str,
) -> None:
    """`report.json` and `report.html` of the tasks that are done, one row a model over all seeds."""
    rows: dict[tuple[str, str], list[report.Row]] = defaultdict(list)
    parity: list[dict[str, Any]] = []
    curves: dict[str, list[dict[str, int | float]]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    lie: dict[str, list[dict[str, float]]] = defaultdict(list)
    for task, manifest in pipeline.manifests(tasks):
        for row in manifest.get("rows", ()):
            made = parse.parse(report.Row, row, str(task.folder))
            rows[made.stage, made.model].append(made)
        parity += [{"seed": task.seed, **entry} for entry in manifest.get("parity", ())]
        curves[task.name] += recorder.read(task.folder / "metrics.jsonl")
        seconds[task.name] += manifest["wall_seconds"]
        if "pairs" in manifest:
            lie[task.name].append(manifest["pairs"])
    train_set, test_set = splits.train, splits.test
    share = run.data.labels_share
    labels = run.data.labels_per_class if share is None else f"{100 * share:g} %"
    report.write(
        workdir,
        run={
            "name": run.name,
            "command": command,
            "seeds": list(run.seeds),
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
            "config": parse.plain(run),
        },
        rows=[report.aggregate(seeds) for seeds in rows.values()],
        curves={name: lines for name, lines in curves.items() if lines},
        parity=parity,
        shrunk=pipeline.first_said(tasks, "shrunk"),
        sensitivity=pipeline.first_said(tasks, "sensitivity"),
    )


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


def run() -> None:
    """Entry point: exit status 0 when every stage finished, 2 for bad input, 1 for a failed stage.

    143 or 130 where SIGTERM or SIGINT ended it, see `kdjax.train.interruption`.
    """
    logging.set_verbosity(logging.FATAL)  # what a library logs as an error it also raises
    if "--help" in sys.argv or "-h" in sys.argv:
        print(__doc__, FLAGS.main_module_help() or FLAGS.get_help(), sep="\n")
        return
    try:
        main(sys.argv)
    except BadInput as error:
        print(f"kdjax: {error}", file=sys.stderr)
        sys.exit(2)
    except (train.Diverged, StageFailed) as error:
        print(f"kdjax: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"kdjax: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run()
