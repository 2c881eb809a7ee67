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
from kdjax.types import Batch, PyTree, Variables

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
      BadInput: the batch cannot be shared evenly.
      Diverged: a loss is not finite.
    """
    parallel, field = context.parallel, f"config.stages.{context.name}.batch"
    train.check_batch(c.batch, parallel, accumulate=c.accumulate, field=field)
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
    run_steps = parallel.compile(
        train.make_run_steps(
            lambda resident, feed, key: views(data.take(resident, feed), resident, key), step
        )
    )
    checkpoints = train.Checkpoints(context.folder / "checkpoints")
    state = checkpoints.latest(parallel.replicate(state))
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

    recorder = train.Recorder(
        context.folder,
        name=f"{context.name} (seed {context.seed})",
        start=start,
        stop=c.steps,
        log_every_steps=c.log_every_steps,
    )
    try:
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
    finally:
        recorder.close()
        checkpoints.close()
    return jax.device_get(state)


def model_key(context: Context) -> Key[Array, ""]:
    """The key that a stage's own model is initialised with."""
    return keys.stream(context.key, f"{context.name}/init")
