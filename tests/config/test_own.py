"""Functions of the user's in a config: arguments, plain values and back, and what is refused."""

import inspect
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config, load, models, parse, views
from kdjax.config.encoders.own import OwnEncoder
from kdjax.config.own import Own
from kdjax.config.training import OwnTerm
from kdjax.config.views import Frame
from kdjax.models import Compute
from kdjax.types import BadInput
from tests import own_pieces

RANK = {"function": "tests.own_pieces:rank_hinge", "margin": 0.2}
NET = {"function": "tests.own_pieces:TinyNet", "widths": [4, 6]}
SPECKLED = {"function": "tests.own_pieces:speckled", "size": 6}


def rank(
    outputs,
    batch,
    *,
    margin: float,
    steps: int = 3,
    mode: str = "a",
    pair: tuple[int, int] = (1, 2),
):
    return outputs["logits"].sum(-1) * margin


def few(outputs):
    return outputs


def weighted(outputs, batch, weight):
    return weight


def named(*, outputs, batch):
    return outputs


def by_place(outputs, batch, margin, /):
    return margin


LAYER = nn.Dense(3)


def anything(outputs, batch, **more):
    return outputs["logits"].sum(-1)


def term(name, **arguments):
    return parse.parse(OwnTerm, {"function": f"{__name__}:{name}", **arguments}, "config.terms.one")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (OwnTerm, {**RANK, "weight": {"begin": 0.0, "end": 1.0}}),
        (config.Encoder, NET),
        (config.Views, SPECKLED),
        (config.Method, {"function": "tests.own_pieces:aligned", "temperature": 0.1}),
    ],
)
def test_plain_values_and_back(kind, value):
    made = parse.parse(kind, value)
    assert isinstance(made, Own)
    plain = json.loads(json.dumps(parse.plain(made)))
    assert value.items() <= plain.items() or "weight" in value
    assert "tests.own_pieces" in plain["source"]
    assert parse.parse(kind, plain) == made
    assert parse.plain(made, fingerprint=True)["source"] == plain["source"]


def test_the_object_and_the_text_are_one():
    given = parse.parse(OwnTerm, {**RANK, "function": own_pieces.rank_hinge})
    assert given == parse.parse(OwnTerm, RANK)
    assert given.weight == 1.0


def test_terms_may_be_the_whole_loss():
    student = {
        "kind": "distill",
        "cache": "cache",
        "encoder": NET,
        "kd_weight": 0.0,
        "ce_weight": 0.0,
        "steps": 1,
        "batch": 8,
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
    }
    with pytest.raises(BadInput, match=r"config.kd_weight: it is zero"):
        parse.parse(config.Distill, student)
    made = parse.parse(config.Distill, {**student, "terms": {"rank": RANK}})
    assert made.terms["rank"].name == "rank_hinge"


def test_a_term_is_the_function():
    logits = jax.random.normal(jax.random.key(0), (2, 4, 10))
    outputs, batch = {"logits": logits[0]}, {"teacher_logits": logits[1]}
    found = parse.parse(OwnTerm, RANK).term()(outputs, batch)
    expected = own_pieces.rank_hinge(outputs, batch, margin=0.2)
    np.testing.assert_array_equal(found, expected)
    assert np.asarray(expected).max() > 0


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        ("rank", {"margn": 0.1}, "margn: unknown field; did you mean margin?"),
        ("rank", {}, "margin: missing; it takes a number"),
        ("rank", {"margin": "x"}, "margin: expected a number, found 'x' (str)"),
        ("rank", {"margin": 1, "steps": 2.5}, "steps: expected an integer, found 2.5 (float)"),
        ("rank", {"margin": 1, "mode": 3}, "mode: expected a text, found 3 (int)"),
        ("rank", {"margin": 1, "pair": [1]}, "pair: expected 2 values, found 1"),
        ("rank", {"margin": 1, "weight": -1.0}, "weight: -1.0 is not in [0, inf)"),
        (
            "few",
            {},
            "function: tests.config.test_own:few takes (outputs), and it is called with (o",
        ),
        (
            "weighted",
            {},
            "function: tests.config.test_own:weighted: weight is a field here; rename",
        ),
        (
            "named",
            {},
            "function: tests.config.test_own:named takes (*, outputs, batch), and it is called with (o",
        ),
        (
            "by_place",
            {"margin": 1.0},
            "function: tests.config.test_own:by_place takes (outputs, batch, margin, /), and margin is "
            "given by its name; leave out the /",
        ),
        (
            "LAYER",
            {},
            "function: tests.config.test_own:LAYER is a module that is made already; name",
        ),
        ("nothing", {}, "function: "),
    ],
)
def test_arguments_are_held_against_the_signature(name, arguments, line):
    with pytest.raises(BadInput) as caught:
        term(name, **arguments)
    assert str(caught.value).startswith(f"config.terms.one.{line}")


def test_values_become_what_the_annotation_says():
    made = inspect.unwrap(term("rank", margin=1, pair=[3, 4]).made("here"))
    assert made.keywords == {"margin": 1.0, "pair": (3, 4)}
    assert isinstance(made.keywords["margin"], float)
    anything = inspect.unwrap(term("anything", what="ever").made("here"))
    assert anything.keywords == {"what": "ever"}


