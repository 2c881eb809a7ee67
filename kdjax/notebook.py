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
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax
from etils import epath
from jaxtyping import Array, Float, Key

from kdjax import config, data, evaluate, parse, tasks, train
from kdjax.artifacts import proof
from kdjax.config import held
from kdjax.config.own import shown
from kdjax.contexts.context import Splits
from kdjax.data import Dataset
from kdjax.inputs import Inputs
from kdjax.models import Compute, called
from kdjax.teacher import TeacherCache
from kdjax.teacher_targets import audit
from kdjax.teacher_targets.source import Source
from kdjax.teacher_targets.targets import taught_views
from kdjax.types import BadFile, BadInput, PyTree, Variables
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
      BadInput: the encoder or the recipe is none, or fields are wrong; there are no such batches, or no
        label to learn; a term gives no losses of the examples of a batch, or is not pure; the encoder
        gives no features [batch, dim], or as the task has them.
      Diverged: a loss is not finite.
    """
    given = _of_cache(on) if isinstance(on, Cached) else _of_dataset(on, views or {}, seed)
    test = given.test if test is None else test
    _check(given, test, terms, steps=steps, batch=batch)
    task = tasks.of(given.dataset)
    made: Any = encoder
    if not isinstance(encoder, nn.Module):
        c = parse.parse(config.Encoder, encoder, "encoder")
        made = c.given(given.inputs).module(Compute())
    module, inputs = task.head(made), given.inputs
    _check_features(made, inputs, task)
    weighed = {task.loss: (1.0, task.labelled)} if terms is None else _held(terms)
    objective = train.weigh(train.forward_of(module), weighed)
    init = jax.jit(functools.partial(module.init, train=True))
    variables = init({"params": jax.random.key(seed), "dropout": given.key}, inputs.blank())
    state = train.TrainState.start(variables, optimizer)
    step = train.make_train_step(objective, optimizer)
    variables, history = _trained(given, state, step, steps=steps, batch=batch, seed=seed)
    outputs = jax.jit(lambda v, raw: module.apply(v, inputs.see_all(raw), train=False))
    scores = {} if test is None else _scored(outputs, variables, task, test)
    return Fitted(module, variables, inputs, history, scores, outputs)


def _check(
    given: "_TrainingSet",
    test: Dataset | None,
    terms: train.Terms | None,
    *,
    steps: int,
    batch: int,
) -> None:
    """Raises `BadInput` where there is nothing to train on, or something else to be tested on."""
    n = len(given.dataset)
    if steps < 1:
        raise BadInput("steps", f"{steps} is not in [1, 2^31)")
    if not 1 <= batch <= n:
        raise BadInput("batch", f"{batch} of {n} training examples", f"give 1 to {n}")
    if terms is None and not given.dataset.shown.any():
        mend = "give terms that learn something else"
        raise BadInput("on", f"no example of {given.dataset.name} has a label", mend)
    if test is None:
        return
    fields, target = given.dataset.fields, given.dataset.target
    unlike = [
        name for name in {**fields, **test.fields} if fields.get(name) != test.fields.get(name)
    ]
    if unlike or test.target != target:
        said = (
            f"{unlike[0]} is another" if unlike else f"its labels are {test.target}, not {target}"
        )
        raise BadInput("test", f"{said} than in what is trained on", "give examples that are alike")


def _held(terms: train.Terms) -> dict[str, tuple[train.Number, train.Term]]:
    """Terms that are refused where they give no losses."""
    return {
        name: (weight, held.term(term, field=f"terms.{name}", said="it"))
        for name, (weight, term) in terms.items()
    }


def _check_features(made: nn.Module, inputs: Inputs, task: tasks.Task) -> None:
    """Raises `BadInput` where an encoder gives no features as the task has them."""
    init = nn.init_with_output(functools.partial(called, train=False), made)
    found, _ = jax.eval_shape(init, jax.random.key(0), inputs.blank(2))
    features = found[0] if isinstance(found, tuple) else found
    shape = list(getattr(features, "shape", ()))
    if len(shape) != len(task.features) or shape[0] != 2:
        raise BadInput(
            "encoder",
            f"it gave {shown(features)} of two examples",
            f"features are [{', '.join(task.features)}]",
        )


class _TrainingSet(NamedTuple):
    """What a model learns from.

    Attributes:
      dataset: its examples.
      inputs: that the model is given.
      draw: makes of a batch what the loss sees.
      resident: more that lives on the device.
      key: of the views.
      test: examples to score it on, where there are some.
      partners: `(rows, epochs) -> rows` of the examples that these are mixed with, where they are.
    """

    dataset: Dataset
    inputs: Inputs
    draw: draws.Draw
    resident: Mapping[str, PyTree]
    key: Key[Array, ""]
    test: Dataset | None
    partners: Callable[..., np.ndarray] | None = None


def _of_cache(on: Cached) -> _TrainingSet:
    dataset = on.splits.partly_labelled(on.source.seed)
    inputs = on.source.inputs
    draw = taught_views(on.source.view(inputs), on.cache.parts, count=on.cache.views)
    said = {"signal": on.cache.resident(dataset.ids)}
    key, partners = jax.random.key(on.source.seed), on.source.partner_rows
    return _TrainingSet(dataset, inputs, draw, said, key, on.splits.test, partners)


def _of_dataset(on: Dataset, views: Mapping[str, Any], seed: int) -> _TrainingSet:
    recipe = parse.parse(config.Views, views or {"recipe": "eval"}, "views")
    inputs = Inputs.of(on.fields).sized(recipe.size)
    draw = draws.together(draws.given(recipe.recipe_for(inputs, examples=on), "fit"), draws.label)
    return _TrainingSet(on, inputs, draw, {}, jax.random.key(seed), None)


def _trained(
    given: _TrainingSet,
    state: train.TrainState,
    step: train.TrainStep,
    *,
    steps: int,
    batch: int,
    seed: int,
) -> tuple[Variables, dict[str, Float[np.ndarray, " steps"]]]:
    """The variables after so many steps, and the metrics of each.

    Raises:
      Diverged: a loss is not finite.
    """
    parallel = train.choose("single")

    def drawn(resident, feed, key):
        return given.draw(data.take(resident, feed), resident, key)

    run_steps = parallel.compile(train.make_run_steps(drawn, step))
    resident = parallel.replicate({**data.resident_arrays(given.dataset), **given.resident})
    more = {}
    if given.partners is not None:
        more["join"] = data.join_partners(given.dataset, given.partners, resident=True)
    feeds = data.resident_feeds(
        len(given.dataset),
        seed=seed,
        batch=batch,
        share=slice(0, batch),
        start=0,
        stop=steps,
        dispatch_steps=1,
        **more,
    )
    logged: list[PyTree] = []
    for _, feed in feeds:
        state, metrics = run_steps(state, resident, parallel.feed(feed), given.key)
        logged.append(metrics)
    seen = jax.device_get(logged)
    history = {name: np.concatenate([m[name] for m in seen]) for name in seen[0]}
    for number, loss in enumerate(history["loss"], 1):
        if not np.isfinite(loss):
            raise train.Diverged(f"fit: the loss of step {number} is {loss}", step=number)
    return jax.device_get(state.variables), history


def _scored(
    outputs: _Outputs, variables: Variables, task: tasks.Task, test: Dataset
) -> dict[str, float]:
    if not test.shown.any():
        return {}
    answers = evaluate.logits_over(
        lambda examples: task.judged(outputs(variables, examples)[task.output], examples),
        test.inputs(),
        batch=min(_PREDICTED, len(test)),
    )
    found = task.scores(answers[test.shown], test.labels[test.shown])
    return {name: score.value for name, score in found.items()}
