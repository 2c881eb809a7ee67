"""What a loss says of too few examples is nothing, and a config that asks it is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config, losses, models, parse, train
from kdjax.checks.coupling import check_rows, watched
from kdjax.choice import choices
from kdjax.config.embeddings.relations import EmbeddingRKD, EmbeddingSimilarity
from kdjax.config.embeddings.rows import EmbeddingCosine
from kdjax.config.feature_terms.maps import NST, Attention, Hint
from kdjax.config.feature_terms.relations import PKT, RKD, Correlation, Similarity
from kdjax.config.logit_losses.plain import KL, LogitMSE
from kdjax.config.logit_losses.relations import DIST, MultiLevel
from kdjax.config.methods.clusters import SwAV
from kdjax.config.methods.contrast import DCL, MoCoV3, SimCLR
from kdjax.config.methods.predict import BYOL
from kdjax.config.methods.redundancy import BarlowTwins, VICReg
from kdjax.models import Compute, connectors
from kdjax.models.blocks import ConvNorm
from kdjax.types import BadInput

T = {"temperature": 0.5}
# Of each that relates the examples of a batch: the parts of its loss, each of which must say something.
PARTS = {
    SimCLR: [lambda a, b: losses.nt_xent(a, b, **T)],
    DCL: [lambda a, b: losses.dcl(a, b, **T)],
    MoCoV3: [lambda a, b: losses.moco_v3(a, b, **T)],
    BarlowTwins: [lambda a, b: losses.barlow_twins(a, b, off_diagonal_weight=0.1)],
    VICReg: [
        # Its invariance is of one example; the other two are of the batch.
        lambda a, b: losses.vicreg(a, b, invariance=0.0, variance=1.0, covariance=0.0),
        lambda a, b: losses.vicreg(a, b, invariance=0.0, variance=0.0, covariance=1.0),
    ],
    # What is learned from is the codes, which must be another's than of nothing.
    SwAV: [
        lambda a, b: losses.swav(jnp.stack([a, b])) - losses.swav(jnp.stack([a, b]), epsilon=1e6),
    ],
    DIST: [
        lambda a, b: losses.dist(a, b, beta=1.0, gamma=0.0, temperature=1.0),
        lambda a, b: losses.dist(a, b, beta=0.0, gamma=1.0, temperature=1.0),
    ],
    RKD: [losses.rkd_distance, losses.rkd_angle],
    EmbeddingRKD: [losses.rkd_distance, losses.rkd_angle],
    Similarity: [losses.similarity_preserving],
    EmbeddingSimilarity: [losses.similarity_preserving],
    Correlation: [losses.correlation_congruence],
    PKT: [losses.pkt],
    # Those that relate no examples say something of one.
    KL: [losses.kd_kl],
    LogitMSE: [losses.kd_mse],
    MultiLevel: [
        losses.kd_kl,
        lambda a, b: losses.batch_level_kd(a, b, **T),
        lambda a, b: losses.class_level_kd(a, b, **T),
    ],
    BYOL: [losses.byol],
    Hint: [losses.hint_mse],
    Attention: [lambda a, b: losses.attention_transfer(*(_maps(x) for x in (a, b)))],
    NST: [lambda a, b: losses.nst(*(_maps(x) for x in (a, b)))],
    EmbeddingCosine: [losses.embedding_cosine],
}


def _maps(x):
    return x.reshape(len(x), 2, 2, 2)


def _says(part, rows: int) -> bool:
    """Whether a loss takes that many rows, and sends a gradient that is one."""
    a, b = np.random.default_rng(rows).normal(size=(2, rows, 8)).astype(np.float32)
    try:
        grad = np.asarray(jax.jit(jax.grad(lambda a, b: jnp.sum(part(a, b))))(a, b))
    except BadInput:
        return False
    return bool(np.isfinite(grad).all() and np.abs(grad).max() > 1e-6)


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
def test_the_least_number_of_rows_is_that_from_which_on_all_of_a_loss_says_something(kind):
    least = kind.least_rows
    assert all(_says(part, least) for part in PARTS[kind])
    if least > 1:
        assert not all(_says(part, least - 1) for part in PARTS[kind])


def test_all_that_are_declared_are_tried():
    declared = {
        kind
        for base in (config.Method, config.LogitLoss, config.FeatureTerm, config.EmbeddingMethod)
        for kind in choices(base)
        if kind.least_rows > 1
    }
    assert declared <= PARTS.keys()


SGD = {"name": "sgd", "learning_rate": 0.1}
CNN = {"name": "cnn", "widths": [4]}
SHARED = {"steps": 2, "optimizer": SGD, "encoder": CNN}
PRETRAIN = {"kind": "pretrain", "views": {"recipe": "simclr"}, "projector": [], **SHARED}
DISTILL = {"kind": "distill", "cache": "cache", **SHARED}


@pytest.mark.parametrize(
    ("stage", "least"),
    [
        ({**PRETRAIN, "method": {"name": "simclr"}}, 2),
        ({**PRETRAIN, "method": {"name": "moco_v3"}}, 2),
        ({**PRETRAIN, "method": {"name": "barlow_twins"}}, 2),
        ({**PRETRAIN, "method": {"name": "byol"}}, 2),
        ({**PRETRAIN, "method": {"name": "rotation"}}, 1),
        ({**PRETRAIN, "method": {"name": "rotation"}, "projector": [8, 4]}, 2),
        ({**DISTILL}, 1),
        ({**DISTILL, "logits": {"name": "dist"}}, 2),
        ({**DISTILL, "live": True, "features": {"relations": {"name": "rkd"}}}, 3),
        ({**DISTILL, "live": True, "features": {"alike": {"name": "similarity"}}}, 2),
        ({"kind": "distill_encoder", "cache": "cache", "method": {"name": "rkd"}, **SHARED}, 3),
        ({"kind": "distill_encoder", "cache": "cache", **SHARED}, 1),
    ],
)
def test_too_few_rows_that_meet_are_refused(stage, least):
    def check(batch, accumulate):
        stages = {"one": {**stage, "batch": batch, "accumulate": accumulate}}
        run = {"name": "few", "data": {"name": "digits"}, "stages": stages}
        check_rows(parse.parse(config.Run, run))

    check(least, 1)
    check(4 * least, 4)
    if least > 1:
        with pytest.raises(
            BadInput, match=rf"^config.stages.one.batch: {least - 1}, .*needs {least}"
        ):
            check(least - 1, 1)
        with pytest.raises(BadInput, match=r"^config.stages.one.accumulate: 16 parts of a batch"):
            check(16 * (least - 1), 16)


# --- BatchNorm ---------------------------------------------------------------------------------------


class Plain(nn.Module):
    """A BatchNorm over chosen axes, called in a way of its own."""

    axis: int | tuple[int, ...] = -1
    running: bool = False

    @nn.compact
    def __call__(self, x, *, train: bool):
        return nn.BatchNorm(axis=self.axis, name="norm")(x, self.running or not train)


class Scanned(nn.Module):
    """Two norms, one after the other, as one that is scanned over."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        def block(norm, x, _):
            return norm(x, use_running_average=not train), None

        scan = nn.scan(
            block,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=2,
        )
        return scan(nn.BatchNorm(name="norm"), x, None)[0]


