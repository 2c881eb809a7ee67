"""Conformers: what padding is to them, how many parameters they have, and what can go of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import shrink, tree
from kdjax.export import load_onnx, load_stablehlo, write_onnx, write_stablehlo
from kdjax.models import Classifier, conformer
from kdjax.models.conformer import positions
from kdjax.types import BadInput, Field
from tests.some import some

LENGTHS = jnp.asarray([12, 7, 1, 0], jnp.int32)
SIZES = {"width": 8, "depth": 2, "heads": 2, "mlp": 12, "kernel": 5}


@pytest.mark.parametrize("stride", some([1, 2, 3], 2))
@pytest.mark.parametrize("pool", some(["mean", "last", "none"], "last"))
def test_padding_changes_no_features(pool, stride):
    net = conformer(**SIZES, stride=stride, pool=pool)
    x = jax.random.normal(jax.random.key(0), (4, 12, 3))
    variables = net.init(jax.random.key(1), x, LENGTHS, train=False)
    padded = jnp.pad(x, ((0, 0), (0, 9), (0, 0)), constant_values=7.0)
    found, wide = (net.apply(variables, each, LENGTHS, train=False) for each in (x, padded))
    if pool == "none":
        (found, mask), (wide, _) = found, wide
        np.testing.assert_array_equal(mask.sum(1), -(-np.maximum(LENGTHS, 1) // stride))
        found, wide = (jnp.where(mask[..., None], x, 0) for x in (found, wide[:, : mask.shape[1]]))
    np.testing.assert_allclose(found, wide, atol=1e-5)
    for i, length in enumerate(np.maximum(LENGTHS, 1)):
        alone = net.apply(variables, x[i : i + 1, :length], train=False)
        if pool == "none":
            steps = -(-length // stride)
            np.testing.assert_allclose(found[i, :steps], alone[0][0], atol=1e-5)
        else:
            np.testing.assert_allclose(found[i], alone[0], atol=1e-5)


def test_parameters():
    """Of the paper's small one: 16 blocks of 144, of which table 1 says 10.3 million with its decoder."""
    net = conformer(kernel=32)
    x = jax.ShapeDtypeStruct((1, 40, 80), jnp.float32)
    made = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), x)
    w, mlp = 144, 4 * 144
    norms, halves = 6 * 2 * w, 2 * (w * mlp + mlp + mlp * w + w)
    block = norms + halves + 4 * (w * w + w) + 3 * (w * w + w) + 32 * w + w
    assert tree.size(made["params"]) == 16 * block + 4 * 80 * w + w


def test_positions_are_told_apart():
    found = np.asarray(positions(jnp.zeros((1, 500, 8)))[0])
    at = np.arange(500)
    np.testing.assert_allclose(found[:, 0], np.sin(at), atol=1e-4)
    np.testing.assert_allclose(found[:, 7], np.cos(at / 10_000), atol=1e-6)
    assert np.abs(found[:, None] - found[None])[np.triu_indices(500, 1)].max(-1).min() > 1e-4


def _spotter():
    model = Classifier(conformer(**SIZES), 4)
    fields = {"x": Field((40, 3), "float32", ragged=True), "x_length": Field((), "int32")}
    x = jax.random.normal(jax.random.key(0), (3, 40, 3))
    given = {"x": x, "length": jnp.asarray([40, 13, 1], jnp.int32)}
    return model, model.init(jax.random.key(1), given, train=False), fields, given


def test_files_take_any_length(tmp_path):
    model, variables, fields, given = _spotter()

    def predict(x, length):
        return model.apply(variables, {"x": x, "length": length}, train=False)["logits"]

    write_onnx(predict, tmp_path / "net.onnx", inputs=fields)
    write_stablehlo(predict, tmp_path / "net.stablehlo", inputs=fields)
    runs = load_onnx(tmp_path / "net.onnx", threads=1), load_stablehlo(tmp_path / "net.stablehlo")
    for batch, width in ((3, 40), (3, 37), (2, 14), (1, 1)):
        x, length = given["x"][:batch, :width], jnp.minimum(given["length"][:batch], width)
        live = predict(x, length)
        for run in runs:
            np.testing.assert_allclose(run(np.asarray(x), np.asarray(length)), live, atol=1e-5)


def test_heads_and_units_go_for_good():
    model, variables, _, given = _spotter()
    wrapped = shrink.Model(model, lambda outputs: outputs["logits"], {"train": False})
    groups = shrink.groups_of(wrapped, variables, given)
    assert {12, 2} <= {*groups.sizes.values()}  # units of an MLP, heads
    keep = shrink.keep_each(groups, shrink.group_l1(groups, variables["params"]), 0.5)
    masks = shrink.unit_masks(groups, keep, variables["params"])
    small = shrink.shrink(wrapped, masks, variables, given, groups=groups)
    masked = {**variables, "params": tree.apply_masks(masks, variables["params"])}
    expected = model.apply(masked, given, train=False)["logits"]
    found = small.module.apply(small.variables, given, train=False)["logits"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert tree.size(small.variables["params"]) < 0.8 * tree.size(variables["params"])


def test_what_is_no_network():
    with pytest.raises(BadInput, match=r"^encoder.heads: 3 do not divide the width of 8"):
        conformer(width=8, heads=3)
    with pytest.raises(BadInput, match=r"^encoder.stride: 0 is not positive"):
        conformer(stride=0)
