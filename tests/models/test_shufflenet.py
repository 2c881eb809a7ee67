import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import ShuffleNetV2, shufflenet_v2
from kdjax.models.blocks import Compute
from kdjax.models.shufflenet import ShuffleUnit, shuffle
from kdjax.types import BadInput
from tests.shrink.parity import normal, variables_of


def test_a_shuffle_takes_the_groups_in_turn():
    x = jnp.arange(12.0)[None]
    np.testing.assert_array_equal(shuffle(x, 3)[0], [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11])
    np.testing.assert_array_equal(shuffle(x, 2)[0, :4], [0, 6, 1, 7])


def test_a_unit_by_hand():
    """One pixel: a depthwise convolution is a factor for each channel."""
    unit, x = ShuffleUnit(3, stride=1, compute=Compute(folded=True)), normal(0, 4, 1, 1, 6)
    variables = variables_of(unit, x, train=False)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])

    def conv(y, name, depthwise=False):
        kernel, bias = (params[name]["conv"][part] for part in ("kernel", "bias"))
        middle = kernel[kernel.shape[0] // 2, kernel.shape[1] // 2]
        return (y * middle[0] if depthwise else y @ middle) + bias

    whole = np.asarray(x, np.float64)[:, 0, 0]
    right = np.maximum(conv(whole[:, 3:], "expand"), 0)
    right = np.maximum(conv(conv(right, "depthwise", depthwise=True), "project"), 0)
    expected = np.stack([whole[:, :3], right], axis=-1).reshape(4, 6)
    found = jax.jit(lambda: unit.apply(variables, x, train=False))()
    np.testing.assert_allclose(found[:, 0, 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("stem", "sides"), [(False, [32, 16, 8]), (True, [8, 4, 2])])
def test_each_stage_halves_the_image(stem, sides):
    encoder = ShuffleNetV2(4, (8, 12), (1, 2), 6, imagenet_stem=stem)

    def run(x):
        variables = encoder.init(jax.random.key(0), x, train=False)
        return encoder.apply(variables, x, train=False, capture_intermediates=True)

    features, seen = jax.eval_shape(run, jnp.zeros((2, 32, 32, 3)))
    assert features.shape == (2, 6)
    seen = seen["intermediates"]
    given = seen["stage0_unit0"]["left_depthwise"]["__call__"][0].shape[1]
    assert [2 * given, *(seen[f"stage{i}_unit0"]["__call__"][0].shape[1] for i in (0, 1))] == sides
    assert seen["stage1_unit1"]["__call__"][0].shape == (2, sides[2], sides[2], 12)


def test_a_multiplier_that_is_in_no_table_is_refused():
    with pytest.raises(BadInput, match=r"encoder\.multiplier: 0.7 is not one of the paper's; take"):
        shufflenet_v2(multiplier=0.7)
