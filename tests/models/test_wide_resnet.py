import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import tree
from kdjax.models import Classifier, Compute, WideResNet, fold, wide_resnet
from kdjax.types import BadInput
from tests.shrink.parity import normal, variables_of


def _norm(x, variables, path):
    params = tree.named_leaves(variables["params"])
    stats = tree.named_leaves(variables["batch_stats"])
    scale, bias, mean, var = (
        np.asarray(of[f"{path}/{name}"], np.float64)
        for of, name in ((params, "scale"), (params, "bias"), (stats, "mean"), (stats, "var"))
    )
    return np.maximum((x - mean) / np.sqrt(var + 1e-5) * scale + bias, 0)


def test_blocks_by_hand():
    """One pixel, so that a convolution is the middle of its kernel; a shortcut of each kind."""
    encoder = WideResNet(blocks=(2,), widths=(3, 4), project_first=True)
    x = normal(0, 5, 1, 1, 2)
    variables = variables_of(encoder, x, train=False)
    kernels = {
        name.removesuffix("/kernel"): np.asarray(kernel, np.float64)
        for name, kernel in tree.named_leaves(variables["params"]).items()
        if name.endswith("kernel")
    }

    def conv(x, path):
        kernel = kernels[path]
        return x @ kernel[kernel.shape[0] // 2, kernel.shape[1] // 2]

    found = conv(np.asarray(x, np.float64)[:, 0, 0], "stem")
    for block in ("stage0_block0", "stage0_block1"):
        before = _norm(found, variables, f"{block}/norm")
        y = _norm(conv(before, f"{block}/first/conv"), variables, f"{block}/first/norm")
        # A shortcut that projects has what the first ReLU gives, another one the block's own input.
        short = conv(before, f"{block}/shortcut") if block == "stage0_block0" else found
        found = short + conv(y, f"{block}/second")
    expected = _norm(found, variables, "norm")
    got = jax.jit(lambda: encoder.apply(variables, x, train=False))()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("widen", "left"),
    [
        (2, {"norm", "stage1_block0", "stage2_block0"}),
        (1, {"norm", *(f"stage{i}_block0" for i in range(3))}),
    ],
)
def test_norms_behind_a_sum_stay_in_a_folded_network(widen, left):
    """With a factor above 1 the first block's follows the stem alone."""
    model, x = Classifier(wide_resnet(10, widen=widen), 3), jnp.zeros((1, 8, 8, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    found = jax.eval_shape(lambda v: fold(model, v, x, train=False), variables)
    assert set(found["batch_stats"]["encoder"]) == left
    assert all("first" not in block for block in found["batch_stats"]["encoder"].values())


def test_a_folded_network_that_is_trained_keeps_its_statistics():
    folded = Classifier(WideResNet((1,), (4, 6), compute=Compute(folded=True)), 3)
    x = normal(1, 4, 6, 6, 3)
    variables = variables_of(folded, x, train=False)
    trained, state = folded.apply(variables, x, train=True, mutable=["batch_stats"])
    jax.tree.map(
        np.testing.assert_array_equal, state.get("batch_stats", {}), variables["batch_stats"]
    )
    evaluated = folded.apply(variables, x, train=False)
    np.testing.assert_array_equal(trained["logits"], evaluated["logits"])


@pytest.mark.parametrize("depth", [-2, 4, 8, 18, 20])
def test_a_depth_that_is_not_6n_plus_4_is_refused(depth):
    with pytest.raises(BadInput, match=rf"encoder\.depth: {depth} is not 6n \+ 4"):
        wide_resnet(depth)