NORMS = [
    (ConvNorm(3), (1, 1, 1, 3)),
    (ConvNorm(3), (2, 1, 1, 3)),
    (ConvNorm(3), (1, 2, 1, 3)),
    (ConvNorm(3, stride=2), (1, 2, 2, 3)),
    (ConvNorm(3, stride=2), (1, 3, 3, 3)),
    (connectors.regressor((1, 1, 1, 3), (1, 1, 1, 4)), (1, 1, 1, 3)),
    (connectors.regressor((1, 2, 2, 3), (1, 1, 1, 4)), (1, 2, 2, 3)),
    (connectors.regressor((1, 1, 1, 3), (1, 2, 2, 4)), (1, 1, 1, 3)),
    (connectors.ofd_connector((1, 1, 1, 4)), (1, 1, 1, 3)),
    (connectors.ofd_connector((1, 1, 1, 4)), (2, 1, 1, 3)),
    (models.Projector((4, 4)), (1, 3)),
    (models.Projector((4, 4)), (2, 3)),
    (models.Projector((4,)), (1, 3)),
    (Plain(), (1, 4)),
    (Plain(), (3, 4)),
    (Plain(axis=1), (1, 4, 1)),
    (Plain(axis=1), (1, 4, 2)),
    (Plain(axis=(0, 1)), (3, 4, 1)),
    (Plain(axis=(0, -1)), (1, 4, 2)),
    (Plain(running=True), (1, 4)),
    (Scanned(), (1, 4)),
    (Scanned(), (2, 4)),
    # All but the last of its maps are larger, and nothing gets past that one.
    (models.CNN((2, 2, 3)), (1, 3, 3, 1)),
    (models.CNN((2, 2, 3)), (2, 3, 3, 1)),
    (models.CNN((2, 2, 3)), (1, 5, 5, 1)),
]


