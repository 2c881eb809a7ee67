"""A model from labels, of whatever they are: on top of a pretrained encoder, or from scratch."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax

from kdjax import config, data, evaluate, fingerprint, models, train
from kdjax.artifacts.artifact import EARLY, save_variables
from kdjax.artifacts.model import Spec
from kdjax.checks import expected
from kdjax.checks.answering import check_labels_fit
from kdjax.contexts import build
from kdjax.contexts.context import Context
from kdjax.fitting import pruning, self_training
from kdjax.fitting.fit import Setup, Views, fit, model_key, rehearse
from kdjax.fitting.initial_model import Begin, begin
from kdjax.measuring import measure
from kdjax.measuring.asking import over_alike
from kdjax.types import Variables
from kdjax.views import draws

_PROBE_BATCH = 256
"""Labelled examples in one pass of the encoder; changes no feature."""

_ONLY_STRENGTH = (0.1,)
"""Of the probe, where one example of a class leaves none to choose a strength by."""


def objective(
    model: nn.Module,
    terms: train.Terms,
    *,
    own: Callable[[train.Terms], train.Terms] = dict,
    axis_name: str | None = None,
) -> train.Objective:
    """The terms of a task, see `kdjax.tasks.Task.terms`, and `own` ones."""
    return train.weigh(train.forward_of(model), own(terms), axis_name=axis_name)


def fresh_view(recipe: draws.Recipe, stream: str) -> Views:
    """View `epoch` of each example, another one each time, with its label."""
    return draws.together(draws.given(recipe, stream), draws.label)


def run(context: Context, c: config.Finetune) -> Mapping[str, Any]:
    """Trains on the examples whose labels may be used, and measures the result."""
    spec, setup = _prepare(context, c)
    state = fit(context, c, setup)
    if c.self_training is not None:  # whose average is the target network
        state = dataclasses.replace(state, ema_params=None)
    return leave(context, spec, state)


def check(context: Context, c: config.Finetune) -> Mapping[str, Any]:
    """Refuses what cannot be trained; gives what the manifest will say of the model."""
    path, inputs = context.path, context.splits.inputs.sized(c.views.size)
    expected.check_views(c.views, context, inputs, path=f"{path}.views")
    if c.self_training is not None:
        for name in ("weak", "strong"):
            where = f"{path}.self_training.{name}"
            expected.check_views(getattr(c.self_training, name), context, inputs, path=where)
    spec, pruned = rehearse(
        context,
        c,
        lambda context: _prepare(context, c),
        views_path=f"{path}.views",
        exact=context.exact,
    )
    labelled = context.splits.labelled(context.seed, c, path=path)
    check_labels_fit(context, spec, labelled, c.views)
    return {**expected.model(c, spec), **pruned}


def _prepare(context: Context, c: config.Finetune) -> tuple[Spec, Setup]:
    path = context.path
    dataset = context.splits.labelled(context.seed, c, path=path)
    inputs = context.splits.inputs.sized(c.views.size)
    start = begin(context, start_from=c.start_from, encoder=c.encoder, inputs=inputs, path=path)
    if c.head == "probe":
        start.spec.task.classes_of_example(f"{path}.head")
    if c.head == "probe" and not context.ahead:
        start = start._replace(variables=probed(context, start, dataset))
    own = c.self_training
    if own is not None:
        classes = start.spec.task.classes_of_example(f"{path}.self_training")
        known = self_training.remembering(start.variables, classes)
        start = start._replace(variables=known)
    spec, variables, tx = ready(context, c, start)
    axis_name = context.parallel.axis_name
    model = spec.module(build.compute(c, axis_name))
    recipe = c.views.recipe_for(inputs, examples=context.splits.train)
    terms = functools.partial(build.terms, c, path=path, axis_name=axis_name)
    supervised = spec.task.terms(label_smoothing=c.label_smoothing, teacher_free=c.teacher_free)
    if own is None:
        return spec, Setup(
            variables=variables,
            objective=objective(model, supervised, own=terms, axis_name=axis_name),
            tx=tx,
            dataset=dataset,
            views=fresh_view(recipe, context.name),
        )
    self_training.check_batch(context, c, own.every)
    shares = np.bincount(dataset.labels, minlength=spec.task.outputs) / len(dataset)
    shown = context.splits.shown(context.seed, c, path=path)
    return spec, Setup(
        variables=variables,
        objective=self_training.objective(
            model,
            own,
            terms(supervised),
            prior=shares,
            steps=c.steps,
            axis_name=axis_name,
        ),
        tx=tx,
        dataset=context.splits.partly_labelled(context.seed, c, path=path),
        views=self_training.seen(context, own, recipe, inputs),
        partner_rows=self_training.partners(context, shown).rows,
        ema=self_training.momentum(own),
    )


def probed(context: Context, start: Begin, dataset: data.Dataset) -> Variables:
    """With a linear layer that is logistic regression on the features of the labelled examples.

    A class without an example is as unlikely as the least likely one, whatever the features.

    Reference: Kumar et al. 2022, https://arxiv.org/abs/2202.10054.
    """
    spec, variables = start.spec, start.variables
    module = spec.module()

    def ask(variables, batch):
        outputs: Any = module.apply(variables, spec.inputs.see_all(batch), train=False)
        return outputs["features"]

    features = over_alike(
        context.parallel.spread(ask, variables),
        dataset,
        context.splits.widths(dataset),
        batch=context.parallel.shared(_PROBE_BATCH),
    )
    occurring, label, counts = np.unique(dataset.labels, return_inverse=True, return_counts=True)
    strengths = config.Linear().strengths if counts.min() > 1 else _ONLY_STRENGTH
    found = evaluate.linear_probe(
        features, label, classes=len(occurring), seed=context.seed, strengths=strengths
    )
    layer = variables["params"]["classifier"]
    kernel = np.zeros_like(layer["kernel"])
    bias = np.full_like(layer["bias"], found.bias.min())
    kernel[:, occurring], bias[occurring] = found.kernel, found.bias
    own = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    return {**variables, "params": {**variables["params"], "classifier": own}}


def ready(
    context: Context, c: config.Finetune | config.Distill, start: Begin
) -> tuple[Spec, Variables, optax.GradientTransformation]:
    """A classifier, its first variables and its optimizer, with what is pruned."""
    spec = start.spec
    variables, tx = pruning.prepare(
        context,
        c,
        variables=start.variables,
        tx=build.optimizer(
            c, names=lambda: models.names_in_order(spec.module(), spec.blank(), train=True)
        ),
        groups=start.groups,
        begun=start.artifact,
        early=start.early,
        fresh=lambda: spec.init(model_key(context)),
    )
    if isinstance(c.prune, config.Ticket) and not context.ahead:
        save_variables(context.folder, start.early(), name=EARLY)  # for the ticket after this one
    return spec, variables, tx


def leave(context: Context, spec: Spec, state: train.TrainState) -> dict[str, Any]:
    """Keeps a classifier and measures it, for the manifest."""
    variables = state.variables
    said = {"variables": save_variables(context.folder, variables), "model": spec.plain()}
    if (context.folder / EARLY).exists():
        early = train.load_tree(context.folder / EARLY, spec.abstract())
        said["early"] = fingerprint.of_arrays(early)
    pruned = pruning.account(state, context.folder, spec.abstract())
    row = measure.live_row(
        context, spec, variables, folder=context.folder, sparsity=pruning.share(pruned)
    )
    return {**said, **pruned, "rows": [dataclasses.asdict(row)]}


def leave_sweep(
    context: Context,
    spec: Spec,
    students: Sequence[Variables],
    settings: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """Keeps and measures several students of one architecture: a folder and a row each."""
    differ = [name for name in settings[0] if len({mine[name] for mine in settings}) > 1]
    kept, rows = [], []
    for i, (variables, mine) in enumerate(zip(students, settings, strict=True)):
        folder = context.folder / f"student{i}"
        kept.append({**mine, "variables": save_variables(folder, variables)})
        row = measure.live_row(context, spec, variables, folder=folder)
        said = "".join(f", {name} {mine[name]:g}" for name in differ)
        row = dataclasses.replace(row, stage=f"{row.stage}[{i}]", model=row.model + said)
        rows.append(dataclasses.asdict(row))
    return {"sweep": {"model": spec.plain(), "students": kept}, "rows": rows}
