"""Two methods on the digits, small, and run as the stages run them: several tests share these."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax import lax, monitoring

from kdjax import data, models, ssl, tasks, teacher, train, views
from kdjax.models import Compute
from kdjax.stages import distill
from kdjax.teacher_targets.source import see
from kdjax.teacher_targets.targets import taught_views
from kdjax.train import Parallel, TrainState, optimizers
from kdjax.types import PyTree, Variables
from kdjax.views import draws

BATCH, WIDTHS, VIEWS = 64, (4, 8), 2


_compilations: list[str] = []
"""One entry for each program that XLA has compiled since this module was imported."""

monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: _compilations.append(event) if "backend_compile" in event else None
)


class Method(NamedTuple):
    """What a stage hands to `fit`, with the choice of the mapped axis left open."""

    variables: Variables
    resident: dict[str, np.ndarray]
    objective: Callable[[str | None], train.Objective]
    views: Callable
    learning_rate: float


def _init(model: nn.Module, *, seed: int) -> Variables:
    blank = jnp.zeros((1, 8, 8, 1))
    return jax.jit(lambda key: model.init(key, blank, train=True))(jax.random.key(seed))


def of_image(recipe: Callable) -> Callable:
    """A recipe of the digits, as stages take one."""
    how = {"size": 8, "flip": 0.0, "shift": 1, "mean": (0.3,), "std": (0.37,)}
    return lambda key, example: {"image": recipe(key, example["image"], **how)}


@functools.cache
def simclr() -> Method:
    """NT-Xent between two views, with BatchNorm in encoder and projector."""

    def model(axis_name: str | None) -> models.EncoderProjector:
        compute = Compute(axis_name=axis_name)
        return models.EncoderProjector(
            models.CNN(WIDTHS, compute=compute), models.Projector((16, 8), compute=compute)
        )

    recipe = of_image(views.simclr)
    return Method(
        variables=_init(model(None), seed=1),
        resident=data.resident_arrays(data.digits("train")),
        objective=lambda axis_name: ssl.simclr(
            model(axis_name), temperature=0.5, axis_name=axis_name
        ).objective(axis_name),
        views=draws.two_views(recipe, "pretrain"),
        learning_rate=0.05,
    )


def distillation_model(axis_name: str | None) -> models.Classifier:
    """The student of `distillation`."""
    return models.Classifier(models.CNN(WIDTHS, compute=Compute(axis_name=axis_name)), 10)


@functools.cache
def distillation() -> Method:
    """KL to cached logits on all rows, cross-entropy on the few with a label."""
    dataset = data.digits("train")
    dataset = dataset.hide_labels(np.arange(0, len(dataset), 5))
    logits = np.random.default_rng(0).normal(size=(VIEWS, len(dataset), 10), scale=3.0)
    recipe = of_image(views.crop_flip)
    return Method(
        variables=_init(distillation_model(None), seed=2),
        resident={
            **data.resident_arrays(dataset),
            "signal": {"teacher_logits": logits.astype(np.float16)},
        },
        objective=lambda axis_name: distill.objective(
            distillation_model(axis_name),
            tasks.Classification(classes=10),
            signal=teacher.Logits(classes=10),
            temperature=2.0,
            kd_weight=0.9,
            ce_weight=0.5,
            axis_name=axis_name,
        ),
        views=taught_views(see(recipe, "cache"), ["teacher_logits"], count=VIEWS),
        learning_rate=0.1,
    )


def sgd(method: Method) -> optax.GradientTransformation:
    """The optimizer of all comparisons; the first part of its state is the gradient of the last step.

    Its step is as close to another as the gradients are; Adam divides a gradient by its own size
    and so makes of one rounding in a small gradient a difference of a whole step.
    """
    seen = optax.GradientTransformation(
        init=lambda params: jax.tree.map(jnp.zeros_like, params),
        update=lambda grads, state, params: (grads, grads),
    )
    descent = optimizers.sgd(
        optax.constant_schedule(method.learning_rate),
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-3,
        decayed=".*/kernel",
    )
    return optax.chain(seen, descent)


def feeds(
    start: int, stop: int, *, dispatch_steps: int = 1, batch: int = BATCH
) -> Iterator[tuple[int, PyTree]]:
    """`(step after it, rows and epochs)` of this process."""
    return data.resident_feeds(
        len(data.digits("train")),
        seed=0,
        batch=batch,
        share=train.rows_of_process(batch),
        start=start,
        stop=stop,
        dispatch_steps=dispatch_steps,
    )


METHODS = {"simclr": simclr, "distillation": distillation}
WAYS = {
    "single": train.parallel.single,
    "pmap": train.parallel.mapped,
    "mesh": train.parallel.meshed,
}


class Program(NamedTuple):
    """A method compiled as `kdjax.fitting.fit` does, and one entry for each time it was traced."""

    parallel: Parallel
    run_steps: Callable[..., tuple[TrainState, PyTree]]
    tx: optax.GradientTransformation
    traces: list[int]


@functools.cache
def program(name: str, way: str) -> Program:
    """Compiled once for all tests: most of their time would go into it."""
    method, parallel, traces = METHODS[name](), WAYS[way](), []

    def prepare(resident, feed, key):
        traces.append(1)
        return method.views(data.take(resident, feed), resident, key)

    tx, axis_name = sgd(method), parallel.axis_name
    step = train.make_train_step(method.objective(axis_name), tx, ema=0.9, axis_name=axis_name)
    run_steps = parallel.compile(train.make_run_steps(prepare, step))
    return Program(parallel, run_steps, tx, traces)


class Fitted(NamedTuple):
    """A run as it went, all on the host.

    Attributes:
      states: after each dispatch.
      metrics: of every step.
      traces: of the program so far, after each dispatch.
      compilations: of anything so far, after each dispatch.
      given_up: whether each dispatch took the buffers of the state that it was given.
    """

    states: list[TrainState]
    metrics: dict[str, np.ndarray]
    traces: list[int]
    compilations: list[int]
    given_up: list[bool]


def fit(
    name: str,
    way: str,
    *,
    steps: int = 5,
    dispatch_steps: int = 1,
    folder: epath.PathLike | None = None,
) -> Fitted:
    """Trains as `kdjax.fitting.fit` does, one dispatch after the other.

    With `folder` it goes on from the newest checkpoint there, and leaves one of its last state.
    """
    method, (parallel, run_steps, tx, traces) = METHODS[name](), program(name, way)
    # Copies: a step takes the buffers of the state that it is given.
    variables = jax.tree.map(jnp.copy, method.variables)
    state = parallel.replicate(TrainState.start(variables, tx, ema=True))
    checkpoints = None if folder is None else train.Checkpoints(folder)
    if checkpoints is not None:
        state = checkpoints.latest(state)
    resident, key = parallel.replicate(method.resident), parallel.replicate(jax.random.key(3))

    fitted, metrics = Fitted([], {}, [], [], []), []
    for _, feed in feeds(int(state.step), steps, dispatch_steps=dispatch_steps):
        old = state
        state, found = run_steps(old, resident, parallel.feed(feed), key)
        metrics.append(jax.device_get(found))
        # Of a copy: on a CPU `device_get` gives the buffers themselves, which then cannot be taken
        # by the next step.
        fitted.states.append(jax.device_get(jax.tree.map(jnp.copy, state)))
        fitted.traces.append(len(traces))
        fitted.compilations.append(len(_compilations))
        fitted.given_up.append(all(leaf.is_deleted() for leaf in jax.tree.leaves(old.params)))
    if checkpoints is not None:
        checkpoints.save(steps, state)
        checkpoints.close()
    return fitted._replace(metrics=jax.tree.map(lambda *parts: np.concatenate(parts), *metrics))


@functools.cache
def fitted(name: str, way: str, *, dispatch_steps: int = 1) -> Fitted:
    """The five steps that tests compare others with."""
    return fit(name, way, dispatch_steps=dispatch_steps)


def seen(name: str, way: str, *, start: int, stop: int) -> dict[str, np.ndarray]:
    """What the steps after `start` up to `stop` see: sums that any other id or view would change.

    `ids` [steps] is of the examples of each batch, the others are of each of their views, bit by bit
    and each with its example. They are sums of integers, so that the devices' shares do not matter.
    """
    method, parallel = METHODS[name](), WAYS[way]()

    def mixed(x):  # the finalizer of MurmurHash3: no two numbers go to one
        x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
        return x ^ (x >> 16)

    def prepare(resident, feed, key):
        batch = data.take(resident, feed)
        return {"id": batch["id"], "views": method.views(batch, resident, key)}

    def step(state, batch, key):
        who = mixed(batch["id"])
        sums = {"ids": who.sum(dtype=jnp.uint32)}
        for view, fields in batch["views"].items():
            values = jax.tree.leaves(fields)[0]  # the image
            if values.ndim > 2:
                bits = lax.bitcast_convert_type(values, jnp.uint32).reshape(len(who), -1)
                place = mixed(jnp.arange(bits.shape[1], dtype=jnp.uint32))
                each = mixed(bits ^ place[None]).sum(axis=1, dtype=jnp.uint32)
                sums[view] = mixed(each ^ who).sum(dtype=jnp.uint32)
        if parallel.axis_name is not None:
            sums = lax.psum(sums, parallel.axis_name)
        return state.replace(step=state.step + 1), sums

    run_steps = parallel.compile(train.make_run_steps(prepare, step))
    state = parallel.replicate(
        TrainState(step=jnp.int32(start), params={}, opt_state=(), model_state={})
    )
    resident, key = parallel.replicate(method.resident), parallel.replicate(jax.random.key(3))
    found = []
    for _, feed in feeds(start, stop):
        state, sums = run_steps(state, resident, parallel.feed(feed), key)
        found.append(jax.device_get(sums))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)
