"""Training as every stage does it: feed, views on the device, the step, the loop."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
import optax
from jaxtyping import Array, Key

from kdjax import config, data, keys, train
from kdjax.data import Dataset
from kdjax.data.feed import Join
from kdjax.stages.artifact import EARLY, save_variables
from kdjax.stages.context import Context
from kdjax.train import interruption, observing
from kdjax.types import BadInput, Batch, PyTree, Variables

Views = Callable[[dict[str, Array], PyTree, Key[Array, ""]], Batch]
"""`(batch with raw images, resident, key of the run) -> what the objective sees`."""


def fit(
    context: Context,
    c: config.Training,
    *,
    variables: Variables,
    objective: train.Objective | train.Sweep,
    tx: optax.GradientTransformation,
    dataset: Dataset,
    views: Views,
    resident: Mapping[str, PyTree] | None = None,
    join: Join | None = None,
    partner_rows: Callable[..., np.ndarray] | None = None,
    ema: float | optax.Schedule | None = None,
) -> train.TrainState:
    """Trains to `c.steps`, from the newest checkpoint if there is one.

    The state of a sweep holds all its students, see `kdjax.train.student`.

    Args:
      context: of the stage.
      c: its config; the parameters of its `rewind_step` are kept in the stage's folder.
      variables: to begin with.
      objective: see `kdjax.train.weigh`; or a sweep of several.
      tx: the optax chain.
      dataset: that is read; every epoch sees each example once.
      views: what is done to a batch on the device, before the step.
      resident: more trees that live on the device, such as a live teacher's variables.
      join: more arrays that come with each batch, `(rows, epochs) -> arrays`.
      partner_rows: the examples that those of a batch are mixed with, see `data.join_partners`.
      ema: decay of the target network of a method that has one, in place of `c.ema`.

    Raises:
      BadInput: a count is not positive, or the batch cannot be shared evenly.
      Diverged: a loss is not finite.
      Interrupted: a signal asked for it, and the state is saved.
      OSError: what is written on the way cannot be.
      Replayed: `context.replay_step` was asked for; nothing is written.
    """
    path = f"config.stages.{context.name}"
    if c.rewind_step is not None and not 0 <= c.rewind_step < c.steps:
        raise BadInput(
            f"{path}.rewind_step: {c.rewind_step} is not in [0, steps), and steps is {c.steps}"
        )
    for field in ("steps", "batch", "accumulate", "checkpoint_every_steps", "log_every_steps"):
        if getattr(c, field) < 1:
            raise BadInput(f"{path}.{field}: {getattr(c, field)} is not positive")
    parallel = context.parallel
    train.check_batch(c.batch, parallel, accumulate=c.accumulate, field=f"{path}.batch")
    ema = c.ema if ema is None else ema
    dispatch_steps = c.dispatch_steps or (1 if jax.default_backend() == "cpu" else 25)

    def make_step(objective: train.Objective) -> train.TrainStep:
        return train.make_train_step(
            objective, tx, ema=ema, accumulate=c.accumulate, axis_name=parallel.axis_name
        )

    if isinstance(objective, train.Sweep):
        step = train.make_sweep_step(objective, make_step)
        state = train.start_sweep(variables, tx, students=objective.students, ema=ema is not None)
    else:
        step = make_step(objective)
        state = train.TrainState.start(variables, tx, ema=ema is not None)

    def compiled() -> Callable[..., tuple[train.TrainState, PyTree]]:
        def batch(resident, feed, key):
            taken = data.take(resident, feed)
            return observing.with_ids(views(taken, resident, key), taken["id"])

        return parallel.compile(train.make_run_steps(batch, step))

    run_steps = compiled()
    replayed = context.replay_step
    checkpoints = train.Checkpoints(context.folder / "checkpoints", reads_only=replayed is not None)
    state = checkpoints.latest(parallel.replicate(state), before=replayed)
    start = int(state.step)

    where = {
        "seed": context.seed,
        "batch": c.batch,
        "share": train.rows_of_process(c.batch),
        "dispatch_steps": dispatch_steps,
    }
    lives, is_resident = dict(resident or {}), context.splits.is_resident(dataset)
    joins = [] if join is None else [join]
    if partner_rows is not None:
        joins.append(data.join_partners(dataset, partner_rows, resident=is_resident))

    def joined(rows: np.ndarray, epochs: np.ndarray) -> dict[str, np.ndarray]:
        return {name: x for join in joins for name, x in join(rows, epochs).items()}

    if is_resident:
        lives |= data.resident_arrays(dataset)
    lives = parallel.replicate(lives)

    def feeds(start: int, stop: int):
        if is_resident:
            return data.resident_feeds(len(dataset), join=joined, start=start, stop=stop, **where)
        return data.stream_feeds(dataset, join=joined, start=start, stop=stop, **where)

    if replayed is not None:
        raise train.replay(
            state,
            run_steps=run_steps,
            compile_anew=compiled,
            resident=lives,
            feeds=feeds,
            key=parallel.replicate(context.key),
            parallel=parallel,
            step=replayed,
        )
    recorder = train.Recorder(
        context.folder,
        name=f"{context.name} (seed {context.seed})",
        start=start,
        stop=c.steps,
        log_every_steps=c.log_every_steps,
        kept=checkpoints.record,
    )
    try:
        with interruption.scope(), checkpoints, recorder:
            for stop in sorted({c.steps} if c.rewind_step is None else {c.rewind_step, c.steps}):
                if stop < start:
                    continue  # kept before the checkpoint was written
                state = train.train(
                    state,
                    run_steps=run_steps,
                    resident=lives,
                    feeds=feeds(int(state.step), stop),
                    key=parallel.replicate(context.key),
                    parallel=parallel,
                    recorder=recorder,
                    checkpoints=checkpoints,
                    checkpoint_every_steps=c.checkpoint_every_steps,
                    stop=c.steps,
                )
                if stop == c.rewind_step:
                    save_variables(context.folder, jax.device_get(state.variables), name=EARLY)
    except train.Diverged as error:
        raise _explained(error, context, checkpoints) from None
    return jax.device_get(state)


def _explained(
    error: train.Diverged, context: Context, checkpoints: train.Checkpoints
) -> train.Diverged:
    """With what is kept, and how to look at the batch."""
    kept = [step for step in checkpoints.steps() if step < error.step]
    there = f"the checkpoint of step {kept[-1]} is kept" if kept else "no checkpoint is before it"
    return train.Diverged(
        f"config.stages.{context.name}: {error}; {there}. To see what its batch does: the same command "
        f"with --stages={context.name} --config.seeds={context.seed}, --replay_step={error.step}. A "
        "changed config, such as a lower learning rate, begins this stage anew",
        step=error.step,
    )


def model_key(context: Context) -> Key[Array, ""]:
    """The key that a stage's own model is initialised with."""
    return keys.stream(context.key, f"{context.name}/init")
