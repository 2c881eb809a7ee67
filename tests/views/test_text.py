import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import views
from kdjax.config import Views
from kdjax.inputs import Inputs
from kdjax.parse import parse
from kdjax.types import BadInput, Field, length_field

BEGIN, END, MASK = 1, 2, 3
FRAME = (0, BEGIN, END, MASK)
ONE = np.array([BEGIN, *range(10, 20), END, 0, 0, 0, 0], np.int32)
PAIR = np.array([BEGIN, *range(10, 16), END, *range(20, 24), END, 0, 0, 0], np.int32)
KEYS = jax.random.split(jax.random.key(7), 400)


def drawn(text, length, second=None, *, keys=KEYS, width=None, **how):
    """`(tokens without padding, second)` of each view."""
    tokens = np.zeros(width or len(text), np.int32)
    tokens[:length] = text[:length]
    if width:  # what is behind the text is looked at by nobody
        tokens[length:] = 19

    @jax.jit
    def every(keys):
        def one(key):
            more = () if second is None else (jnp.int32(second),)
            return views.token_view(
                key, jnp.asarray(tokens), jnp.int32(length), *more, mask=MASK, frame=FRAME, **how
            )

        return jax.vmap(one)(keys)

    found, lengths, seconds = jax.device_get(every(keys))
    assert found.dtype == np.int32
    for row, n in zip(found, lengths, strict=True):
        assert (row[n:] == 0).all()
        assert (row[:n] != 0).all()
    texts = [row[:n].tolist() for row, n in zip(found, lengths, strict=True)]
    return texts, seconds


def test_hidden_tokens_stay_where_they_are_and_are_as_many_as_asked():
    texts, _ = drawn(ONE, 12, hide=0.3)
    inner = np.array([text[1:-1] for text in texts])
    assert inner.shape == (400, 10)
    hidden = inner == MASK
    assert (np.where(hidden, np.arange(10, 20), inner) == np.arange(10, 20)).all()
    assert abs(hidden.mean() - 0.3) < 0.03
    assert np.abs(hidden.mean(0) - 0.3).max() < 0.1  # everywhere alike
    assert all(text[0] == BEGIN and text[-1] == END for text in texts)


def test_left_out_tokens_close_up_in_order_and_one_stays():
    texts, _ = drawn(ONE, 12, drop=0.4)
    inner = [text[1:-1] for text in texts]
    assert all(text == sorted(set(text)) and {*text} <= {*range(10, 20)} for text in inner)
    assert abs(np.mean([len(text) for text in inner]) - 6) < 0.3
    shortest, _ = drawn(ONE, 12, drop=0.97)
    lengths = {len(text) for text in shortest}
    assert min(lengths) == 3
    assert {text[1] for text in shortest if len(text) == 3} == {*range(10, 20)}  # any of them


def test_a_crop_is_one_piece_anywhere():
    texts, _ = drawn(ONE, 12, crop=(0.4, 0.8))
    sizes, begins = set(), set()
    for begin, *inner, end in texts:
        assert (begin, end) == (BEGIN, END)
        assert inner == list(range(inner[0], inner[0] + len(inner)))
        sizes.add(len(inner))
        begins.add(inner[0])
    assert sizes == {4, 5, 6, 7, 8}
    assert begins == {*range(10, 17)}


def test_each_text_of_a_pair_keeps_some_of_its_own_and_the_second_begins_where_it_does():
    texts, seconds = drawn(PAIR, 13, 8, drop=0.5, crop=(0.3, 1.0))
    for text, second in zip(texts, seconds, strict=True):
        first, other = text[:second], text[second:]
        assert (first[0], first[-1], other[-1]) == (BEGIN, END, END)
        assert first[1:-1]
        assert other[:-1]
        assert {*first[1:-1]} <= {*range(10, 16)}
        assert {*other[:-1]} <= {*range(20, 24)}
    assert len({len(text) for text in texts}) > 4


