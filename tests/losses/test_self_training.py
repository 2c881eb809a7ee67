"""Pseudo-labels and how far they are trusted, against the equations in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.types import BadInput

MOMENTUM, SHARPNESS = 0.9, 1.5


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def drawn(batches, rows, classes, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, batches, rows, classes)) * 2


def by_hand(logits, predicted, prior):
    """The losses of the last batch; the running means are those of all batches, the newest most."""
    share = MOMENTUM ** np.arange(len(predicted))[::-1]
    p = [softmax(x) for x in predicted]

    def mean(values):
        return np.average(np.stack(values), axis=0, weights=share)

    aligned, sure = [], []
    for t, now in enumerate(p):
        so_far = MOMENTUM ** np.arange(t + 1)[::-1]
        shares = np.average([x.mean(0) for x in p[: t + 1]], axis=0, weights=so_far)
        q = now * prior / shares
        aligned.append(q / q.sum(-1, keepdims=True))
        sure.append(aligned[-1].max(-1))
    centre = mean([s.mean() for s in sure])
    variance = mean([(s**2).mean() for s in sure]) - centre**2
    below = np.minimum(sure[-1] - centre, 0)
    trust = np.exp(-(below**2) / (2 * variance / SHARPNESS**2))
    label = aligned[-1].argmax(-1)
    return -trust * np.log(softmax(logits))[np.arange(len(label)), label], trust


@pytest.mark.parametrize("prior", [None, [0.5, 0.2, 0.2, 0.1, 0.0]])
def test_it_is_the_equations(prior):
    logits, predicted = drawn(4, 12, 5)
    wanted = np.full(5, 0.2) if prior is None else np.array(prior)
    expected, trust = by_hand(logits[-1], predicted, wanted)
    state = losses.soft_match_state(5)
    for x, said in zip(logits, predicted, strict=True):
        found, state, found_trust = losses.soft_match(
            jnp.asarray(x),
            jnp.asarray(said),
            state,
            prior=None if prior is None else jnp.asarray(prior, jnp.float32),
            momentum=MOMENTUM,
            sharpness=SHARPNESS,
        )
    np.testing.assert_allclose(found_trust, trust, rtol=1e-5)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert trust.min() < 0.9
    assert trust.max() == 1


def test_a_gradient_reaches_the_strong_views_alone():
    (logits, said), state = drawn(1, 6, 3)[:, 0], losses.soft_match_state(3)

    def total(logits, said):
        return losses.soft_match(logits, said, state)[0].sum()

    of_logits, of_said = jax.grad(total, (0, 1))(jnp.asarray(logits), jnp.asarray(said))
    _, _, trust = losses.soft_match(jnp.asarray(logits), jnp.asarray(said), state)
    shares = softmax(said).mean(0)
    label = (softmax(said) / shares).argmax(-1)
    expected = np.asarray(trust)[:, None] * (softmax(logits) - np.eye(3)[label])
    np.testing.assert_allclose(of_logits, expected, atol=1e-6)
    assert not of_said.any()


def test_devices_see_the_statistics_of_all():
    (logits, said), state = drawn(1, 16, 4, seed=3)[:, 0], losses.soft_match_state(4)
    whole = losses.soft_match(jnp.asarray(logits), jnp.asarray(said), state)
    parts = jax.vmap(
        lambda x, said: losses.soft_match(x, said, state, axis_name="devices"),
        axis_name="devices",
    )(logits.reshape(4, 4, 4), said.reshape(4, 4, 4))
    np.testing.assert_allclose(parts[0].ravel(), whole[0], rtol=1e-4)
    for found, expected in zip(parts[1], whole[1], strict=True):
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-5)


def test_a_class_of_no_share_is_never_a_pseudo_label():
    said = jnp.asarray([[9.0, 0.0, 1.0]] * 4)
    prior = jnp.asarray([0.0, 0.5, 0.5])
    found, _, _ = losses.soft_match(
        jnp.asarray([[-jnp.inf, 0.0, 0.0]] * 4),
        said,
        losses.soft_match_state(3),
        prior=prior,
    )
    np.testing.assert_allclose(found, np.log(2), rtol=1e-6)


@pytest.mark.parametrize("field", ["momentum", "sharpness"])
def test_out_of_range(field):
    with pytest.raises(BadInput, match=f"^{field}: "):
        losses.soft_match(
            jnp.zeros((2, 3)),
            jnp.zeros((2, 3)),
            losses.soft_match_state(3),
            **{field: {"momentum": 1.0, "sharpness": 0.0}[field]},
        )
