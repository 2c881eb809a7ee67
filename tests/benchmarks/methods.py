"""What a step of each method costs, as ratios measured in one interleaved run. Prints one JSON object.

  python tests/benchmarks/methods.py --config=configs/kd/table.py --base=kd
  python tests/benchmarks/methods.py --config=configs/ssl/table.py --base=simclr

Times the steps of the stages of a config that train, as they are: views, teacher, student, loss, memory
and optimizer. What they need is made first, for the first seed. The state goes on from call to call; a
call ends when its metrics are there.
"""

import argparse
import dataclasses
import tempfile

import jax
from etils import epath
from result import ratios, show

from kdjax import config, evaluate, pipeline, stages, train
from kdjax.artifacts import Artifact
from kdjax.contexts import Context, Splits
from kdjax.load import load_config


class _Caught(Exception):
    """Ends a stage at its first step."""

    def __init__(self, *arguments):
        super().__init__()
        self.arguments = arguments


def _catching(parallel: train.Parallel) -> train.Parallel:
    """Runs no step: raises what it would be called with."""

    def compile(run_steps):
        compiled = parallel.compile(run_steps)

        def first(state, resident, feed, key):
            raise _Caught(compiled, state, resident, feed, key)

        return first

    return parallel._replace(compile=compile)


def _call(run: config.Run, task: pipeline.Task, splits: Splits):
    """A call that makes one step of a stage and waits for it."""
    inputs = {other.name: Artifact.open(other.folder, other.stage) for other in task.needs}
    task.folder.mkdir(parents=True, exist_ok=True)
    parallel = _catching(train.choose(run.parallel))
    context = Context(run, task.name, task.seed, task.folder, inputs, splits, parallel)
    try:
        stages.run(context, dataclasses.replace(task.stage, dispatch_steps=1))
    except _Caught as caught:
        compiled, state, resident, feed, key = caught.arguments
    else:
        raise SystemExit(f"{task.name} made no step")
    held = [state]

    def call():
        held[0], metrics = compiled(held[0], resident, feed, key)
        return metrics

    return call


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    parser.add_argument("--base", required=True, help="the stage that the others are held against")
    parser.add_argument("--stages", help="those to time, separated by commas; all like the base")
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--max_seconds", type=float, default=120.0)
    args = parser.parse_args()

    run = load_config(args.config)
    run = dataclasses.replace(run, seeds=run.seeds[:1])
    kind = type(run.stages.get(args.base))
    names = args.stages.split(",") if args.stages else []
    names = names or [name for name, stage in run.stages.items() if type(stage) is kind]
    trained = {
        name: stage
        for name, stage in run.stages.items()
        if name in names and isinstance(stage, config.Training)
    }
    if missing := {args.base, *names} - trained.keys():
        raise SystemExit(f"{', '.join(sorted(missing))}: no stage of {args.config} that trains")
    with tempfile.TemporaryDirectory() as folder:
        splits = Splits(run.data)
        tasks = pipeline.plan(run, epath.Path(folder), splits, only=names)
        timed = {task.name: task for task in tasks if task.name in trained}
        needed = {other.name for task in timed.values() for other in task.needs}
        before = pipeline.plan(run, epath.Path(folder), splits, only=sorted(needed))
        pipeline.execute(run, before, splits)
        calls = {name: _call(run, task, splits) for name, task in timed.items()}
        times = evaluate.interleaved(
            calls, warmup=3, repeats=args.repeats, max_seconds=args.max_seconds
        )
    batch = {name: stage.batch for name, stage in trained.items()}
    show({"batch": batch, "devices": jax.device_count(), "step": ratios(times, args.base)})


if __name__ == "__main__":
    main()
