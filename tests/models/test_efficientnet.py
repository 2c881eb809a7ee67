import jax
import jax.numpy as jnp
import pytest

from kdjax import tree
from kdjax.evaluate import flops
from kdjax.models import Classifier, efficientnet_b0

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
