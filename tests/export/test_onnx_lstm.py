"""Recurrent layers and tables in ONNX files: one operator each, in float and in the live integers."""

import collections
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import quant
from kdjax.export import load_onnx, onnx_call, write_onnx
from kdjax.export.integers import onnx_faults
from kdjax.export.onnx_integers import write_quantized
from kdjax.models import LSTM, Classifier, RecurrentNet, RecurrentText
from kdjax.quant import Rule
from kdjax.recurrence import State
from kdjax.types import BadInput, Field
from tests.some import some

onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
pytest.importorskip("jax2onnx", reason="the extra export is not installed")

LONGEST = 9
FIELDS = {
    "tokens": Field((LONGEST,), "int32", 50, ragged=True),
    "tokens_length": Field((), "int32"),
}
LENGTHS = [[9, 9, 9], [9, 4, 1], [2, 9, 5], [3, 3], [1], [9, 1, 1, 1, 2]]


@functools.cache
def _text(bidirectional):
    net = RecurrentNet((10, 8), bidirectional=bidirectional)
    model = Classifier(RecurrentText(50, 12, net), 4)
    given = {"tokens": jnp.ones((2, LONGEST), jnp.int32), "tokens_length": jnp.full(2, 3)}
    variables = model.init(jax.random.key(0), given, train=False)

    def forward(variables, tokens, length):
        inputs = {"tokens": jnp.asarray(tokens), "tokens_length": jnp.asarray(length)}
        return model.apply(variables, inputs, train=False)["logits"]

    return forward, variables, tuple(given.values())


@functools.cache
def _in_float(bidirectional):
    """Its logits, by one program a shape for all tests."""
    forward, variables, _ = _text(bidirectional)
    return functools.partial(jax.jit(forward), variables)


def _calls():
    random = np.random.default_rng(0)
    for lengths, beyond in itertools.product(LENGTHS, (0, 3)):
        width = min(LONGEST, max(lengths) + beyond)
        tokens = random.integers(50, size=(len(lengths), width)).astype(np.int32)
        yield tokens, np.asarray(lengths, np.int32)


@pytest.mark.parametrize("bidirectional", some([False, True], False))
def test_a_layer_is_one_operator(bidirectional, tmp_path):
    forward, variables, _ = _text(bidirectional)
    path = tmp_path / "net.onnx"
    write_onnx(lambda *given: forward(variables, *given), path, inputs=FIELDS)
    nodes = collections.Counter(node.op_type for node in onnx.load(path).graph.node)
    assert nodes["LSTM"] == (4 if bidirectional else 2)
    assert not {"Loop", "Scan"} & nodes.keys()
    run = load_onnx(path, threads=1)
    for given in _calls():
        np.testing.assert_allclose(run(*given), _in_float(bidirectional)(*given), atol=1e-6)


def test_a_layer_is_timed_over_all_that_it_is_given(tmp_path):
    """It stops where examples end, so made-up ones end where the input does."""
    path = tmp_path / "net.onnx"
    forward, variables, _ = _text(bidirectional=False)
    write_onnx(lambda *given: forward(variables, *given), path, inputs=FIELDS)
    for how, length in (({}, LONGEST), ({"length": 4}, 4)):
        found = onnx_call(path, threads=1, batch=2, **how)()[0]
        tokens = np.zeros((2, length), np.int32)
        expected = forward(variables, tokens, np.full(2, length, np.int32))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert np.abs(expected - forward(variables, tokens, np.ones(2, np.int32))).max() > 1e-4


RULES = {
    "dynamic": {".*": Rule(activations="dynamic")},
    "weights": {".*": Rule(activations=None)},
    "int4": {".*": Rule("int4", activations=None)},
    "four bits in the call": {".*": Rule("int4", activations="dynamic")},
    "ternary": {".*lstm0/.*": Rule("ternary", activations=None), ".*": Rule(activations=None)},
    "one product": {".*/recurrent": Rule(activations=None)},
    "table": {".*/embedding": Rule()},
}