@pytest.mark.parametrize("how", [{"hide": 0.3}, {"drop": 0.3}, {"crop": (0.3, 0.9)}])
def test_padding_changes_no_view(how):
    texts, _ = drawn(ONE, 12, **how)
    wider, _ = drawn(ONE, 12, width=40, **how)
    assert texts == wider


def test_what_is_left_out_changes_no_other_draw():
    dropped, _ = drawn(ONE, 12, drop=0.3)
    both, _ = drawn(ONE, 12, drop=0.3, hide=0.5)
    assert [len(text) for text in both] == [len(text) for text in dropped]
    for a, b in zip(dropped, both, strict=True):
        assert all(x in (y, MASK) for x, y in zip(b, a, strict=True))


def test_nothing_asked_is_the_text_and_a_key_decides():
    texts, seconds = drawn(PAIR, 13, 8, keys=KEYS[:3])
    assert all(text == PAIR[:13].tolist() for text in texts)
    assert (seconds == 8).all()
    some, _ = drawn(ONE, 12, drop=0.5, keys=KEYS[:4])
    again, _ = drawn(ONE, 12, drop=0.5, keys=KEYS[3:4])
    assert again[0] == some[3]


def test_a_text_of_nothing_but_its_frame_stays():
    texts, _ = drawn(np.array([BEGIN, END], np.int32), 2, drop=0.9, crop=(0.1, 0.2), keys=KEYS[:5])
    assert texts == [[BEGIN, END]] * 5


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"hide": 1.0}, "^hide: 1.0 is not in"),
        ({"drop": -0.1}, "^drop: -0.1 is not in"),
        ({"crop": (0.0, 1.0)}, "^crop: .* is not 0 < low"),
        ({"crop": (0.6, 0.5)}, "^crop: .* is not 0 < low"),
        ({"hide": 0.5, "mask": None}, "^hide: 0.5, and no token stands"),
    ],
)
def test_bad_input_names_the_field(how, line):
    with pytest.raises(BadInput, match=line):
        views.token_view(KEYS[0], jnp.asarray(ONE), jnp.int32(12), **how)


TEXT = {
    "tokens": Field((16,), "int32", 30, ragged=True, mask=MASK, frame=FRAME),
    "tokens_length": length_field(16),
    "second": Field((), "int32", 17),
}


def test_the_recipe_of_a_config_changes_the_text_of_an_example_and_where_the_second_begins():
    c = parse(Views, {"recipe": "tokens", "hide": 0.2, "drop": 0.2, "crop": [0.5, 0.9]})
    draw = c.recipe_for(Inputs.of(TEXT))
    example = {
        "tokens": jnp.asarray(PAIR),
        "tokens_length": jnp.int32(13),
        "second": jnp.int32(8),
    }
    found = jax.jit(draw)(KEYS[0], example)
    wanted = views.token_view(
        KEYS[0],
        *example.values(),
        hide=0.2,
        drop=0.2,
        crop=(0.5, 0.9),
        mask=MASK,
        frame=FRAME,
    )
    assert list(draw(KEYS[0], example)) == list(example)
    for name, other in zip(example, wanted, strict=True):
        np.testing.assert_array_equal(found[name], other)


def test_what_has_no_text_and_no_hidden_token_is_refused():
    c = parse(Views, {"recipe": "tokens", "hide": 0.2})
    pictures = Inputs.of({"image": Field((8, 8, 1), "uint8")})
    with pytest.raises(
        BadInput, match=r"^recipe: tokens is one of text, and an example is image of"
    ):
        c.recipe_for(pictures)
    plain = {**TEXT, "tokens": Field((16,), "int32", 30, ragged=True)}
    with pytest.raises(BadInput, match=r"^hide: 0\.2, and no token stands"):
        c.recipe_for(Inputs.of(plain))
    same = parse(Views, {"recipe": "tokens"})
    assert [fault[0] for fault in same.misfits(Inputs.of(TEXT))] == ["recipe"]
