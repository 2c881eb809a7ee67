import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdjax import keys, views
from kdjax.types import BadInput
from kdjax.views import mixing

KEY = jax.random.key(0)
STREAM = keys.stream(KEY, "distill")
MIXES = {
    "mixup": functools.partial(views.mixup, alpha=0.4),
    "cutmix": functools.partial(views.cutmix, alpha=1.0),
}


def picture(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def many(mix, view_a, view_b, count):
    """The same pair under many keys."""
    mixed = jax.jit(jax.vmap(mix, in_axes=(0, None, None)))
    return [np.asarray(x) for x in mixed(jax.random.split(KEY, count), view_a, view_b)]


def boxes(mix, count, height, width):
    """Where `b` is, for many keys, and the weights."""
    shape = (height, width, 1)
    mixed, weight = many(mix, jnp.zeros(shape), jnp.ones(shape), count)
    return mixed[..., 0].astype(bool), weight


def edges(inside):
    """First and last + 1 of what is True along the last axis; NaN where nothing is."""
    low = np.where(inside.any(-1), inside.argmax(-1), np.nan)
    return low, inside.shape[-1] - np.where(inside.any(-1), inside[..., ::-1].argmax(-1), np.nan)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixup_golden(alpha):
    a, b = picture(6, 5, 3), picture(6, 5, 3, seed=1)
    mixed, weight = many(functools.partial(views.mixup, alpha=alpha), a, b, 4000)
    w = np.float64(weight)[:, None, None, None]
    np.testing.assert_allclose(mixed, w * np.float64(a) + (1 - w) * np.float64(b), atol=2e-6)
    quantiles = stats.beta(alpha, alpha).ppf((np.arange(4000) + 0.5) / 4000)
    np.testing.assert_allclose(np.sort(weight), quantiles, atol=0.06)


def test_quantiles_golden():
    """Pinned: other weights are other results."""
    for alpha, expected in {
        0.2: [0, 0, 6, 1341, 4093, 8192],
        1.0: [1, 17, 1025, 3073, 4095, 8191],
        4.0: [364, 762, 2452, 3622, 4096, 7828],
    }.items():
        table = mixing._quantiles(alpha)
        assert (table[[0, 8, 512, 1536, 2047, 4095]] * 8192).tolist() == expected
        quantiles = stats.beta(alpha, alpha).ppf((np.arange(4096) + 0.5) / 4096)
        np.testing.assert_allclose(table, quantiles, atol=0.51 / 8192)


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-3, 1e6))
def test_quantiles_are_ordered_symmetric_and_on_the_grid(alpha):
    table = mixing._quantiles(alpha)
    assert table.dtype == np.float32
    assert (np.diff(table) >= 0).all()
    np.testing.assert_array_equal(table, 1 - table[::-1])
    np.testing.assert_array_equal(table * 8192, np.round(table * 8192))
    assert table.min() >= 0.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixing_stays_between_the_two(name, seed):
    a, b = picture(7, 9, 2, seed=seed), picture(7, 9, 2, seed=seed + 1)
    mixed, weight = jitted(name)(jax.random.key(seed), a, b)
    assert 0.0 <= weight <= 1.0
    assert (mixed >= jnp.minimum(a, b) - 1e-6).all()
    assert (mixed <= jnp.maximum(a, b) + 1e-6).all()
    same, _ = jitted(name)(jax.random.key(seed), a, a)
    np.testing.assert_allclose(same, a, atol=1e-6)


@functools.cache
def jitted(name):
    return jax.jit(MIXES[name])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (11, 11), (9, 23)])
