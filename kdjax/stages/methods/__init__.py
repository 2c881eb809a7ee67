"""Self-supervised methods: each a forward pass, its terms, and what it keeps between steps."""

import optax

from kdjax import config, models
from kdjax.stages import build, draws
from kdjax.stages.context import Context
from kdjax.stages.fit import Views
from kdjax.stages.methods.clusters import dino, swav
from kdjax.stages.methods.contrast import dcl, moco_v2, moco_v3, simclr
from kdjax.stages.methods.method import Method
from kdjax.stages.methods.predict import byol, simsiam
from kdjax.stages.methods.pretext import mae, rotation
from kdjax.stages.methods.probe import APART, with_probe
from kdjax.stages.methods.redundancy import barlow_twins, vicreg
from kdjax.stages.model import EncoderSpec
from kdjax.types import BadInput

__all__ = [
    "APART",
    "Method",
    "barlow_twins",
    "byol",
    "chosen",
    "dcl",
    "dino",
    "mae",
    "moco_v2",
    "moco_v3",
    "rotation",
    "seen",
    "simclr",
    "simsiam",
    "swav",
    "vicreg",
    "with_probe",
]


def chosen(c: config.Pretrain, spec: EncoderSpec, *, axis_name: str | None, path: str) -> Method:
    """The method of a stage.

    Args:
      c: its config.
      spec: the model.
      axis_name: mapped axis of the batch.
      path: of the config, for messages.

    Raises:
      BadInput: the method does not fit the model or the training.
    """
    compute = build.compute(c, axis_name)
    model, width, how, path = spec.module(compute), spec.projections, c.method, f"{path}.method"
    target = {} if isinstance(how, _WITHOUT_TARGET) else {"momentum": _decay(c, how, path)}
    common = {**target, "axis_name": axis_name}

    def predictor(*hidden: int) -> models.Projector:
        return models.Projector((*hidden, width), compute=compute)

    match how:
        case config.SimCLR(temperature=temperature):
            return simclr(model, temperature=temperature, **common)
        case config.DCL(temperature=temperature, sigma=sigma):
            return dcl(model, temperature=temperature, sigma=sigma, **common)
        case config.MoCoV2(queue=queue, temperature=temperature):
            if queue < 1 or queue % c.batch:
                raise BadInput(f"{path}.queue: {queue} is no multiple of the batch, {c.batch}")
            return moco_v2(model, width=width, queue=queue, temperature=temperature, **common)
        case config.MoCoV3(predictor=hidden, temperature=temperature):
            head = predictor(*hidden)
            return moco_v3(model, head, width=width, temperature=temperature, **common)
        case config.BYOL(predictor=hidden):
            return byol(model, predictor(*hidden), width=width, **common)
        case config.SimSiam(bottleneck=bottleneck):
            return simsiam(model, predictor(bottleneck), width=width, **common)
        case config.BarlowTwins(off_diagonal_weight=weight):
            return barlow_twins(model, off_diagonal_weight=weight, **common)
        case config.VICReg(invariance=invariance, variance=variance, covariance=covariance):
            weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
            return vicreg(model, **weights, **common)
        case config.SwAV():
            return swav(
                model,
                models.Prototypes(how.prototypes),
                width=width,
                epsilon=how.epsilon,
                iterations=how.iterations,
                temperature=how.temperature,
                freeze_steps=_frozen(c, how, path),
                **common,
            )
        case config.DINO():
            return dino(
                model,
                models.Prototypes(how.prototypes),
                width=width,
                student_temperature=how.student_temperature,
                teacher_temperature=build.number(
                    how.teacher_temperature, steps=c.steps, path=f"{path}.teacher_temperature"
                ),
                center_momentum=how.center_momentum,
                freeze_steps=_frozen(c, how, path),
                **common,
            )
        case config.Rotation():
            return rotation(model, width=width)
        case config.MAE():
            encoder = _vit(c, path)
            decoder = models.PatchDecoder(
                width=how.decoder_width,
                depth=how.decoder_depth,
                heads=how.decoder_heads,
                patches=(spec.size // encoder.patch) ** 2,
                pixels=encoder.patch**2 * spec.image_shape[-1],
                compute=compute,
            )
            if how.decoder_width % how.decoder_heads:
                raise BadInput(
                    f"{path}.decoder_heads: {how.decoder_heads} do not divide the width of "
                    f"{how.decoder_width}; take a divisor"
                )
            return mae(model.encoder, decoder, normalize=how.normalize)


def seen(context: Context, c: config.Pretrain, *, size: int) -> Views:
    """What the method of a stage sees of each example, with the label where there is a probe.

    Args:
      context: of the stage.
      c: its config.
      size: side of a view.

    Raises:
      BadInput: the method's own views do not fit.
    """
    data, name = context.run.data, context.name
    recipe = build.recipe(c.views, data, size=size)
    match c.method:
        case config.Rotation():
            drawn = [draws.one_view(recipe, name, name="view_a")]
        case config.SwAV() | config.DINO():
            drawn = [draws.two_views(recipe, name), *_local(context, c, c.method, size=size)]
        case config.MAE(share=share):
            patches = (size // _vit(c, f"config.stages.{name}.method").patch) ** 2
            count = round(share * patches)
            if not 0 < count < patches:
                raise BadInput(
                    f"config.stages.{name}.method.share: {share} hides {count} of {patches} patches; "
                    "hide some and show some"
                )
            masks = draws.patch_masks(name, patches=patches, share=share)
            drawn = [draws.one_view(recipe, name, name="view_a"), masks]
        case _:
            drawn = [draws.two_views(recipe, name)]
    return draws.together(*drawn, *([draws.label] if c.probe else []))


def _local(
    context: Context, c: config.Pretrain, how: config.SwAV | config.DINO, *, size: int
) -> list[Views]:
    path = f"config.stages.{context.name}.method"
    if how.local_crops < 0:
        raise BadInput(f"{path}.local_crops: {how.local_crops} is negative")
    if (how.local_views is None) != (how.local_crops == 0):
        raise BadInput(
            f"{path}.local_views: {how.local_crops} local crops; give both local_crops and "
            "local_views, or neither"
        )
    if how.local_views is None:
        return []
    own = how.local_views.size or size
    if own != size and isinstance(c.encoder, config.ViT):
        raise BadInput(
            f"{path}.local_views.size: {own}, but the positions of a ViT are those of {size} pixels; "
            "leave it out: smaller crops are then shown at that size"
        )
    recipe = build.recipe(how.local_views, context.run.data, size=own)
    return [draws.local_views(recipe, context.name, crops=how.local_crops)]


_WITHOUT_TARGET = (
    config.SimCLR
    | config.DCL
    | config.SimSiam
    | config.BarlowTwins
    | config.VICReg
    | config.SwAV
    | config.Rotation
    | config.MAE
)


def _decay(
    c: config.Pretrain,
    how: config.MoCoV2 | config.MoCoV3 | config.BYOL | config.DINO,
    path: str,
) -> float | optax.Schedule:
    """The momentum of a target network."""
    if c.ema is not None:
        raise BadInput(
            f"{path.removesuffix('.method')}.ema: {how.name} has a target network, which is the "
            f"average; leave it out, and give {path}.momentum"
        )
    m = how.momentum
    for decay in (m.begin, m.end) if isinstance(m, config.Ramp) else (m,):
        if not 0.0 <= decay <= 1.0:
            raise BadInput(f"{path}.momentum: {decay} is outside [0, 1]")
    return build.number(m, steps=c.steps, path=f"{path}.momentum")


def _vit(c: config.Pretrain, path: str) -> config.ViT:
    """The encoder of a method that hides patches."""
    above = path.removesuffix(".method")
    if not isinstance(c.encoder, config.ViT):
        raise BadInput(f"{above}.encoder.name: {c.encoder.name} has no patches to hide; take vit")
    if c.projector:
        raise BadInput(
            f"{above}.projector: mae has a decoder in its place; set {above}.projector=()"
        )
    return c.encoder


def _frozen(c: config.Pretrain, how: config.SwAV | config.DINO, path: str) -> int:
    if how.prototypes < 2:
        raise BadInput(f"{path}.prototypes: {how.prototypes}; give two at least")
    if not 0 <= how.freeze_steps < c.steps:
        raise BadInput(
            f"{path}.freeze_steps: {how.freeze_steps} is not in [0, steps), and steps is {c.steps}"
        )
    return how.freeze_steps
