"""Models that were shrunk or quantized, as safetensors."""

import dataclasses

import jax
import numpy as np
import pytest
import safetensors.numpy
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


def random(spec, seed=0):
    """Variables whose numbers are all others."""
    draw = np.random.default_rng(seed).uniform
    return jax.tree.map(
        lambda x: jax.numpy.asarray(draw(0.2, 1.0, size=x.shape), x.dtype), spec.abstract()
    )


def assert_a_round_trip(spec, variables, layout, path):
    """What is written and read again is the same to the bit, as is the model that the header names."""
    tensors_of = tensors.written(spec, variables, layout)
    reading.save(path, tensors_of, layout=layout, said=tensors.described(spec))
    stored = safetensors.numpy.load_file(path)
    assert stored.keys() == tensors_of.keys()
    for name, array in stored.items():
        assert (array.dtype, array.tobytes()) == (
            tensors_of[name].dtype,
            tensors_of[name].tobytes(),
        )
    found = weights.published(str(path))
    again = parse.parse(Spec, found.written["model"])
    assert again == spec
    mapped = weights.mapped(found, tensors.named(again, again.abstract()))
    assert mapped.account.head == "taken"
    assert not mapped.account.fresh
    read = tensors.put(random(again, seed=1), *mapped.read())
    assert jax.tree.structure(read) == jax.tree.structure(dict(variables))
    for leaf, own in zip(jax.tree.leaves(read), jax.tree.leaves(variables), strict=True):
        assert np.asarray(leaf).tobytes() == np.asarray(own).tobytes()
    predicted = [np.asarray(spec.compiled(fast=False)(v, PIXELS)) for v in (read, variables)]
    np.testing.assert_array_equal(*predicted)


def shrunk(whole, variables):
    """With half of its channels."""
    model = whole.analysed()
    groups = shrink.groups_of(model, variables, whole.blank())
    scores = shrink.group_l1(groups, variables["params"])
    kept = shrink.keep_each(groups, scores, 0.5)
    small = shrink.take_away(model, groups, kept, variables, whole.blank())
    return dataclasses.replace(whole, widths=small.module.widths), small.variables


@pytest.mark.parametrize("half", [False, True], ids=["trained", "shrunk"])
def test_what_is_written_is_read_again_to_the_bit(half, tmp_path):
    spec = spec_of({"name": "cnn", "widths": [4, 6]})
    variables = random(spec)
    if half:
        spec, variables = shrunk(spec, variables)
        assert spec.widths
    assert_a_round_trip(spec, variables, "kdjax", tmp_path / "x.safetensors")


@pytest.mark.thorough
def test_a_shrunk_network_is_written_at_its_widths_in_the_layout_of_its_family(tmp_path):
    whole = spec_of({"name": "vgg", "depth": 8, "width": 2})
    variables = random(whole)
    spec, small = shrunk(whole, variables)
    found = tensors.written(spec, small, "repdistiller")
    assert found.keys() == tensors.written(whole, variables, "repdistiller").keys()
    own = small["params"]["encoder"]["stage2_conv0"]["conv"]["kernel"]
    assert own.shape == (3, 3, 2, 4)  # of (3, 3, 4, 8)
    np.testing.assert_array_equal(found["block2.0.weight"], np.transpose(own, (3, 2, 0, 1)))
    for layout in ("repdistiller", "kdjax"):
        assert_a_round_trip(spec, small, layout, tmp_path / f"{layout}.safetensors")


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
    stored = safetensors.numpy.load_file(tmp_path / "x.safetensors")
    assert stored.keys() == integers.keys()
    for name, array in stored.items():
        assert (array.dtype, array.tobytes()) == (integers[name].dtype, integers[name].tobytes())
    for name in spec.rules:
        products = stored[f"params/{name}"] * stored[f"params/{name}.scale"]
        assert products.tobytes() == floats[f"params/{name}"].tobytes()
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