def test_cutmix_weight_is_the_share_of_pixels(height, width):
    inside, weight = boxes(MIXES["cutmix"], 3000, height, width)
    kept = (~inside).sum((1, 2))
    np.testing.assert_array_equal(np.float64(weight) * 2**24, kept * 2**24 // (height * width))
    assert (weight == 1.0).any()


def test_cutmix_pastes_bytes():
    a, b = picture(12, 12, 3), picture(12, 12, 3, seed=1)
    mixed, weight = many(MIXES["cutmix"], a, b, 200)
    from_b = (mixed == np.asarray(b)).all(-1)
    np.testing.assert_array_equal(mixed, np.where(from_b[..., None], b, a))
    assert 0.05 < weight.min() < 0.2
    assert weight.max() > 0.95


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_cutmix_boxes_golden(alpha):
    """The paper's box from the same draws in float64, then each edge rounded to a pixel."""
    height, width = 60, 44
    inside, _ = boxes(functools.partial(views.cutmix, alpha=alpha), 2000, height, width)
    drawn = jax.vmap(lambda key: jax.random.bits(key, (3,), jnp.uint32))
    unit = np.float64(drawn(jax.random.split(KEY, 2000))) / 2**32
    table = np.float64(mixing._quantiles(alpha))
    side = np.sqrt(1 - table[np.int64(unit[:, 0] * 4096)])
    for axis, size in ((1, height), (2, width)):
        low, high = edges(inside.any(3 - axis))
        seen = np.isfinite(low)
        for found, sign in ((low, -1), (high, 1)):
            edge = np.clip(unit[:, axis] + sign * side / 2, 0, 1) * size
            assert np.abs(found - edge)[seen].max() < 0.51
    assert (inside == (inside.any(2)[:, :, None] & inside.any(1)[:, None, :])).all()


def test_cutmix_draws_are_the_papers():
    """Inside the picture: area 1 - lambda, centre uniform and apart from it."""
    inside, weight = boxes(functools.partial(views.cutmix, alpha=8.0), 4000, 64, 64)
    low, high = edges(inside.any(2))
    left, right = edges(inside.any(1))
    clear = (low > 0) & (high < 64) & (left > 0) & (right < 64)
    area = ((high - low) * (right - left))[clear] / 64**2
    assert clear.sum() > 100
    np.testing.assert_allclose(weight[clear], 1 - area, atol=1e-6)
    # One edge only clipped still says where the other is: centres fill the whole axis.
    assert abs((low == 0).mean() - (high == 64).mean()) < 0.03
    assert abs(np.corrcoef(low + high, left + right)[0, 1]) < 0.05


@pytest.mark.parametrize(("small", "large"), [(16, 32), (20, 32), (8, 56)])
def test_another_size_gets_the_same_box(small, large):
    few, weight_few = boxes(MIXES["cutmix"], 1000, small, small)
    lot, weight_lot = boxes(MIXES["cutmix"], 1000, large, large)
    rounding = 0.5 / small + 0.5 / large + 1e-9
    for axis in (1, 2):
        for at_small, at_large in zip(edges(few.any(axis)), edges(lot.any(axis)), strict=True):
            seen = np.isfinite(at_small) & np.isfinite(at_large)
            assert seen.sum() > 900
            apart = np.abs(at_small / small - at_large / large)[seen]
            assert apart.max() <= rounding
    np.testing.assert_allclose(weight_few, weight_lot, atol=4 * rounding)
    assert np.abs(weight_few - np.roll(weight_lot, 1)).mean() > 0.1


def test_mixup_weight_does_not_depend_on_the_size():
    _, at_small = many(MIXES["mixup"], picture(4, 4, 1), picture(4, 4, 1), 50)
    _, at_large = many(MIXES["mixup"], picture(8, 8, 3), picture(8, 8, 3), 50)
    np.testing.assert_array_equal(at_small, at_large)


def test_mixing_draws_nothing_that_a_recipe_draws():
    """A recipe splits the example's key; splitting is folding in small numbers."""
    np.testing.assert_array_equal(
        jax.random.key_data(jax.random.split(KEY, 9)),
        jax.random.key_data(jax.vmap(lambda n: jax.random.fold_in(KEY, n))(jnp.arange(9))),
    )
    assert mixing.MIX == keys.stream_id("mix") > 2**16


def test_second_call_does_not_retrace():
    traces = []

    def mix(key, view_a, view_b):
        traces.append(key)
        return views.cutmix(
            key, *views.mixup(key, view_a, view_b, alpha=1.0)[:1], view_b, alpha=1.0
        )

    make = jax.jit(functools.partial(views.batch_mixed, mix))
    ids = jnp.arange(3, dtype=jnp.uint32)
    first, _ = make(STREAM, ids, ids, picture(3, 8, 8, 1), picture(3, 8, 8, 1, seed=1))
    second, _ = make(STREAM, ids + 1, ids, picture(3, 8, 8, 1), picture(3, 8, 8, 1, seed=1))
    assert len(traces) == 1
    assert (first != second).any()


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("mix", [views.mixup, views.cutmix])
def test_bad_alpha(mix, alpha):
    with pytest.raises(BadInput, match=r"^alpha: "):
        mix(KEY, picture(4, 4, 1), picture(4, 4, 1), alpha=alpha)


def test_a_view_too_large_to_count():
    with pytest.raises(BadInput, match=r"^view_a: "):
        views.cutmix(KEY, jnp.zeros((1, 2049, 1)), jnp.zeros((1, 2049, 1)), alpha=1.0)
    count = jnp.array([0, 1, 2**21, 2**22 - 1, 2**22])
    share = jax.vmap(lambda n: mixing._share(n, 2**22))(count)
    np.testing.assert_array_equal(share, np.asarray(count) / 2**22)