@pytest.mark.parametrize(
    "given",
    [
        jnp.zeros((4, 2)),
        (jnp.zeros(4), jnp.zeros(3)),
        (jnp.zeros((4, 2)), jnp.zeros(4)),
        (jnp.zeros(()), jnp.zeros(())),
        jnp.zeros(3),  # a sum over the wrong axis: of the classes
        (jnp.zeros(3), jnp.ones(3)),
        jnp.zeros(4, int),  # has no gradient
        jnp.zeros(4, bool),
        jnp.zeros(4, complex),
        None,
        3.0,
    ],
)
def test_a_term_of_another_shape_is_one_line(given):
    found = parse.parse(OwnTerm, {"function": f"{__name__}:handed"}, "config.terms.one")
    with pytest.raises(BadInput, match=r"^here.function: .*handed gave .*; a term gives losses"):
        found.term(path="here")({"given": given}, {"label": jnp.zeros(4, int)})


@pytest.mark.parametrize(
    "given",
    [jnp.zeros(()), jnp.ones(4), (jnp.ones(4), jnp.ones(4)), (jnp.ones((4, 2)), jnp.ones((4, 2)))],
)
def test_what_a_term_gives_goes_on_as_it_is(given):
    found = parse.parse(OwnTerm, {"function": f"{__name__}:handed"}, "config.terms.one")
    assert found.term()({"given": given}, {}) is given


def test_an_installed_function_that_fails_is_one_line():
    made = parse.parse(OwnTerm, {"function": "optax:huber_loss"}, "config.terms.one")
    with pytest.raises(BadInput, match=r"^here.function: optax:huber_loss: \w+Error"):
        made.term(path="here")({"logits": jnp.zeros((2, 3))}, {"label": jnp.zeros(2, int)})


def handed(outputs, batch):
    return outputs["given"]


def test_an_encoder_is_titled_folded_and_synchronised():
    made = parse.parse(config.Encoder, NET)
    assert isinstance(made, OwnEncoder)
    assert made.title == "TinyNet-widths4-6"
    x = jax.random.normal(jax.random.key(1), (16, 8, 8, 1))
    variables = made.module(Compute()).init(jax.random.key(0), x, train=True)
    synced = made.module(Compute(axis_name="i"))
    assert isinstance(synced, models.Synced)

    def step(module):
        def forward(x):
            return module.apply(variables, x, train=True, mutable=["batch_stats"])

        return forward

    whole, state = step(made.module(Compute()))(x)
    parts, states = jax.pmap(step(synced), axis_name="i")(x.reshape(8, 2, 8, 8, 1))
    np.testing.assert_allclose(parts.reshape(whole.shape), whole, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, atol=1e-5), states, state)
    whole = models.Classifier(synced, 10)
    variables_of_all = whole.init(jax.random.key(0), x, train=False)
    seen = models.capture(whole, variables_of_all, x, paths=["encoder/Conv_0"], train=False)
    assert seen.features["encoder/Conv_0"].shape == (16, 4, 4, 4)
    folded = models.fold(made.module(Compute()), {**variables, **state}, x, train=False)
    np.testing.assert_allclose(
        made.module(Compute(folded=True)).apply(folded, x, train=False),
        made.module(Compute()).apply({**variables, **state}, x, train=False),
        atol=1e-5,
    )


def test_a_view_is_the_function_and_normalised():
    recipe = parse.parse(config.Views, SPECKLED).transform(Frame(size=6, mean=(0.5,), std=(0.25,)))
    image = jax.random.randint(jax.random.key(1), (8, 8, 1), 0, 256).astype(jnp.uint8)
    view = own_pieces.speckled(jax.random.key(0), views.to_float(image), size=(6, 6))
    found = recipe(jax.random.key(0), image)
    np.testing.assert_allclose(found, (view - 0.5) / 0.25, rtol=1e-5)


def no_net():
    return nn.relu


def test_what_makes_no_module_is_refused():
    made = parse.parse(config.Encoder, {"function": f"{__name__}:no_net"})
    with pytest.raises(BadInput, match=r"encoder.function: .*no_net gave .*, and no linen module"):
        made.module(Compute())


def test_an_override_of_an_argument(tmp_path):
    (tmp_path / "mine.py").write_text("def net(width: int):\n    raise SystemError\n")
    (tmp_path / "line.py").write_text(
        "import mine\n\n\ndef get_config(arg=None):\n"
        "    one = dict(kind='finetune', encoder=dict(function=mine.net, width=4), steps=1, batch=8,\n"
        "               views=dict(recipe='eval'), optimizer=dict(name='frozen'))\n"
        "    return dict(name='one', data=dict(name='digits'), stages=dict(one=one))\n"
    )
    run = load.load_config(str(tmp_path / "line.py"), ["stages.one.encoder.width=8"])
    assert run.stages["one"].encoder.arguments == {"width": 8}
    with pytest.raises(BadInput, match=r"^config.stages.one.encoder.width: expected an integer"):
        load.load_config(str(tmp_path / "line.py"), ["stages.one.encoder.width=wide"])
    with pytest.raises(BadInput, match=r"^config.stages.one.encoder.widht: unknown field; did you"):
        load.load_config(str(tmp_path / "line.py"), ["stages.one.encoder.widht=8"])
    with pytest.raises(BadInput, match=r"^config.stages.one.encoder.function: .*defines no 'nets'"):
        load.load_config(str(tmp_path / "line.py"), ["stages.one.encoder.function=mine:nets"])
