"""Sentences padded to any length have the losses and gradients of the sentences."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import losses
from kdjax.train import TrainState, forward_of, make_run_steps, make_train_step, weigh
from tests import runs
from tests.some import some

ROWS, WORDS, WIDTH, LONGEST = 32, 11, 8, 24


class Tagger(nn.Module):
    """Logits of a class for each word, and for the sentence; padding, which is zero, is masked."""

    @nn.compact
    def __call__(self, tokens, *, train):
        mask = tokens > 0
        place = self.param("place", nn.initializers.normal(), (LONGEST, WIDTH))
        beyond = jnp.zeros((max(0, tokens.shape[1] - LONGEST), WIDTH))
        x = nn.Embed(WORDS, WIDTH)(tokens)
        x = x + jnp.concatenate([place, beyond])[None, : tokens.shape[1]]
        attention = nn.MultiHeadDotProductAttention(num_heads=2)
        x = x + attention(nn.LayerNorm()(x), mask=mask[:, None, None])
        shown = mask[..., None].astype(x.dtype)
        sentence = nn.Dense(3)((x * shown).sum(1) / shown.sum(1))
        return {"tags": nn.Dense(WORDS)(x), "logits": sentence}


def tags(outputs, batch):
    """Of each word the one before it, over all words of the batch."""
    found = optax.softmax_cross_entropy_with_integer_labels(outputs["tags"], batch["before"])
    return found, batch["inputs"] > 0


def classes(outputs, batch):
    return losses.cross_entropy(outputs["logits"], batch["label"])


def sentences(length):
    random = np.random.default_rng(0)
    tokens = random.integers(1, WORDS, (ROWS, LONGEST))
    tokens[np.arange(LONGEST) >= random.integers(1, LONGEST + 1, (ROWS, 1))] = 0
    tokens[0] = random.integers(1, WORDS, LONGEST)
    tokens = np.pad(tokens, ((0, 0), (0, length - LONGEST))).astype(np.int32)
    return {
        "inputs": tokens,
        "before": np.pad(tokens, ((0, 0), (1, 0)))[:, :length],
        "label": random.integers(3, size=ROWS).astype(np.int32),
    }


def stepped(way, *, accumulate, length):
    """Metrics of one step, and the gradient by name."""
    parallel, tx, model = runs.WAYS[way](), optax.sgd(1.0), Tagger()
    variables = model.init(jax.random.key(1), jnp.ones((1, LONGEST), jnp.int32), train=False)
    objective = weigh(
        forward_of(model),
        {"tags": (1.0, tags), "classes": (0.5, classes)},
        axis_name=parallel.axis_name,
    )
    step = make_train_step(objective, tx, accumulate=accumulate, axis_name=parallel.axis_name)
    run_steps = parallel.compile(make_run_steps(lambda resident, feed, key: feed, step))
    before = jax.device_get(variables["params"])
    state, metrics = run_steps(
        parallel.replicate(TrainState.start(variables, tx)),
        {},
        parallel.feed({name: x[None] for name, x in sentences(length).items()}),
        parallel.replicate(jax.random.key(0)),
    )
    after = jax.device_get(state.params)
    return jax.device_get(metrics), jax.tree.map(np.subtract, before, after)


@pytest.fixture(scope="module")
def unpadded():
    return stepped("single", accumulate=1, length=LONGEST)


@pytest.mark.parametrize("length", some([24, 48, 72], 48))
@pytest.mark.parametrize("accumulate", some([1, 2, 4], 2))
@pytest.mark.parametrize("way", ["single", "pmap"])
def test_padding_changes_no_loss_and_no_gradient(unpadded, way, accumulate, length):
    metrics, gradient = stepped(way, accumulate=accumulate, length=length)
    expected, slopes = unpadded
    for name in ("loss", "loss/tags", "loss/classes"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=0, atol=1e-6)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(slopes))
    assert largest > 0.01
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-6 * largest), gradient, slopes
    )
