import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.loss_deltas import loss_deltas
from kdjax.types import BadInput


def test_each_change_alone_in_one_compilation():
    traced = []

    def loss(state, batch):
        traced.append(1)
        return (state["a"] * batch).sum() + state["b"] ** 2

    whole = {"a": jnp.ones(2), "b": jnp.float32(1)}
    changes = {
        ("a", 0.5): {**whole, "a": jnp.array([1.0, 0.0])},
        "b": {**whole, "b": jnp.float32(3)},
        "nothing": whole,
    }
    batches = [jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])]
    found = loss_deltas(loss, whole, changes, batches)
    assert list(found) == list(changes)
    np.testing.assert_allclose(list(found.values()), [-3.0, 8.0, 0.0])
    assert len(traced) == 1


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(BadInput, match="batches: there is none"):
        loss_deltas(lambda state, batch: state, jnp.float32(1), {}, [])
    with pytest.raises(BadInput, match="loss: that of the whole model is not finite"):
        loss_deltas(lambda state, batch: state / batch, jnp.float32(0), {}, [jnp.float32(0)])
    found = loss_deltas(
        lambda s, b: s / b, jnp.float32(0), {"a": jnp.float32(np.inf)}, [jnp.float32(1)]
    )
    assert found == {"a": np.inf}
