import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from kdjax import tree
from kdjax.evaluate import flops
from kdjax.models import Classifier, efficientnet_b0, efficientnet_lite
from kdjax.types import BadInput

KEY = jax.random.key(0)


def test_parameters_and_operations_are_those_published():
    # torchvision, 1000 classes, 224 pixels.
    model = Classifier(efficientnet_b0(imagenet_stem=True), 1000)
    image = jnp.zeros((1, 224, 224, 3))
    variables = jax.eval_shape(lambda: model.init(KEY, image, train=False))
    assert tree.size(variables["params"]) == 5_288_548
    found = flops(lambda v, x: model.apply(v, x, train=False), variables, image) / 2
    assert found == pytest.approx(0.386e9, abs=0.0005e9)


def test_squeezes_are_a_quarter_of_what_arrives_at_the_block():
    rows = efficientnet_b0().rows
    arriving = (32, *(row.features for row in rows))
    assert [row.squeeze.width for row in rows] == [width // 4 for width in arriving[:-1]]
    assert [row.expanded for row in rows] == [None, *(6 * width for width in arriving[1:-1])]
    # As the table of the paper has it.
    assert [row.features for row in rows] == (
        [16] + [24] * 2 + [40] * 2 + [80] * 3 + [112] * 3 + [192] * 4 + [320]
    )
    assert [i for i, row in enumerate(rows) if row.stride == 2] == [1, 3, 5, 11]
    assert [i for i, row in enumerate(rows) if row.kernel_size == 5] == [3, 4, *range(8, 15)]


@pytest.mark.parametrize(
    ("size", "blocks", "features"),
    [
        (0, [1, 2, 2, 3, 3, 4, 1], [16, 24, 40, 80, 112, 192, 320]),
        (1, [1, 3, 3, 4, 4, 5, 1], [16, 24, 40, 80, 112, 192, 320]),
        (2, [1, 3, 3, 4, 4, 5, 1], [16, 24, 48, 88, 120, 208, 352]),
    ],
)
def test_lites_are_larger_between_their_ends(size, blocks, features):
    # The stages of timm's tf_efficientnet_lite0, 1 and 2; stem and head stay.
    found = efficientnet_lite(size)
    assert (found.stem_width, found.last_width, found.activation) == (32, 1280, nn.relu6)
    firsts = [i for i, row in enumerate(found.rows) if not row.residual]
    counts = [b - a for a, b in zip(firsts, [*firsts[1:], len(found.rows)], strict=True)]
    assert counts == blocks
    assert [found.rows[i].features for i in firsts] == features
    assert all(row.squeeze is None and row.activation is nn.relu6 for row in found.rows)


def test_there_are_three_lites():
    with pytest.raises(BadInput, match=r"encoder\.size: 3 is not one of 0, 1, 2"):
        efficientnet_lite(3)
