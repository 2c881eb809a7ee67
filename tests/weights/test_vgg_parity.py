"""The convolutions of torchvision's VGG give here what they give there."""

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models, weights

torch = pytest.importorskip("torch", reason="torch is not installed (extra: parity)")

from tests.weights import in_torch  # noqa: E402

pytestmark = pytest.mark.thorough


def test_torchvision(tmp_path):
    """Without its hidden layers, which the mean over space stands for here, and its last pooling."""
    torchvision = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    theirs = in_torch.randomized(torchvision.vgg11_bn(weights=None, num_classes=7)).eval()
    path = in_torch.saved(theirs, tmp_path / "x.safetensors")
    x = in_torch.images()
    encoder = models.vgg(11, pools=4)
    variables, account = weights.read(str(path), encoder, jnp.asarray(x), skip=r"classifier\..*")
    assert len(account.skipped) == 6
    with torch.no_grad():
        seen = torch.tensor(x).permute(0, 3, 1, 2)
        wanted = theirs.features[:-1](seen).mean(dim=(2, 3)).numpy()
    found = encoder.apply(variables, jnp.asarray(x), train=False)
    in_torch.close(np.asarray(found), wanted, 1e-4, "features")
