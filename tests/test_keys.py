import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings

from kdjax import keys

ROOT = jax.random.key(0)


def _bits(key):
    return jax.random.key_data(key).tolist()


def test_stream_ids_are_pinned():
    """Other numbers are other views: every cache of a teacher would be of something else."""
    assert keys.stream_id("pretrain") == 1147833493
    assert keys.stream_id("student") == 321275420
    assert keys.stream_id("") == 1910006305


def test_keys_are_pinned():
    stream = keys.stream(ROOT, "pretrain")
    assert _bits(stream) == [2807120723, 291840181]
    assert _bits(keys.example(stream, 1, jnp.uint32(7))) == [122734257, 1899169176]


@given(st.text())
def test_stream_ids_fit_where_keys_are_folded(name):
    assert 0 <= keys.stream_id(name) < 2**31


def test_names_have_streams_of_their_own():
    names = [f"stage{i}" for i in range(2000)]
    assert len({keys.stream_id(name) for name in names}) == len(names)


_batch = jax.jit(jax.vmap(keys.example, in_axes=(None, None, 0)))


def test_every_seed_stream_view_and_id_has_its_own_key():
    ids = jnp.arange(64, dtype=jnp.uint32)
    seen = [
        tuple(bits)
        for seed in (0, 1)
        for name in ("pretrain", "student")
        for view in (0, 1, 2)
        for bits in jax.random.key_data(
            _batch(keys.stream(jax.random.key(seed), name), jnp.int32(view), ids)
        ).tolist()
    ]
    assert len(set(seen)) == len(seen) == 2 * 2 * 3 * 64


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=6, max_size=6), st.integers(0, 2**31 - 1))
def test_a_key_is_blind_to_the_batch_and_to_compilation(ids, view):
    stream = keys.stream(ROOT, "student")
    together = _batch(stream, jnp.int32(view), jnp.array(ids, jnp.uint32))
    reversed_ = _batch(stream, jnp.int32(view), jnp.array(ids[::-1], jnp.uint32))
    np.testing.assert_array_equal(
        jax.random.key_data(together), jax.random.key_data(reversed_)[::-1]
    )
    # Eager, one by one, the view a Python integer.
    assert _bits(keys.example(stream, view, jnp.uint32(ids[0]))) == _bits(together[0])


def test_ids_use_all_their_32_bits():
    stream = keys.stream(ROOT, "student")
    ids = jnp.array([0, 2**31, 2**32 - 1, 2**31 - 1], jnp.uint32)
    assert len({tuple(bits) for bits in _bits(_batch(stream, jnp.int32(0), ids))}) == 4


def test_epochs_may_be_the_view():
    stream = keys.stream(ROOT, "student")
    ids = jnp.arange(4, dtype=jnp.uint32)
    signed, unsigned = (_batch(stream, dtype(5), ids) for dtype in (jnp.int32, jnp.uint32))
    assert _bits(signed) == _bits(unsigned)


def test_eight_devices_draw_what_one_draws():
    stream, ids = keys.stream(ROOT, "student"), jnp.arange(16, dtype=jnp.uint32)
    expected = _bits(_batch(stream, jnp.int32(1), ids))

    def draw(ids):
        return jax.random.key_data(jax.vmap(keys.example, (None, None, 0))(stream, 1, ids))

    found = jax.pmap(draw)(ids.reshape(8, 2))
    assert np.asarray(found).reshape(16, -1).tolist() == expected
