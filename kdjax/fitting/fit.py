"""Training as every stage does it: feed, views on the device, the step, the loop."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from kdjax import config, data, keys, prune, train, tree, user_code
from kdjax.artifacts.artifact import EARLY, save_variables
from kdjax.checks import coupling
from kdjax.contexts.context import Context
from kdjax.data import Dataset
from kdjax.data.feed import Join
from kdjax.train import interruption, observing
from kdjax.types import BadInput, Batch, PyTree, Variables, under

Views = Callable[[dict[str, Any], PyTree, Key[Array, ""]], Batch]
"""`(batch with raw inputs, resident, key of the run) -> what the objective sees`."""

STATISTICS_EXAMPLES = 4096
"""How many the statistics of averaged parameters are found on, at most: in batches of training."""


class Setup(NamedTuple):
    """What a stage trains.

    Attributes:
      variables: to begin with.
      objective: see `kdjax.train.weigh`; or a sweep of several.
      tx: the optax chain.
      dataset: that is read; every epoch sees each example once.
      views: what is done to a batch on the device, before the step.
      resident: more trees that live on the device, such as a live teacher's variables.
      join: more arrays that come with each batch, `(rows, epochs) -> arrays`.
      partner_rows: the examples that those of a batch are mixed with, see `data.join_partners`.
      ema: decay of the target network of a method that has one, in place of the config's.
    """

    variables: Variables
    objective: train.Objective | train.Sweep
    tx: optax.GradientTransformation
    dataset: Dataset
    views: Views
    resident: Mapping[str, PyTree] | None = None
    join: Join | None = None
    partner_rows: Callable[..., np.ndarray] | None = None
    ema: float | optax.Schedule | None = None


def check_training(context: Context, c: config.Training) -> None:
    """What can be said of a training by its config alone.

    Raises:
      BadInput: the batch cannot be shared evenly.
    """
    field = f"{context.path}.batch"
    train.check_batch(c.batch, context.parallel, accumulate=c.accumulate, field=field)


Left = TypeVar("Left")


def rehearse(
    context: Context,
    c: config.Training,
    prepare: Callable[[Context], tuple[Left, Setup]],
    *,
    views_path: str,
    exact: bool = True,
) -> tuple[Left, dict[str, Any]]:
    """Goes through a training without an array: what one of its steps refuses is refused here.

    Everything is traced and nothing compiled: the model's first variables, the optimizer, the views
    and the loss of one part of a batch, as one device would see it.

    Args:
      context: of the stage, `ahead`.
      c: its config.
      prepare: makes the setup of a context.
      views_path: of the config of the views, for messages.
      exact: whether the shapes of what the stage begins with are known; where they are not, only what the
        user's terms refuse of the whole model is refused.

    Returns:
      What `prepare` gives beside the setup, and what the manifest will say of pruning.

    Raises:
      BadInput: the training cannot be carried out.
    """
    check_training(context, c)
    # One device sees in a batch what several gather from all.
    alone = dataclasses.replace(context, parallel=context.parallel._replace(axis_name=None))
    found: list[tuple[Left, dict[str, Any]]] = []

    def step() -> Any:
        with under(context.path):
            left, setup = prepare(alone)
            average = c.ema is not None or setup.ema is not None
            state = train.TrainState.start(setup.variables, setup.tx, ema=average)
            held = prune.find_masks(state.opt_state)
            masked = {} if held is None else {"masked": [*tree.named_leaves(held)]}
        found.append((left, masked))
        if not exact and not c.terms:
            return jnp.zeros(())
        batch = _blank(context, setup, c.batch // c.accumulate)
        with under(views_path):
            seen = setup.views(batch, setup.resident or {}, context.key)
        objective = setup.objective
        if isinstance(objective, train.Sweep):
            first = {name: jnp.asarray(values[0]) for name, values in objective.settings.items()}
            objective = objective.objective(first)
        with under(context.path):
            objective = _held(coupling.watched(objective, c, path=context.path), c)
            try:
                return objective(state.params, state, seen, context.key)[0]
            except Exception as error:  # of a model of other shapes only the user's terms count
                if exact or _is_of_terms(error):
                    raise
                return jnp.zeros(())

    jax.eval_shape(step)
    return found[0]


def _is_of_terms(error: Exception) -> bool:
    """Whether it is a fault of a term of the user's, whatever the shapes of the model."""
    if isinstance(error, BadInput):
        return ".terms." in f".{error.path}"
    return user_code.place(error) is not None


