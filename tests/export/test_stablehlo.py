import importlib.util
import os
import re
import sysconfig

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax import export

from kdjax.export import load_stablehlo, write_stablehlo
from kdjax.types import Field


@pytest.fixture(scope="module")
def path(deployed, tmp_path_factory):
    path = tmp_path_factory.mktemp("stablehlo") / "model.stablehlo"
    write_stablehlo(deployed.predict, path, inputs=deployed.spec.inputs.fields)
    return path


def test_the_file_gives_the_logits_of_the_live_model(deployed, path):
    reloaded = load_stablehlo(path)
    for batch in (1, 3, 64):
        images = deployed.images(batch)
        live = deployed.live(images)
        found = np.asarray(reloaded(images))
        assert (found.shape, found.dtype) == ((batch, 10), np.float32)
        np.testing.assert_allclose(found, live, rtol=0, atol=1e-5 * np.abs(live).max())
        assert np.ptp(live, axis=0).min() > 1e-3 or batch == 1


def test_every_family_gives_the_logits_of_the_live_model(every_family, tmp_path):
    path = tmp_path / "model.stablehlo"
    write_stablehlo(every_family.predict, path, inputs=every_family.spec.inputs.fields)
    images = every_family.images(3)
    live = every_family.live(images)
    found = np.asarray(load_stablehlo(path)(images))
    np.testing.assert_allclose(found, live, rtol=0, atol=1e-5 * np.abs(live).max())


def test_the_file_says_what_it_takes_and_where_it_runs(path):
    exported = export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    (images,) = exported.in_avals
    assert (str(images.dtype), images.shape[1:]) == ("uint8", (12, 12, 3))
    assert not isinstance(images.shape[0], int)
    (logits,) = exported.out_avals
    assert logits.shape == (images.shape[0], 10)


def test_the_parameters_are_inside(deployed, path):
    bytes_of_parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(deployed.variables["params"]))
    assert path.stat().st_size > 0.9 * bytes_of_parameters


def test_images_of_another_shape_or_type_are_refused(path):
    reloaded = load_stablehlo(path)
    for wrong in (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 12, 12, 3), np.float32)):
        with pytest.raises(ValueError, match=r"[Ss]hape|dtype|uint8"):
            reloaded(wrong)


_NET = """
import flax.linen as nn
import jax
import jax.numpy as jnp


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(3, (3, 3))(x.astype(jnp.float32) / 255.0))
        x = jax.lax.cond(x.sum() > 0, lambda x: 2 * x, lambda x: x, x)
        return nn.Dense(4)(jax.checkpoint(jnp.tanh)(x.mean((1, 2))))
"""


def _written(folder, source):
    """The file of a network whose code lies in a folder."""
    folder.mkdir()
    (folder / "net.py").write_text(source)
    spec = importlib.util.spec_from_file_location("net", folder / "net.py")
    net = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(net)
    model: nn.Module = net.Net()
    images = np.zeros((1, 4, 4, 3), np.uint8)
    variables = model.init(jax.random.key(0), images)
    path = folder / "net.stablehlo"
    write_stablehlo(
        lambda x: model.apply(variables, x), path, inputs={"image": Field((4, 4, 3), "uint8")}
    )
    return path.read_bytes()


def test_a_file_does_not_say_where_the_code_lies(tmp_path, path):
    before = jax.config.jax_traceback_in_locations_limit
    one = _written(tmp_path / "one", _NET)
    # In a longer path, and at other lines.
    other = _written(tmp_path / "a longer name", "# moved\n\n" + _NET)
    assert one == other
    assert jax.config.jax_traceback_in_locations_limit == before
    here = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    for content in (one, path.read_bytes()):
        for place in (os.fspath(tmp_path), here, sysconfig.get_path("purelib"), os.getcwd()):
            assert place.encode() not in content
        assert not re.search(rb"[\w/\\]+\.py\b", content)
        assert b"Conv" in content or b"conv" in content  # what the operations are called is kept
