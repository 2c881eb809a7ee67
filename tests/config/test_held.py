"""What the user's functions give is held against what is expected of them, as they are traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config, distill, parse
from kdjax.config.training import OwnTerm
from kdjax.config.views import Frame
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.types import BadInput, Field, length_field

COUNTED = {"calls": 0}


def drawn(outputs, batch):
    return outputs["logits"].sum(-1) * np.random.uniform()


def drawn_at_each(outputs, batch):
    noise = np.random.uniform(size=outputs["logits"].shape).astype(np.float32)
    return jax.jit(lambda x: (x * noise).sum(-1))(outputs["logits"])


def counted(outputs, batch):
    COUNTED["calls"] += 1
    return outputs["logits"].sum(-1) * COUNTED["calls"]


@pytest.mark.parametrize("name", ["drawn", "drawn_at_each", "counted"])
def test_a_term_that_is_another_each_time_is_refused(name):
    found = parse.parse(OwnTerm, {"function": f"{__name__}:{name}"}, "one").term(path="here")
    batch = {"logits": jnp.ones((4, 2))}
    with pytest.raises(BadInput, match=rf"^here.function: .*:{name} is not pure"):
        jax.eval_shape(found, batch, {})


def drawn_by_key(key, image, *, size):
    return image + jax.random.uniform(key) * SHIFT[None, None]


def drawn_by_numpy(key, image, *, size):
    return image + np.random.uniform()


SHIFT = np.linspace(0, 1, 3, dtype=np.float32)


def test_a_view_draws_by_its_key_alone():
    image, frame = jnp.zeros((2, 2, 3), jnp.uint8), Frame(2, (0.0,), (1.0,))
    draws = {
        name: parse.parse(config.Views, {"function": f"{__name__}:{name}"}, "views").transform(
            frame
        )
        for name in ("drawn_by_key", "drawn_by_numpy")
    }
    jax.jit(jax.vmap(draws["drawn_by_key"], (0, None)))(jax.random.split(jax.random.key(0)), image)
    with pytest.raises(BadInput, match=r"^function: .*:drawn_by_numpy is not pure"):
        jax.jit(draws["drawn_by_numpy"])(jax.random.key(0), image)


def _hidden_view(length):
    """Of one example of five tokens that is padded to a length."""
    tokens = np.zeros(length, np.int32)
    tokens[:5] = [4, 5, 6, 7, 8]
    c = parse.parse(config.Views, {"function": "tests.own_pieces:hidden", "share": 0.4}, "views")
    fields = {"tokens": Field((length,), "int32", below=9, ragged=True)}
    fields["tokens_length"] = length_field(length)
    draw = jax.jit(jax.vmap(c.recipe_for(Inputs.of(fields)), (0, None)))
    example = {"tokens": tokens, "tokens_length": np.int32(5)}
    return draw(jax.random.split(jax.random.key(3), 200), example)


def test_a_view_of_a_whole_example_is_the_function_however_it_is_padded():
    short, long = (jax.tree.map(np.asarray, _hidden_view(n)) for n in (5, 9))
    np.testing.assert_array_equal(short["tokens"], long["tokens"][:, :5])
    assert not long["tokens"][:, 5:].any()
    assert np.all((short["tokens"] == 0) | (short["tokens"] == [4, 5, 6, 7, 8]))
    share = np.mean(short["tokens"] == 0)
    assert abs(share - 0.4) < 0.08  # five standard deviations of a thousand draws
    np.testing.assert_array_equal(short["tokens_length"], np.full(200, 5))


def cut(key, example):
    return {"tokens": example["tokens"][:2]}


def misnamed(key, example):
    return {"token": example["tokens"]}


def bare(key, example):
    return example["tokens"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "cut",
            r"function: .*:cut gave tokens as int32 \(2,\), and it was int32 \(4,\); give each",
        ),
        (
            "misnamed",
            r"function: .*:misnamed gave 'token', which is no input; did you mean tokens\?",
        ),
        ("bare", r"function: .*:bare gave int32 \(4,\); a view of an example is a dict"),
        (
            "drawn_by_key",
            r"function: .* takes an image, and an example is tokens of int32\[4\]; write",
        ),
    ],
)
def test_a_view_of_a_whole_example_that_is_none_is_one_line(name, line):
    c = parse.parse(config.Views, {"function": f"{__name__}:{name}"}, "views")
    inputs = Inputs.of({"tokens": Field((4,), "int32", below=9)})
    with pytest.raises(BadInput, match=f"^{line}"):
        c.recipe_for(inputs)(jax.random.key(0), {"tokens": jnp.zeros(4, jnp.int32)})


def test_a_comparison_of_features_counts_no_padding():
    own = {"function": "tests.own_pieces:apart", "power": 1.0, "student": ["a"], "teacher": ["b"]}
    how = parse.parse(config.FeatureTerm, own, "x").comparison(
        distill.Taps([(2, 3, 4)], [(2, 3, 4)], Compute())
    )
    random = np.random.default_rng(0)
    one, other = (random.normal(size=(2, 3, 4)).astype(np.float32) for _ in range(2))
    where = np.array([[True, True, False], [True, False, False]])
    (found,) = how.at_positions([], [jnp.asarray(one)], [jnp.asarray(other)], where=where)
    wanted = [np.abs(one[0, :2] - other[0, :2]).mean(), np.abs(one[1, :1] - other[1, :1]).mean()]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def by_channel(student, teacher):
    return ((student[0] - teacher[0]) ** 2).mean((0, 1))


def test_a_comparison_of_features_by_channel_is_refused():
    c = parse.parse(config.FeatureTerm, {"function": f"{__name__}:by_channel"}, "x")
    how = c.comparison(distill.Taps([(2, 3, 4)], [(2, 3, 4)], Compute()))
    ones = [jnp.ones((2, 3, 4))]
    with pytest.raises(
        BadInput, match=r"^function: .*:by_channel gave float32 \(4,\); a comparison"
    ):
        how.losses([], ones, ones)
