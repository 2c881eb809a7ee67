"""Models that were shrunk or quantized, as safetensors."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import traverse_util

from kdjax import config, parse, quant, shrink, tasks, weights
from kdjax.artifacts import tensors
from kdjax.artifacts.model import EncoderSpec, Spec
from kdjax.inputs import Image, Inputs
from kdjax.stages import quantize as stage_quantize
from kdjax.types import BadInput
from kdjax.weights import reading

INPUTS = Inputs((Image(field="image", shape=(8, 8, 1), size=(8, 8), mean=(0.3,), std=(0.4,)),))
TASK = tasks.Classification(name="classification", classes=5)
PIXELS = {"image": np.random.default_rng(0).integers(256, size=(16, 8, 8, 1), dtype=np.uint8)}


def spec_of(encoder):
    return Spec(encoder=parse.parse(config.Encoder, encoder), inputs=INPUTS, task=TASK)


def random(spec):
    """Variables whose numbers are all others."""
    draw = np.random.default_rng(0).uniform
    return jax.tree.map(
        lambda x: jax.numpy.asarray(draw(0.2, 1.0, size=x.shape), x.dtype), spec.abstract()
    )


@pytest.mark.thorough
def test_a_shrunk_network_is_written_at_its_widths_in_the_layout_of_its_family():
    whole = spec_of({"name": "vgg", "depth": 8, "width": 2})
    variables = random(whole)
    model = whole.analysed()
    groups = shrink.groups_of(model, variables, whole.blank())
    scores = shrink.group_l1(groups, variables["params"])
    kept = shrink.keep_each(groups, scores, 0.5)
    small = shrink.take_away(model, groups, kept, variables, whole.blank())
    spec = dataclasses.replace(whole, widths=small.module.widths)
    found = tensors.written(spec, small.variables, "repdistiller")
    assert found.keys() == tensors.written(whole, variables, "repdistiller").keys()
    own = small.variables["params"]["encoder"]["stage2_conv0"]["conv"]["kernel"]
    assert own.shape == (3, 3, 2, 4)  # of (3, 3, 4, 8)
    np.testing.assert_array_equal(found["block2.0.weight"], np.transpose(own, (3, 2, 0, 1)))


@pytest.fixture(scope="module")
def quantized():
    """A small network in int8 with one layer in four bits, its ranges found."""
    spec = spec_of({"name": "cnn", "widths": [4, 6]})
    stage = parse.parse(
        config.Quantize,
        {
            "kind": "quantize",
            "model": "it",
            "calibration_examples": 16,
            "float_edges": False,
            "rules": [
                {"pattern": "encoder/block1/.*", "weights": "int4", "activations": None},
                {"pattern": ".*"},
            ],
        },
    )
    return stage_quantize.quantized(spec, random(spec), PIXELS, stage)[:2]


def test_a_quantized_network_is_written_in_the_numbers_that_it_computes_with(quantized, tmp_path):
    spec, variables = quantized
    integers = tensors.in_integers(spec, variables, numbers="integers")
    floats = tensors.in_integers(spec, variables, numbers="float")
    assert len(spec.rules) == 3
    for name, rule in spec.rules.items():
        stored, scale = integers[f"params/{name}"], integers[f"params/{name}.scale"]
        assert stored.dtype == np.int8
        assert abs(stored).max() == quant.LEVELS[rule.weights]
        assert scale.size == stored.shape[-1]  # one for each output
        np.testing.assert_array_equal(floats[f"params/{name}"], stored * scale)
    assert floats.keys() == integers.keys() - {f"params/{name}.scale" for name in spec.rules}
    ranges = [name for name in integers if name.startswith("ranges/")]
    assert len(ranges) == len(jax.tree.leaves(variables[quant.RANGES]))
    # They are what the model computes with: rounded again, they stay as they are.
    params = {n.removeprefix("params/"): x for n, x in floats.items() if n.startswith("params/")}
    params = {name: jax.numpy.asarray(x) for name, x in params.items()}
    nested = {**variables, "params": traverse_util.unflatten_dict(params, sep="/")}
    answers = (spec.compiled(fast=False)(v, PIXELS) for v in (nested, variables))
    np.testing.assert_allclose(*answers, rtol=1e-5, atol=1e-5)
    said = tensors.described(spec, numbers="integers")
    reading.save(tmp_path / "x.safetensors", integers, layout="kdjax", said=said)
    read = weights.published(str(tmp_path / "x.safetensors"))
    assert read.written["numbers"] == "integers"
    assert read.written["model"] == spec.plain()
    assert parse.parse(Spec, read.written["model"]) == spec
    known = weights.preprocessing(str(tmp_path / "x.safetensors"))
    assert known is not None
    assert (known.mean, known.std, known.size, known.squash) == ((0.3,), (0.4,), (8, 8), True)


def test_a_projector_is_left_out():
    encoder = parse.parse(config.Encoder, {"name": "cnn", "widths": [4]})
    spec = EncoderSpec(encoder=encoder, inputs=INPUTS, projector=(7, 3))
    found = tensors.written(spec, random(spec), "kdjax")
    assert set(found) == {
        "params/encoder/block0/conv/kernel",
        *(f"params/encoder/block0/norm/{x}" for x in ("scale", "bias")),
        *(f"batch_stats/encoder/block0/norm/{x}" for x in ("mean", "var")),
    }
    with pytest.raises(BadInput, match="'hf' is no layout of cnn-4; known: kdjax"):
        tensors.written(spec, random(spec), "hf")