def _within(objective, *, batch: int = 1, accumulate: int = 1):
    c = {**PRETRAIN, "method": {"name": "rotation"}, "batch": batch, "accumulate": accumulate}
    stage = parse.parse(config.Pretrain, c)
    return watched(objective, stage, path="config.stages.one")


def _case_id(value):
    return type(value).__name__ if isinstance(value, nn.Module) else "x".join(map(str, value))


@pytest.mark.parametrize(("module", "shape"), NORMS, ids=_case_id)
def test_a_batch_norm_is_refused_where_what_it_sees_gets_no_gradient(module, shape):
    x = jnp.asarray(np.random.default_rng(len(shape)).normal(0, 0.01, shape), jnp.float32)
    # Statistics of one value are taken when a model is initialised, which is nothing to refuse.
    variables = jax.jit(lambda x: module.init(jax.random.key(0), x, train=True))(x)

    def out(x):
        y, _ = module.apply(variables, x, train=True, mutable=["batch_stats"])
        weights = np.random.default_rng(1).normal(
            1, 0.3, y.shape
        )  # a plain sum is flat of any batch
        return (y * jnp.asarray(weights, jnp.float32)).sum()

    blind = not np.asarray(jax.jit(jax.grad(out))(x)).any()
    if blind:
        with pytest.raises(
            BadInput, match=r"^config.stages.one.batch: 1, and BatchNorm .*norm0? sees"
        ):
            jax.eval_shape(_within(out), x)
    else:
        jax.eval_shape(_within(out), x)


def test_an_encoder_of_small_maps_learns_nothing_of_one_image():
    """The gradients of a real classifier, of all parameters before its last norm."""
    model = models.Classifier(models.CNN((2, 3, 4)), classes=5)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 1)), jnp.float32)
    variables = jax.jit(lambda image: model.init(jax.random.key(0), image, train=True))(image)

    def loss(params, image):
        forward = {"params": params, "batch_stats": variables["batch_stats"]}
        out, _ = model.apply(forward, image, train=True, mutable=["batch_stats"])
        return losses.cross_entropy(out["logits"], jnp.arange(len(image))).sum()

    grad = jax.jit(jax.grad(loss))
    for rows, learns in [(1, False), (2, True)]:
        found = grad(variables["params"], image[:rows])["encoder"]
        kernels = [np.abs(found[f"block{i}"]["conv"]["kernel"]).max() for i in range(3)]
        assert (np.array(kernels) > 1e-4).all() if learns else not any(kernels)


@pytest.mark.parametrize(
    ("synchronised", "rows", "taken"), [(True, 8, True), (False, 8, False), (False, 16, True)]
)
def test_devices_that_share_their_statistics_are_one_batch(synchronised, rows, taken):
    axis_name = train.choose("pmap").axis_name
    module = ConvNorm(3, compute=Compute(axis_name=axis_name if synchronised else None))
    x = jnp.ones((8, rows // 8, 1, 1, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), x[0], train=False))

    def out(variables, x):
        return module.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    mapped = jax.pmap(_within(out, batch=rows), axis_name=axis_name, in_axes=(None, 0))
    if taken:
        jax.eval_shape(mapped, variables, x)
        return
    with pytest.raises(BadInput, match=r"^config.stages.one.batch: 8, and BatchNorm norm sees one"):
        jax.eval_shape(mapped, variables, x)


def test_a_part_of_a_batch_is_named_by_its_number():
    module, x = ConvNorm(3), jnp.ones((1, 1, 1, 3))
    objective = _within(
        lambda x: module.init_with_output(jax.random.key(0), x, train=True)[0],
        accumulate=4,
        batch=4,
    )
    jax.eval_shape(objective, x)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))
    objective = _within(
        lambda v: module.apply(v, x, train=True, mutable=["batch_stats"])[0], accumulate=4, batch=4
    )
    line = r"^config.stages.one.accumulate: 4 parts of a batch of 4 have 1 examples each, and BatchNorm"
    with pytest.raises(BadInput, match=line):
        jax.eval_shape(objective, variables)
