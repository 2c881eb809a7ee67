"""A classifier from labels: on top of a pretrained encoder, or from scratch."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import optax

from kdjax import config, fingerprint, train
from kdjax.losses import cross_entropy, tf_kd
from kdjax.stages import build, draws, expected, measure, pruning
from kdjax.stages.artifact import EARLY, save_variables
from kdjax.stages.begin import Begin, begin
from kdjax.stages.context import Context
from kdjax.stages.fit import Setup, Views, fit, model_key, rehearse
from kdjax.stages.model import Spec
from kdjax.types import Variables


def objective(
    model: nn.Module,
    *,
    label_smoothing: float = 0.0,
    teacher_free: config.TeacherFree | None = None,
    axis_name: str | None = None,
) -> train.Objective:
    """Cross-entropy with the label, and the KL to a virtual teacher where there is one."""

    def ce(outputs, batch):
        return cross_entropy(outputs["logits"], batch["label"], label_smoothing=label_smoothing)

    if teacher_free is None:
        return train.weigh(train.forward_of(model), {"ce": (1.0, ce)}, axis_name=axis_name)

    def virtual(outputs, batch):
        return tf_kd(
            outputs["logits"],
            batch["label"],
            correct_probability=teacher_free.correct_probability,
            temperature=teacher_free.temperature,
        )

    terms = {"ce": (teacher_free.ce_weight, ce), "tf_kd": (teacher_free.weight, virtual)}
    return train.weigh(train.forward_of(model), terms, axis_name=axis_name)


def fresh_view(recipe: build.Recipe, stream: str) -> Views:
    """View `epoch` of each example, another one each time, with its label."""
    return draws.together(draws.one_view(recipe, stream, name="image"), draws.label)


def run(context: Context, c: config.Finetune) -> Mapping[str, Any]:
    """Trains on the examples whose labels may be used, and measures the result."""
    spec, setup = _prepare(context, c)
    return leave(context, spec, fit(context, c, **setup._asdict()))


def check(context: Context, c: config.Finetune) -> Mapping[str, Any]:
    """Refuses what cannot be trained; gives what the manifest will say of the model."""
    path, size = context.path, build.side(c.views, context.splits.size)
    expected.check_views(c.views, context, size=size, path=f"{path}.views")
    spec, pruned = rehearse(
        context,
        c,
        lambda context: _prepare(context, c),
        views_path=f"{path}.views",
        exact=context.exact,
    )
    return {**expected.classifier(c, spec), **pruned}


def _prepare(context: Context, c: config.Finetune) -> tuple[Spec, Setup]:
    path = context.path
    dataset = context.splits.labelled(context.seed, c, path=path)
    size = build.side(c.views, context.splits.size)
    start = begin(context, start_from=c.start_from, encoder=c.encoder, size=size, path=path)
    spec, variables, tx = ready(context, c, start)
    axis_name = context.parallel.axis_name
    return spec, Setup(
        variables=variables,
        objective=objective(
            spec.module(build.compute(c, axis_name)),
            label_smoothing=c.label_smoothing,
            teacher_free=c.teacher_free,
            axis_name=axis_name,
        ),
        tx=tx,
        dataset=dataset,
        views=fresh_view(build.recipe(c.views, context.run.data, size=size), context.name),
    )


def ready(
    context: Context, c: config.Finetune | config.Distill, start: Begin
) -> tuple[Spec, Variables, optax.GradientTransformation]:
    """A classifier, its first variables and its optimizer, with what is pruned."""
    spec = start.spec
    variables, tx = pruning.prepare(
        context,
        c,
        variables=start.variables,
        tx=build.optimizer(c),
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
