"""What a classifier's description gives: variables and programs."""

import dataclasses

import jax
import numpy as np
import pytest

from kdjax.artifacts.model import Spec
from kdjax.config.encoders.cnn import CNN
from kdjax.config.encoders.vit import ViT
from kdjax.inputs import Inputs
from kdjax.tasks import Classification
from kdjax.types import Field

FIELDS = {"image": Field((8, 8, 1), "uint8")}
SPEC = Spec(
    encoder=CNN(name="cnn", widths=(4,)),
    inputs=Inputs.of(FIELDS, mean=(0.3,), std=(0.4,)),
    task=Classification(classes=3),
)
pytestmark = pytest.mark.optimized
_VIT = ViT(name="vit", width=8, depth=1, heads=2, patch=4)


@pytest.mark.parametrize(
    "encoder",
    [SPEC.encoder, pytest.param(_VIT, marks=pytest.mark.thorough)],
    ids=["cnn", "vit"],
)
def test_variables_are_those_of_the_module_to_the_bit(encoder):
    """However little the compiler is told to do for them."""
    spec, key = dataclasses.replace(SPEC, encoder=encoder), jax.random.key(3)
    module, blank = spec.module(), spec.blank()
    wanted = jax.jit(lambda key: module.init(key, blank, train=True))(key)
    jax.tree.map(np.testing.assert_array_equal, spec.init(key), wanted)
    traced = jax.eval_shape(lambda: spec.init(jax.random.fold_in(key, 0)))
    assert jax.tree.map(np.shape, traced) == jax.tree.map(np.shape, wanted)


@pytest.mark.parametrize("fast", [False, True])
def test_one_description_has_one_program(fast):
    again = Spec(**{field.name: getattr(SPEC, field.name) for field in dataclasses.fields(Spec)})
    assert again.compiled(fast=fast) is SPEC.compiled(fast=fast)
    others = (
        {"task": Classification(classes=4)},
        {"inputs": Inputs.of(FIELDS, mean=(0.2,), std=(0.4,))},
        {"widths": {"encoder/block0/conv": {"features": 3}}},
    )
    for other in others:
        assert dataclasses.replace(SPEC, **other).compiled(fast=fast) is not SPEC.compiled(
            fast=fast
        )
    assert SPEC.compiled(fast=not fast) is not SPEC.compiled(fast=fast)
    variables = SPEC.init(jax.random.key(0))
    batch = {"image": FIELDS["image"].made_up(2)}
    found, wanted = (
        SPEC.compiled(fast=fast)(variables, batch),
        jax.jit(SPEC.predict)(variables, batch),
    )
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if fast else {"rtol": 0, "atol": 0}
    np.testing.assert_allclose(found, wanted, **tolerance)
