"""Self-supervised methods: each a forward pass, its terms, and what it keeps between steps."""

from kdjax import config, models
from kdjax.inputs import Image, Inputs
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


def chosen(c: config.Pretrain, spec: EncoderSpec, *, axis_name: str | None) -> Method:
    """The method of a stage.

    Args:
      c: its config.
      spec: the model.
      axis_name: mapped axis of the batch.
    """
    compute = build.compute(c, axis_name)
    model, width, how = spec.module(compute), spec.projections, c.method
    target = {}
    if not isinstance(how, _WITHOUT_TARGET):
        target = {"momentum": build.number(how.momentum, steps=c.steps)}
    common = {**target, "axis_name": axis_name}

    def predictor(*hidden: int) -> models.Projector:
        return models.Projector((*hidden, width), compute=compute)

    match how:
        case config.SimCLR(temperature=temperature):
            return simclr(model, temperature=temperature, **common)
        case config.DCL(temperature=temperature, sigma=sigma):
            return dcl(model, temperature=temperature, sigma=sigma, **common)
        case config.MoCoV2(queue=queue, temperature=temperature):
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
                freeze_steps=how.freeze_steps,
                **common,
            )
        case config.DINO():
            return dino(
                model,
                models.Prototypes(how.prototypes),
                width=width,
                student_temperature=how.student_temperature,
                teacher_temperature=build.number(how.teacher_temperature, steps=c.steps),
                center_momentum=how.center_momentum,
                freeze_steps=how.freeze_steps,
                **common,
            )
        case config.Rotation():
            return rotation(model, width=width)
        case config.MAE():
            encoder = _vit(c)
            decoder = models.PatchDecoder(
                width=how.decoder_width,
                depth=how.decoder_depth,
                heads=how.decoder_heads,
                patches=(_image(spec.inputs).size // encoder.patch) ** 2,
                pixels=encoder.patch**2 * _image(spec.inputs).shape[-1],
                compute=compute,
            )
            return mae(model.encoder, decoder, normalize=how.normalize)


def seen(context: Context, c: config.Pretrain, inputs: Inputs) -> Views:
    """What the method of a stage sees of each example, with the label where there is a probe.

    Args:
      context: of the stage.
      c: its config.
      inputs: that the encoder is given.

    Raises:
      BadInput: the method's own views do not fit.
    """
    name = context.name
    recipe = build.recipe(c.views, inputs)
    match c.method:
        case config.Rotation():
            drawn = [draws.one_view(recipe, name, name="view_a")]
        case config.SwAV() | config.DINO():
            drawn = [draws.two_views(recipe, name), *_local(context, c, c.method, inputs)]
        case config.MAE(share=share):
            patches = (_image(inputs).size // _vit(c).patch) ** 2
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
    context: Context, c: config.Pretrain, how: config.SwAV | config.DINO, inputs: Inputs
) -> list[Views]:
    path = f"config.stages.{context.name}.method"
    if how.local_views is None:
        return []
    own = inputs.sized(how.local_views.size)
    if own != inputs and isinstance(c.encoder, config.ViT):
        raise BadInput(
            f"{path}.local_views.size: {how.local_views.size}, but the positions of a ViT are those of "
            f"{inputs}; leave it out: smaller crops are then shown at that size"
        )
    recipe = build.recipe(how.local_views, own)
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


def _image(inputs: Inputs) -> Image:
    """The one image of a method that turns it, or hides parts of it.

    Raises:
      BadInput: an example is another thing.
    """
    if len(inputs.parts) != 1 or not inputs.images:
        raise BadInput(f"method: it is one of images, and an example is {inputs}; take another")
    return inputs.images[0]


def _vit(c: config.Pretrain) -> config.ViT:
    """The encoder of a method that hides patches."""
    assert isinstance(c.encoder, config.ViT)  # see `kdjax.config`
    return c.encoder
