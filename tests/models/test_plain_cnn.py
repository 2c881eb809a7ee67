import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import PlainCNN
from kdjax.types import BadInput
from tests.shrink.parity import normal, variables_of


def test_the_network_by_hand():
    """A kernel that is the middle alone; an odd last column is left out by the pooling."""
    encoder, x = PlainCNN((2,), hidden=3), normal(0, 4, 2, 5, 2)
    variables = variables_of(encoder, x, train=False)
    params = variables["params"]
    middle = jnp.zeros((3, 3, 2, 2)).at[1, 1].set(params["conv0"]["kernel"][1, 1])
    params = {**params, "conv0": {**params["conv0"], "kernel": middle}}
    y = np.asarray(x, np.float64) @ np.asarray(middle[1, 1]) + np.asarray(params["conv0"]["bias"])
    pooled = np.maximum(y, 0)[:, :, :4].reshape(4, 1, 2, 2, 2, 2).max((2, 4)).reshape(4, -1)
    hidden = pooled @ np.asarray(params["hidden"]["kernel"]) + np.asarray(params["hidden"]["bias"])
    found = encoder.apply({"params": params}, x, train=False)
    np.testing.assert_allclose(found, np.maximum(hidden, 0), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_refused():
    with pytest.raises(BadInput, match=r"^encoder\.widths: empty"):
        PlainCNN(())
    with pytest.raises(BadInput, match=r"^encoder\.hidden: 0 is not positive"):
        PlainCNN((4,), hidden=0)
    encoder = PlainCNN((4, 4, 4))
    with pytest.raises(
        BadInput, match=r"^encoder\.widths: 3 poolings leave nothing of an image of 8 x 7"
    ):
        variables_of(encoder, jnp.zeros((1, 8, 7, 3)), train=False)
