"""Networks that read step by step: rows, tokens and the frames of recordings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import shrink, tree
from kdjax.models import CNN, LogMel, OnLogMel, RecurrentNet, RecurrentText
from kdjax.types import BadInput
from tests.some import some

LENGTHS = jnp.asarray([12, 7, 1, 0], jnp.int32)


@pytest.mark.parametrize("pool", some(["mean", "last", "none"], "mean"))
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_changes_no_features(pool, bidirectional):
    net = RecurrentNet((6, 5), bidirectional=bidirectional, pool=pool)
    x = jax.random.normal(jax.random.key(0), (4, 12, 3))
    variables = net.init(jax.random.key(1), x, LENGTHS, train=False)
    wide = net.apply(
        variables, jnp.pad(x, ((0, 0), (0, 9), (0, 0)), constant_values=7.0), LENGTHS, train=False
    )
    found = net.apply(variables, x, LENGTHS, train=False)
    if pool == "none":
        (found, mask), (wide, wider) = found, wide
        np.testing.assert_array_equal(mask.sum(1), np.maximum(LENGTHS, 1))
        np.testing.assert_array_equal(wider[:, :12], mask)
        assert not wider[:, 12:].any()
        wide = wide[:, :12]
        assert found.shape == (4, 12, 10 if bidirectional else 5)
    np.testing.assert_allclose(found, wide, atol=1e-6)
    for i, length in enumerate(np.maximum(LENGTHS, 1)):
        alone = net.apply(variables, x[i : i + 1, :length], train=False)
        if pool == "none":
            np.testing.assert_allclose(found[i, :length], alone[0][0], atol=1e-6)
        else:
            np.testing.assert_allclose(found[i], alone[0], atol=1e-6)


def test_sizes():
    """Of a direction 4 hidden (in + hidden + 1), as Keras counts them; a half more of a second one."""
    net = RecurrentNet((6, 5), bidirectional=True)
    made = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 4, 3)), train=False))
    assert tree.size(made["params"]) == 2 * 4 * 6 * (3 + 6 + 1) + 2 * 4 * 5 * (12 + 5 + 1)
    bias = net.init(jax.random.key(0), jnp.zeros((1, 4, 3)), train=False)["params"]["back0"]["bias"]
    np.testing.assert_array_equal(bias, np.asarray([0, 1, 0, 0])[:, None] * np.ones((4, 6)))


def test_a_picture_is_read_row_by_row():
    net = RecurrentNet((6,))
    image = jax.random.normal(jax.random.key(0), (2, 8, 5, 3))
    variables = net.init(jax.random.key(1), image, train=False)
    found = net.apply(variables, image, train=False)
    np.testing.assert_array_equal(found, net.apply(variables, image.reshape(2, 8, 15), train=False))


def test_a_stream_is_the_whole():
    net = RecurrentNet((6, 5), pool="none")
    x = jax.random.normal(jax.random.key(0), (2, 20, 3))
    variables = net.init(jax.random.key(1), x, train=False)
    whole, _ = net.apply(variables, x, train=False)
    found, states = [], None
    for piece in jnp.split(x, (1, 8, 9), axis=1):
        given, states = net.apply(variables, piece, states, method=net.stream)
        found.append(given)
    np.testing.assert_allclose(jnp.concatenate(found, 1), whole, atol=1e-6)
    both = RecurrentNet((6,), bidirectional=True)
    with pytest.raises(ValueError, match="reads backwards"):
        both.init(jax.random.key(0), x, method=both.stream)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_units_go_for_good(bidirectional):
    """Masked and smaller are one function, units of both directions and all that reads them."""
    net = RecurrentText(20, 8, RecurrentNet((12, 8), bidirectional=bidirectional, pool="last"))
    tokens = jax.random.randint(jax.random.key(0), (4, 12), 0, 20)
    variables = net.init(jax.random.key(1), tokens, LENGTHS, train=False)
    model = shrink.Model(net, lambda found: found[:, :2], {"train": False})
    groups = shrink.groups_of(model, variables, tokens, LENGTHS)
    sides = ("lstm", "back")[: 1 + bidirectional]
    assert {f"net/{side}0": 12 for side in sides}.items() <= groups.sizes.items()
    keep = shrink.keep_each(groups, shrink.group_l1(groups, variables["params"]), 0.5)
    masks = shrink.unit_masks(groups, keep, variables["params"])
    small = shrink.shrink(model, masks, variables, tokens, LENGTHS, groups=groups)
    masked = {**variables, "params": tree.apply_masks(masks, variables["params"])}
    expected = net.apply(masked, tokens, LENGTHS, train=False)[:, :2]
    found = small.module.apply(small.variables, tokens, LENGTHS, train=False)[:, :2]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert small.variables["params"]["net"]["lstm0"]["recurrent"].shape == (6, 4, 6)


def _recordings():
    random = np.random.default_rng(0)
    lengths = np.asarray([900, 400, 130, 40], np.int32)
    audio = np.zeros((4, 1000), np.int16)
    for row, length in zip(audio, lengths, strict=True):
        row[:length] = 3000 * random.normal(size=length)
    return jnp.asarray(audio), jnp.asarray(lengths)


@pytest.mark.parametrize("convention", ["librosa", "kaldi"])
def test_recordings_of_their_own_lengths(convention):
    """A recording gives the same alone as beside longer ones, whatever width all are padded to."""
    front = LogMel(rate=1000, frame=64, hop=32, bands=8, range=50.0, convention=convention)
    net = OnLogMel(front=front, net=RecurrentNet((6,)))
    audio, lengths = _recordings()
    variables = net.init(jax.random.key(1), audio, lengths, train=False)
    found = net.apply(variables, audio, lengths, train=False)
    wider = jnp.pad(audio, ((0, 0), (0, 500)))
    np.testing.assert_allclose(net.apply(variables, wider, lengths, train=False), found, atol=1e-5)
    for i, length in enumerate(lengths[:3]):  # the last is shorter than a frame
        alone = net.apply(variables, audio[i : i + 1, :length], train=False)
        np.testing.assert_allclose(found[i], alone[0], atol=1e-5)


def test_what_goes_with_no_lengths():
    audio, lengths = _recordings()
    front = LogMel(rate=1000, frame=64, hop=32, bands=8)
    net = OnLogMel(front=front, net=CNN((4,)))
    with pytest.raises(BadInput, match=r"^encoder.net: .* takes no lengths, .*take lstm, or give"):
        net.init(jax.random.key(0), audio, lengths, train=False)
    mirrored = LogMel(rate=1000, frame=64, hop=32, bands=8, convention="whisper")
    net = OnLogMel(front=mirrored, net=RecurrentNet((4,)))
    with pytest.raises(BadInput, match=r"^encoder.convention: whisper mirrors the end"):
        net.init(jax.random.key(0), audio, lengths, train=False)
