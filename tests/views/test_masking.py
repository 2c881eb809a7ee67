import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import views
from kdjax.types import BadInput

KEYS = jax.random.split(jax.random.key(0), 600)


@functools.partial(jax.jit, static_argnames=("patches", "share"))
def masks(keys, **kwargs):
    return jax.vmap(lambda key: views.random_patch_mask(key, **kwargs))(keys)


@pytest.mark.parametrize(
    ("patches", "share", "hides"), [(16, 0.75, 12), (10, 0.9, 9), (7, 0.5, 4), (196, 0.75, 147)]
)
def test_shown_and_hidden_are_all_patches_once(patches, share, hides):
    kept, hidden = masks(KEYS[:20], patches=patches, share=share)
    assert kept.shape == (20, patches - hides)
    assert (hidden.sum(-1) == hides).all()
    assert (np.diff(kept, axis=-1) > 0).all()
    assert not np.take_along_axis(np.asarray(hidden), np.asarray(kept), axis=-1).any()


def test_every_choice_is_equally_likely():
    _, hidden = masks(KEYS, patches=4, share=0.5)
    for choice in itertools.combinations(range(4), 2):
        hit = (np.asarray(hidden) == np.isin(np.arange(4), choice)).all(-1)
        assert 60 < hit.sum() < 140  # of 600 / 6


def test_a_mask_depends_on_its_key_alone():
    kept, hidden = masks(KEYS[:5], patches=9, share=0.6)
    one = masks(KEYS[3:4], patches=9, share=0.6)
    np.testing.assert_array_equal(one[0][0], kept[3])
    np.testing.assert_array_equal(one[1][0], hidden[3])
    assert len({row.tobytes() for row in np.asarray(kept)}) > 1


def test_a_decoder_finds_the_places_of_what_was_shown():
    tokens = jnp.arange(1.0, 10.0)[:, None]
    (kept,), (hidden,) = masks(KEYS[:1], patches=9, share=0.6)
    back = jnp.zeros((9, 1)).at[kept].set(tokens[kept])
    np.testing.assert_array_equal(back, jnp.where(hidden[:, None], 0, tokens))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.99, 1.0, -0.5])
def test_bad_input_names_the_field(share):
    with pytest.raises(BadInput, match=r"^share: "):
        views.random_patch_mask(KEYS[0], patches=8, share=share)