def _blank(context: Context, setup: Setup, rows: int) -> dict[str, Any]:
    """A batch as the feed brings one, see `data.take`."""
    fields, target = setup.dataset.fields.items(), setup.dataset.target
    batch: dict[str, Any] = {
        "id": jnp.zeros(rows, jnp.uint32),
        "inputs": {name: jnp.zeros((rows, *f.shape), f.dtype) for name, f in fields},
        "label": jnp.zeros((rows, *target.shape), target.dtype),
        "epoch": jnp.zeros(rows, jnp.uint32),
    }
    if setup.partner_rows is not None:
        if context.splits.buckets:
            raise BadInput(
                "config.data.buckets",
                "views that mix an example with another take batches of one length, and those of "
                f"{context.path} are such",
                "leave one of them out",
            )
        batch |= {f"partner_{name}": batch[name] for name in ("id", "inputs", "label")}
    if setup.join is not None:
        places = np.zeros(rows, np.int64)
        more = setup.join(places, places.astype(np.uint32))
        batch |= {name: jnp.asarray(x) for name, x in more.items()}
    return batch


def fit(context: Context, c: config.Training, setup: Setup) -> train.TrainState:
    """Trains to `c.steps`, from the newest checkpoint if there is one.

    The statistics of an average (`c.ema`) are found anew on the first batches of the stage.

    The state of a sweep holds all its students, see `kdjax.train.student`.

    Args:
      context: of the stage.
      c: its config; the parameters of its `rewind_step` are kept in the stage's folder.
      setup: what is trained.

    Raises:
      BadInput: the batch cannot be shared evenly, or is too small for a BatchNorm.
      Diverged: a loss is not finite.
      Interrupted: a signal asked for it, and the state is saved.
      OSError: what is written on the way cannot be.
      Replayed: `context.replay_step` was asked for; nothing is written.
    """
    check_training(context, c)
    return _Fitting(context, c, setup).trained()


