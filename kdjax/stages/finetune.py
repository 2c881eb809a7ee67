"""A classifier from labels: on top of a pretrained encoder, or from scratch."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from kdjax import config, keys, models, train, views
from kdjax.losses import cross_entropy
from kdjax.stages import build, measure
from kdjax.stages.artifact import save_variables
from kdjax.stages.context import Context
from kdjax.stages.fit import fit, model_key
from kdjax.stages.model import Spec, encoder_of, with_encoder
from kdjax.types import BadInput, PyTree, Variables


def classify(model: nn.Module):
    """The forward pass of a model that is trained on `image`: a classifier, or an encoder."""

    def forward(params, state, batch, key):
        return model.apply(
            {"params": params, **state.model_state},
            batch["image"],
            train=True,
            mutable=["batch_stats"],
        )

    return forward


def objective(
    model: models.Classifier, *, label_smoothing: float = 0.0, axis_name: str | None = None
) -> train.Objective:
    """Cross-entropy with the label."""

    def ce(outputs, batch):
        return cross_entropy(outputs["logits"], batch["label"], label_smoothing=label_smoothing)

    return train.weigh(classify(model), {"ce": (1.0, ce)}, axis_name=axis_name)


def fresh_view(recipe: build.Recipe, stream: str):
    """View `epoch` of each example: another one each time."""

    def draw(batch, resident, key):
        stream_key = keys.stream(key, stream)
        image = views.batch_views(recipe, stream_key, batch["epoch"], batch["id"], batch["image"])
        return {"image": image, "label": batch["label"]}

    return draw


def run(context: Context, c: config.Finetune) -> Mapping[str, Any]:
    """Trains on the examples whose labels may be used, and measures the result."""
    path = f"config.stages.{context.name}"
    dataset = context.splits.labelled(context.seed)
    if not len(dataset):
        raise BadInput(f"{path}: no training example has a label that may be used")
    encoder, pretrained = _start(context, c, path)
    size = c.views.size or context.splits.size
    spec = Spec.new(encoder, dataset, context.run.data, size=size)
    variables = spec.init(model_key(context))
    if pretrained is not None:
        variables = with_encoder(variables, pretrained)
    axis_name = context.parallel.axis_name
    state = fit(
        context,
        c,
        variables=variables,
        objective=objective(
            spec.module(build.compute(c, axis_name)),
            label_smoothing=c.label_smoothing,
            axis_name=axis_name,
        ),
        tx=build.optimizer(c, None, path=path),
        dataset=dataset,
        views=fresh_view(build.recipe(c.views, context.run.data, size=size), context.name),
    )
    return leave(context, spec, state.variables)


def leave(
    context: Context, spec: Spec, variables: Variables, *, sparsity: float | None = None
) -> dict[str, Any]:
    """Keeps a classifier and measures it, for the manifest."""
    fingerprint = save_variables(context.folder, variables)
    row = measure.live_row(context, spec, variables, folder=context.folder, sparsity=sparsity)
    return {
        "variables": fingerprint,
        "model": spec.plain(),
        "rows": [dataclasses.asdict(row)],
    }


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


def _start(
    context: Context, c: config.Finetune, path: str
) -> tuple[config.Encoder, Mapping[str, PyTree] | None]:
    """The architecture, and the encoder's variables where there are some to begin with."""
    match c.start_from, c.encoder:
        case None, encoder if encoder is not None:
            return encoder, None
        case str(name), None:
            artifact = context.inputs[name]
            if isinstance(artifact.config, config.Pretrain | config.DistillEncoder):
                spec, read = encoder_of(artifact, field=f"{path}.start_from")
                return spec.encoder, read()
            raise BadInput(
                f"{path}.start_from: {name} is not a stage of kind pretrain or distill_encoder"
            )
    raise BadInput(f"{path}: give one of start_from (a stage) and encoder (a model)")