@pytest.mark.parametrize(
    ("name", "bidirectional"),
    [
        # Both directions have one that goes forwards among them.
        pytest.param(name, both, marks=[] if both or name == "dynamic" else [pytest.mark.thorough])
        for name in RULES
        for both in (False, True)
    ],
)
def test_integers_are_the_live_ones(name, bidirectional, tmp_path):
    """Whatever is padded, in any batch: what is rounded together is the same in both."""
    rules = RULES[name]
    forward, variables, given = _text(bidirectional)
    graph = quant.graph_of(forward, variables, *given)
    chosen = quant.choose(rules, [*graph.kinds], kinds=graph.kinds)
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    write_onnx(lambda *given: forward(variables, *given), source, inputs=FIELDS)
    plan = quant.plan_of(forward, variables, *given, rules=chosen, ranges={})
    write_quantized(source, target, plan)
    assert not onnx_faults(onnx.load(target), plan)
    assert target.stat().st_size < source.stat().st_size
    run = load_onnx(target, threads=1)
    wrong, apart = [], 0.0
    for call in _calls():
        live = quant.run(forward, variables, *call, rules=chosen, fake=lambda name, x: x)
        wrong.append(float(np.abs(run(*call) - live).max()))
        apart = max(apart, float(np.abs(live - _in_float(bidirectional)(*call)).max()))
    assert apart > 1e-4  # it is another function than in float
    # What lies between two integers may become either: a step of 255.
    assert np.median(wrong) < 1e-6
    assert max(wrong) < 1e-3
    assert sum(each > 2e-6 for each in wrong) <= 2


def test_rows_of_integers_are_all_that_is_kept(tmp_path):
    forward, variables, given = _text(False)
    rules = {"encoder/word/embedding": Rule(activations=None)}
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    write_onnx(lambda *given: forward(variables, *given), source, inputs=FIELDS)
    plan = quant.plan_of(forward, variables, *given, rules=rules, ranges={})
    write_quantized(source, target, plan)
    tables = [t for t in onnx.load(target).graph.initializer if list(t.dims) == [50, 12]]
    assert [t.data_type for t in tables] == [onnx.TensorProto.INT8]


class Both(nn.Module):
    """Two layers with a state before the first step, of which the last one is given."""

    @nn.compact
    def __call__(self, x, hidden, cell):
        found, state = LSTM(6)(x, None, State(hidden, cell))
        return jnp.concatenate([found[:, -1], state.hidden, state.cell], -1)


def test_states_go_in_and_out(tmp_path):
    random = np.random.default_rng(0)
    given = [random.normal(size=(2, *s)).astype(np.float32) for s in ((5, 3), (6,), (6,))]
    model = Both()
    variables = model.init(jax.random.key(0), *map(jnp.asarray, given))
    path = tmp_path / "net.onnx"
    fields = {n: Field(x.shape[1:], "float32") for n, x in zip("xhc", given, strict=True)}
    write_onnx(lambda *given: model.apply(variables, *given), path, inputs=fields)
    np.testing.assert_allclose(
        load_onnx(path, threads=1)(*given),
        model.apply(variables, *map(jnp.asarray, given)),
        atol=1e-6,
    )


def test_what_a_recurrence_cannot_be():
    forward, variables, given = _text(False)
    graph = quant.graph_of(forward, variables, *given)
    names, kinds = [*graph.kinds], graph.kinds
    assert kinds["encoder/word/embedding"] == "lookup"
    static = r"^rules\['.*/kernel'\]: encoder/net/lstm0/kernel is of a recurrent layer, and its act"
    with pytest.raises(BadInput, match=static):
        quant.choose({".*/kernel": Rule()}, names, kinds=kinds)
    mend = r"'dynamic' or None: 'encoder/net/lstm0/\.\*'"
    with pytest.raises(BadInput, match=mend):
        quant.choose({".*": Rule()}, names, kinds=kinds)
    with pytest.raises(
        BadInput, match=r"encoder/net/lstm\d/(kernel|recurrent) and the other product"
    ):
        quant.choose({".*/kernel": Rule(activations="dynamic")}, names, kinds=kinds)
    # The mend is one: of a table its rule has the weights alone.
    rules = {"encoder/net/.*": Rule(activations="dynamic"), ".*": Rule()}
    found = quant.choose(rules, names, kinds=kinds)
    assert found["encoder/word/embedding"] == Rule(activations=None)
    assert found["classifier/kernel"] == Rule()
    assert found["encoder/net/lstm1/recurrent"] == Rule(activations="dynamic")
