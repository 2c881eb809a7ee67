"""Two methods on the digits, small, and run as the stages run them: several tests share these."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax import data, models, train, views
from kdjax.models import Compute
from kdjax.stages import distill, pretrain
from kdjax.train import Parallel, TrainState, optimizers
from kdjax.types import PyTree, Variables

BATCH, WIDTHS, VIEWS = 64, (4, 8), 2
BLANK = jnp.zeros((1, 8, 8, 1))


class Method(NamedTuple):
    """What a stage hands to `fit`, with the choice of the mapped axis left open."""

    variables: Variables
    resident: dict[str, np.ndarray]
    objective: Callable[[str | None], train.Objective]
    views: Callable
    learning_rate: float


@functools.cache
def simclr() -> Method:
    """NT-Xent between two views, with BatchNorm in encoder and projector."""

    def model(axis_name: str | None) -> models.Contrastive:
        compute = Compute(axis_name=axis_name)
        return models.Contrastive(
            models.CNN(WIDTHS, compute=compute), models.Projector((16, 8), compute=compute)
        )

    recipe = functools.partial(views.simclr, size=8, flip=0.0, shift=1, mean=(0.3,), std=(0.37,))
    return Method(
        variables=model(None).init(jax.random.key(1), BLANK, train=True),
        resident=data.resident_arrays(data.digits("train")),
        objective=lambda axis_name: pretrain.objective(
            model(axis_name), temperature=0.5, axis_name=axis_name
        ),
        views=pretrain.two_views(recipe, "pretrain"),
        learning_rate=0.05,
    )


@functools.cache
def distillation() -> Method:
    """KL to cached logits on all rows, cross-entropy on the few with a label."""

    def model(axis_name: str | None) -> models.Classifier:
        return models.Classifier(models.CNN(WIDTHS, compute=Compute(axis_name=axis_name)), 10)

    dataset = data.digits("train")
    dataset = dataset.hide_labels(np.arange(0, len(dataset), 5))
    logits = np.random.default_rng(0).normal(size=(VIEWS, len(dataset), 10), scale=3.0)
    recipe = functools.partial(views.crop_flip, size=8, flip=0.0, shift=1, mean=(0.3,), std=(0.37,))
    return Method(
        variables=model(None).init(jax.random.key(2), BLANK, train=True),
        resident={**data.resident_arrays(dataset), "teacher_logits": logits.astype(np.float16)},
        objective=lambda axis_name: distill.objective(
            model(axis_name), temperature=2.0, kd_weight=0.9, ce_weight=0.5, axis_name=axis_name
        ),
        views=distill.cached_view(recipe, "cache", count=VIEWS),
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


def compiled(method: Method, parallel: Parallel, tx: optax.GradientTransformation, **how):
    """`run_steps` as `kdjax.stages.fit` compiles it; `how` goes to `make_train_step`."""
    step = train.make_train_step(
        method.objective(parallel.axis_name), tx, axis_name=parallel.axis_name, **how
    )

    def prepare(resident, feed, key):
        return method.views(data.take(resident, feed), resident, key)

    return parallel.compile(train.make_run_steps(prepare, step))


def start(
    method: Method, parallel: Parallel, tx: optax.GradientTransformation, *, ema: bool = False
) -> TrainState:
    """Step 0 on the devices, in buffers that a step may take."""
    variables = jax.tree.map(jnp.copy, method.variables)
    return parallel.replicate(TrainState.start(variables, tx, ema=ema))


def fit(
    method: Method, parallel: Parallel, *, steps: int = 5, dispatch_steps: int = 1, **how
) -> tuple[list[TrainState], dict[str, np.ndarray]]:
    """The state after each dispatch and the metrics of every step, all on the host."""
    tx = sgd(method)
    run_steps = compiled(method, parallel, tx, **how)
    state = start(method, parallel, tx, ema="ema" in how)
    resident, key = parallel.replicate(method.resident), parallel.replicate(jax.random.key(3))
    states, metrics = [], []
    for _, feed in feeds(0, steps, dispatch_steps=dispatch_steps):
        state, found = run_steps(state, resident, parallel.feed(feed), key)
        states.append(jax.device_get(state))
        metrics.append(jax.device_get(found))
    return states, jax.tree.map(lambda *parts: np.concatenate(parts), *metrics)
