"""Training from a notebook: a model, data, a dict of losses. `kdjax.fit` and `kdjax.cached` are these.

cached = kdjax.cached("runs/digits", "cache")
fitted = kdjax.fit(
{"name": "cnn", "widths": [16, 32]}, cached,
{"kd": (0.9, kd), "own": (0.1, own)}, steps=150, batch=256, optimizer=optax.adamw(4e-3),
)
fitted.scores, fitted.history["loss/own"], fitted.variables
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from etils import epath
from jaxtyping import Array

from kdjax import config, data, evaluate, parse, tasks, train
from kdjax.data import Dataset
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.stages import audit, proof
from kdjax.stages.context import Splits
from kdjax.stages.lesson import taught_views
from kdjax.stages.source import Source
from kdjax.teacher import TeacherCache
from kdjax.types import BadFile, PyTree, Variables
from kdjax.views import draws

_Outputs = Callable[[Variables, Mapping[str, Any]], Any]
"""`(variables, raw examples) -> outputs by name`, compiled."""

_PREDICTED = 512
"""Test examples in one call; changes no answer."""


@dataclasses.dataclass(frozen=True)
class Cached:
    """What teachers have said of a training set, and the set.

    Attributes:
      splits: training and test examples; of the labels, those that the run might use.
      source: how the views are drawn that the teachers saw.
      cache: what they said of them.
    """

    splits: Splits
    source: Source
    cache: TeacherCache

    def views(self, number: int, rows: np.ndarray) -> dict[str, Array]:
        """View `number` of these training examples, as the first teacher saw it."""
        batch = self.source.read(rows, np.full(len(rows), number, np.uint32))
        return self._see(batch, jax.random.key(self.source.seed))[0]

    @functools.cached_property
    def _see(self) -> Callable[..., Any]:
        return jax.jit(self.source.view(self.source.inputs))


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A model that has been trained.

    Attributes:
      module: gives a dict of outputs.
      variables: of it.
      inputs: that it is given.
      history: each metric at every step, [steps].
      scores: on the test examples, by name.
    """

    module: nn.Module
    variables: Variables
    inputs: Inputs
    history: dict[str, np.ndarray]
    scores: dict[str, float]
    _outputs: _Outputs = dataclasses.field(repr=False)

    def predict(self, examples: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs for raw examples, [n, ...] by field, with frozen statistics."""
        return self._outputs(self.variables, examples)


def cached(workdir: epath.PathLike, name: str = "cache", *, seed: int | None = None) -> Cached:
    """The cache that a stage of a run has left, opened as a student opens it.

    Args:
      workdir: of the run.
      name: of the stage.
      seed: that it was run for, the lowest there is by default.

    Raises:
      BadInput: there is no such cache, or it is not what its manifest says.
    """
    folder = epath.Path(workdir) / "stages"
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        said = None if proof.folder_name(path.name) is None else proof.read(path)
        if said is not None and (said["stage"], said["config"]["kind"]) == (name, "cache"):
            found.append((said["seed"], path))
    wanted = [pair for pair in found if seed in (None, pair[0])]
    if not wanted:
        raise BadFile(workdir, f"it has no finished cache {name!r} of seed {seed}", "run it first")
    _, path = min(wanted, key=lambda pair: pair[0])
    reopened = audit.reopened(path)
    return Cached(reopened.splits, reopened.source, reopened.cache)


def fit(
    encoder: nn.Module | Mapping[str, Any],
    on: Cached | Dataset,
    terms: train.Terms | None = None,
    *,
    steps: int,
    batch: int,
    optimizer: optax.GradientTransformation,
    test: Dataset | None = None,
    views: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Fitted:
    """Trains a model of one's own, or of kdjax's, on what a teacher said or on labels.

    Args:
      encoder: a linen module, `(*inputs, train) -> features` [batch, dim], or the fields of one of
        kdjax's, such as `{"name": "cnn", "widths": [16, 32]}`.
      on: the views and the teachers' words of a cache, or a dataset.
      terms: of the loss, see `kdjax.train.weigh`. `outputs` have `features` and `logits`; a batch has
        `inputs`, `label`, which is negative where it may not be used, and of a cache `teacher_logits` or
        what else it keeps. By default the loss of the task against the labels: of classes, cross-entropy.
      steps: updates.
      batch: examples of a step.
      optimizer: from optax.
      test: examples to score it on; by default those of the cache's run, and of a dataset none.
      views: of a dataset, the fields of a recipe, such as `{"recipe": "crop_flip"}`; none by default.
      seed: of the first parameters, the order and the views; those of a cache are the cache's.

    Raises:
      BadInput: the encoder or the recipe is none, or fields are wrong.
      Diverged: a loss is not finite.
    """
    if isinstance(on, Cached):
        dataset = on.splits.partly_labelled(on.source.seed)
        inputs, test = on.source.inputs, on.splits.test if test is None else test
        draw = taught_views(on.source.view(inputs), on.cache.parts, count=on.cache.views)
        more = {"signal": on.cache.resident(dataset.ids)}
        key = jax.random.key(on.source.seed)
    else:
        recipe = parse.parse(config.Views, views or {"recipe": "eval"}, "views")
        dataset = on
        inputs = Inputs.of(dataset.fields).sized(recipe.size)
        one = draws.one_view(recipe.recipe_for(inputs), "fit", name="inputs")
        draw, more, key = draws.together(one, draws.label), {}, jax.random.key(seed)
    task = tasks.of(dataset)
    made: Any = encoder
    if not isinstance(encoder, nn.Module):
        made = parse.parse(config.Encoder, encoder, "encoder").module(Compute())
    module = task.head(made)
    objective = train.weigh(
        train.forward_of(module), {task.loss: (1.0, task.labelled)} if terms is None else terms
    )
    init = jax.jit(functools.partial(module.init, train=True))
    variables = init({"params": jax.random.key(seed), "dropout": key}, inputs.blank())

    parallel = train.choose("single")
    run_steps = parallel.compile(
        train.make_run_steps(
            lambda resident, feed, key: draw(data.take(resident, feed), resident, key),
            train.make_train_step(objective, optimizer),
        )
    )
    state = train.TrainState.start(variables, optimizer)
    resident = parallel.replicate({**data.resident_arrays(dataset), **more})
    feeds = data.resident_feeds(
        len(dataset),
        seed=seed,
        batch=batch,
        share=slice(0, batch),
        start=0,
        stop=steps,
        dispatch_steps=1,
    )
    logged: list[PyTree] = []
    for _, feed in feeds:
        state, metrics = run_steps(state, resident, parallel.feed(feed), key)
        logged.append(metrics)
    seen = jax.device_get(logged)
    history = {name: np.concatenate([m[name] for m in seen]) for name in seen[0]}
    for step, loss in enumerate(history["loss"], 1):
        if not np.isfinite(loss):
            raise train.Diverged(f"fit: the loss of step {step} is {loss}", step=step)
    variables = jax.device_get(state.variables)
    outputs = jax.jit(lambda v, raw: module.apply(v, inputs.see_all(raw), train=False))
    scores = {} if test is None else _scored(outputs, variables, task, test)
    return Fitted(module, variables, inputs, history, scores, outputs)


def _scored(
    outputs: _Outputs, variables: Variables, task: tasks.Task, test: Dataset
) -> dict[str, float]:
    answers = evaluate.logits_over(
        lambda examples: outputs(variables, examples)[task.output],
        test.inputs(),
        batch=min(_PREDICTED, len(test)),
    )
    found = task.scores(answers[test.shown], test.labels[test.shown])
    return {name: score.value for name, score in found.items()}