class _Fitting:
    """One training: what is compiled for it, what it is fed, and what it leaves."""

    def __init__(self, context: Context, c: config.Training, setup: Setup):
        self._context, self._c, self._setup = context, c, setup
        self._parallel = context.parallel
        self._averaged = setup.ema is None and c.ema is not None
        self._ema = c.ema if setup.ema is None else setup.ema
        self._is_resident = context.splits.is_resident(setup.dataset)
        lives = dict(setup.resident or {})
        if self._is_resident:
            lives |= data.resident_arrays(setup.dataset)
        self._lives = self._parallel.replicate(lives)
        self._key = self._parallel.replicate(context.key)

    def trained(self) -> train.TrainState:
        """The state at the end, on the host."""
        context, c, parallel = self._context, self._c, self._parallel
        fresh, step = self._start(), self._step()
        run_steps, replayed = self._compiled(step), context.replay_step
        checkpoints = train.Checkpoints(
            context.folder / "checkpoints", reads_only=replayed is not None
        )
        state = checkpoints.latest(parallel.replicate(fresh), before=replayed)
        if replayed is not None:
            raise train.replay(
                state,
                run_steps=run_steps,
                compile_anew=lambda: self._compiled(step),
                resident=self._lives,
                feeds=self._feeds,
                key=self._key,
                parallel=parallel,
                step=replayed,
            )
        start = int(state.step)
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
                for stop in sorted(
                    {c.steps} if c.rewind_step is None else {c.rewind_step, c.steps}
                ):
                    if stop < start:
                        continue  # kept before the checkpoint was written
                    state = train.train(
                        state,
                        run_steps=run_steps,
                        resident=self._lives,
                        feeds=self._feeds(int(state.step), stop),
                        key=self._key,
                        parallel=parallel,
                        recorder=recorder,
                        checkpoints=checkpoints,
                        checkpoint_every_steps=c.checkpoint_every_steps,
                        stop=c.steps,
                    )
                    if stop == c.rewind_step:
                        save_variables(context.folder, self._left(state).variables, name=EARLY)
        except train.Diverged as error:
            raise _explained(error, context, checkpoints) from None
        return self._left(state)

    def _start(self) -> train.TrainState:
        objective, variables, tx = self._setup.objective, self._setup.variables, self._setup.tx
        ema = self._ema is not None
        if isinstance(objective, train.Sweep):
            return train.start_sweep(variables, tx, students=objective.students, ema=ema)
        return train.TrainState.start(variables, tx, ema=ema)

    def _step(self) -> train.TrainStep:
        """The update of one step, of a sweep all of its students'."""
        c, context = self._c, self._context

        def one(objective: train.Objective) -> train.TrainStep:
            return train.make_train_step(
                coupling.watched(objective, c, path=context.path),
                self._setup.tx,
                ema=self._ema,
                debiased=self._averaged,
                accumulate=c.accumulate,
                freezing=c.optimizer.freezing,
                axis_name=self._parallel.axis_name,
            )

        return self._of_each(one)

    def _reading(self) -> train.TrainStep:
        """Likewise a step that updates nothing, see `kdjax.train.make_reading_step`."""
        c = self._c
        return self._of_each(
            lambda one: train.make_reading_step(_held(one, c), accumulate=c.accumulate)
        )

    def _of_each(self, make: Callable[[train.Objective], train.TrainStep]) -> train.TrainStep:
        objective = self._setup.objective
        if isinstance(objective, train.Sweep):
            return train.make_sweep_step(objective, make)
        return make(objective)

    def _compiled(self, step: train.TrainStep) -> Callable[..., tuple[train.TrainState, PyTree]]:
        def batch(resident, feed, key):
            taken = data.take(resident, feed)
            return observing.with_ids(self._setup.views(taken, resident, key), taken["id"])

        shapes = [field.shape for field in self._setup.dataset.fields.values()]
        shown = self._c.steps * self._c.batch * sum(map(math.prod, shapes))
        return self._parallel.compile(train.make_run_steps(batch, step), brief=shown < train.BRIEF)

    def _feeds(self, start: int, stop: int) -> Iterator[tuple[int, PyTree]]:
        """The batches of these steps; see `kdjax.data.feed`."""
        context, c, dataset = self._context, self._c, self._setup.dataset
        buckets, partner_rows = context.splits.buckets, self._setup.partner_rows
        joins = [] if self._setup.join is None else [self._setup.join]
        if partner_rows is not None:
            joins.append(data.join_partners(dataset, partner_rows, resident=self._is_resident))
        # Steps that are dispatched together have one length.
        alone = jax.default_backend() == "cpu" or bool(buckets)
        where = {
            "seed": context.seed,
            "batch": c.batch,
            "share": train.rows_of_process(c.batch),
            "dispatch_steps": c.dispatch_steps or (1 if alone else 25),
            "join": lambda rows, epochs: {
                name: x for join in joins for name, x in join(rows, epochs).items()
            },
        }
        if self._is_resident:
            return data.resident_feeds(len(dataset), start=start, stop=stop, **where)
        return data.stream_feeds(dataset, start=start, stop=stop, buckets=buckets, **where)

    def _left(self, state: train.TrainState) -> train.TrainState:
        """The state on the host; an average has statistics of its own, see `make_reading_step`."""
        host = jax.device_get(state)
        if not (self._averaged and "batch_stats" in host.model_state):
            return host
        c, read, objective = self._c, [], self._setup.objective
        batches = min(-(-STATISTICS_EXAMPLES * c.accumulate // c.batch), c.steps)
        run = self._compiled(self._reading())
        state = self._parallel.replicate(host)
        for _, feed in self._feeds(0, batches):
            state, metrics = run(state, self._lives, self._parallel.feed(feed), self._key)
            metrics = jax.device_get(metrics)
            for i in range(len(metrics["loss"])):
                read.append(jax.tree.map(lambda x, i=i: np.asarray(x[i]), metrics))
        rows = c.batch // c.accumulate
        if not isinstance(objective, train.Sweep):
            readings = [(rows, train.readings_of(metrics)) for metrics in read]
            return dataclasses.replace(
                host, model_state=train.with_statistics(host.model_state, readings)
            )
        each = [
            train.with_statistics(
                train.student(host, i).model_state,
                [(rows, train.readings_of(metrics, i)) for metrics in read],
            )
            for i in range(objective.students)
        ]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
        return dataclasses.replace(host, model_state=stacked)


def _held(objective: train.Objective, c: config.Training) -> train.Objective:
    """The objective, with what the optimizer freezes."""
    freezing = c.optimizer.freezing
    return objective if freezing is None else freezing.of(objective)


def _explained(
    error: train.Diverged, context: Context, checkpoints: train.Checkpoints
) -> train.Diverged:
    """With what is kept, and how to look at the batch."""
    kept = [step for step in checkpoints.steps() if step < error.step]
    there = f"the checkpoint of step {kept[-1]} is kept" if kept else "no checkpoint is before it"
    return train.Diverged(
        f"config.stages.{context.name}: {error}; {there}. To see what its batch does: the same command "
        f"with --stages={context.name} --seeds={context.seed} --replay_step={error.step}. A "
        "changed config, such as a lower learning rate, begins this stage anew",
        step=error.step,
    )


def model_key(context: Context) -> Key[Array, ""]:
    """The key that a stage's own model is initialised with."""
    return keys.stream(context.key, f"{context.name}/init")
