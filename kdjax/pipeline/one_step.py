"""One step of one stage that trains, looked at again."""

from collections.abc import Sequence

import jax

from kdjax import config, stages, train
from kdjax.artifacts import Artifact
from kdjax.contexts import Context, Splits
from kdjax.pipeline.tasks import Task
from kdjax.types import BadInput


def replay(
    run: config.Run,
    tasks: Sequence[Task],
    splits: Splits,
    *,
    only: Sequence[str] | None,
    step: int,
) -> list[str]:
    """What one step of one stage does, in lines; the work directory stays as it is.

    Args:
      run: the config.
      tasks: of the run, see `plan`.
      splits: the data.
      only: the name of the stage alone; of several seeds the first is taken.
      step: to look at, the first is 1.

    Raises:
      BadInput: it is no step of a stage that trains, or what that needs is not done.
    """
    if only is None or len(only) != 1:
        raise BadInput("--replay_step", "name the stage, and it alone, with --stages=NAME")
    if jax.process_count() > 1:
        raise BadInput("--replay_step", "it is for one process", "the batch is the same there")
    task = next(task for task in tasks if task.name == only[0])
    if not isinstance(task.stage, config.Training):
        raise BadInput("--replay_step", f"config.stages.{task.name} does not train")
    if not 1 <= step <= task.stage.steps:
        raise BadInput("--replay_step", f"{step} is not a step of 1 to {task.stage.steps}")
    for other in task.needs:
        if not other.done:
            raise BadInput(
                "--replay_step",
                f"{task.name} needs {other.name} (seed {other.seed}), which is not done",
                "run the same command without --replay_step first",
            )
    inputs = {other.name: Artifact.open(other.folder, other.stage) for other in task.needs}
    parallel = train.choose(run.parallel, convolutions=run.convolutions)
    context = Context(
        run, task.name, task.seed, task.folder, inputs, splits, parallel, replay_step=step
    )
    try:
        stages.run(context, task.stage)
    except train.Replayed as found:
        return [f"{task.name} (seed {task.seed}), {found.lines[0]}", *found.lines[1:]]
    raise AssertionError(f"{task.name} trains and was not replayed")
