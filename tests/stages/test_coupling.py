"""What a loss says of too few examples is nothing, and a config that asks it is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config, losses, parse
from kdjax.stages.coupling import LEAST_ROWS, check_rows
from kdjax.types import BadInput

T = {"temperature": 0.5}
# Of each that relates the examples of a batch: the parts of its loss, each of which must say something.
PARTS = {
    config.SimCLR: [lambda a, b: losses.nt_xent(a, b, **T)],
    config.DCL: [lambda a, b: losses.dcl(a, b, **T)],
    config.MoCoV3: [lambda a, b: losses.moco_v3(a, b, **T)],
    config.BarlowTwins: [lambda a, b: losses.barlow_twins(a, b, off_diagonal_weight=0.1)],
    config.VICReg: [
        # Its invariance is of one example; the other two are of the batch.
        lambda a, b: losses.vicreg(a, b, invariance=0.0, variance=1.0, covariance=0.0),
        lambda a, b: losses.vicreg(a, b, invariance=0.0, variance=0.0, covariance=1.0),
    ],
    # What is learned from is the codes, which must be another's than of nothing.
    config.SwAV: [
        lambda a, b: losses.swav(jnp.stack([a, b])) - losses.swav(jnp.stack([a, b]), epsilon=1e6),
    ],
    config.DIST: [
        lambda a, b: losses.dist(a, b, beta=1.0, gamma=0.0, temperature=1.0),
        lambda a, b: losses.dist(a, b, beta=0.0, gamma=1.0, temperature=1.0),
    ],
    config.RKD: [losses.rkd_distance, losses.rkd_angle],
    config.EmbeddingRKD: [losses.rkd_distance, losses.rkd_angle],
    config.Similarity: [losses.similarity_preserving],
    config.EmbeddingSimilarity: [losses.similarity_preserving],
    config.Correlation: [losses.correlation_congruence],
    config.PKT: [losses.pkt],
    # Those that relate no examples say something of one.
    config.KL: [losses.kd_kl],
    config.LogitMSE: [losses.kd_mse],
    config.MultiLevel: [
        losses.kd_kl,
        lambda a, b: losses.batch_level_kd(a, b, **T),
        lambda a, b: losses.class_level_kd(a, b, **T),
    ],
    config.BYOL: [losses.byol],
    config.Hint: [losses.hint_mse],
    config.Attention: [lambda a, b: losses.attention_transfer(*(_maps(x) for x in (a, b)))],
    config.NST: [lambda a, b: losses.nst(*(_maps(x) for x in (a, b)))],
    config.EmbeddingCosine: [losses.embedding_cosine],
}


def _maps(x):
    return x.reshape(len(x), 2, 2, 2)


def _says(part, rows: int) -> bool:
    """Whether a loss takes that many rows, and sends a gradient that is one."""
    a, b = np.random.default_rng(rows).normal(size=(2, rows, 8)).astype(np.float32)
    try:
        grad = np.asarray(jax.grad(lambda a: jnp.sum(part(a, jnp.asarray(b))))(jnp.asarray(a)))
    except BadInput:
        return False
    return bool(np.isfinite(grad).all() and np.abs(grad).max() > 1e-6)


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
def test_the_least_number_of_rows_is_that_from_which_on_all_of_a_loss_says_something(kind):
    least = LEAST_ROWS.get(kind, 1)
    assert all(_says(part, least) for part in PARTS[kind])
    if least > 1:
        assert not all(_says(part, least - 1) for part in PARTS[kind])


def test_all_that_are_declared_are_tried():
    assert LEAST_ROWS.keys() <= PARTS.keys()


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
