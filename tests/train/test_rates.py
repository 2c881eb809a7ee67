"""Learning rates of layers: held against the published rules, computed here by themselves."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import models
from kdjax.train import optimizers, rates
from kdjax.types import BadInput

IMAGE = jnp.zeros((1, 16, 16, 3))


def in_order(encoder):
    return models.names_in_order(models.Classifier(encoder, 10), IMAGE, train=True)


def scales(names, decay=0.75, layers=(), of=()):
    return rates.factors(names, layer_decay=decay, layers=layers, rates=of)


def beit(name, depth):
    """The layer of a ViT's parameter as BEiT and MAE number them, and its rate over that of the head."""
    part = name.split("/")[1]
    if part in ("patches", "position"):
        layer = 0
    elif part.startswith("block"):
        layer = int(part.removeprefix("block")) + 1
    else:
        layer = depth + 1
    return 0.75 ** (depth + 1 - layer)


def test_a_vit_is_as_beit_and_mae_have_it():
    names = in_order(models.vit(width=8, depth=12, heads=2, mlp=8, patch=8))
    found = scales(names)
    assert found == {name: pytest.approx(beit(name, 12), rel=1e-12) for name in names}
    assert found["encoder/patches/kernel"] == pytest.approx(0.75**13)
    assert found["encoder/block11/mlp_in/kernel"] == 0.75
    assert found["encoder/norm/scale"] == found["classifier/kernel"] == 1


def test_a_resnet_is_as_timm_has_it():
    """Each block a layer, the stem one, and the classifier at the full rate."""
    found = scales(in_order(models.resnet18(width=4)))
    order = ["stem", *(f"stage{s}_block{b}" for s in range(4) for b in range(2))]
    for name, scale in found.items():
        _, part, *_ = name.split("/")
        expected = 1 if name.startswith("classifier") else 0.75 ** (9 - order.index(part))
        assert scale == pytest.approx(expected, rel=1e-12), name


def test_ten_is_after_nine():
    found = rates.layers_of(in_order(models.mobilenet_v2()))
    layers = {name.split("/")[1]: layer for name, layer in found.items()}
    expected = {"stem": 0, **{f"block{i}": i + 1 for i in range(17)}}
    assert layers == expected  # the last convolution learns as the classifier does


class Plain(nn.Module):
    """As linen names what has no name, with a transition before a stage."""

    @nn.compact
    def __call__(self, x, *, train):
        x = self.param("shift", nn.initializers.zeros, (1, 1, 1, 3)) + x
        for width in (4, 4, 8):
            x = nn.relu(nn.BatchNorm(not train)(nn.Conv(width, (3, 3))(x)))
        x = nn.Conv(8, (2, 2), name="downsample3")(x)
        x = nn.Conv(8, (2, 2), name="stage3_block0")(x)
        x = nn.Conv(8, (2, 2), name="mix")(x)
        x = nn.Conv(8, (2, 2), name="stage3_block1")(x)
        return nn.LayerNorm(name="last")(x).mean((1, 2))


def test_a_module_of_ones_own_by_its_structure():
    names = in_order(Plain())
    layers = {}
    for name, layer in rates.layers_of(names).items():
        layers.setdefault(layer, set()).add(name.split("/")[1])
    assert layers == {
        0: {"shift"},
        1: {"Conv_0", "BatchNorm_0"},
        2: {"Conv_1", "BatchNorm_1"},
        3: {"Conv_2", "BatchNorm_2"},
        4: {"downsample3", "stage3_block0", "mix"},
        5: {"stage3_block1"},
    }
    assert scales(names)["encoder/last/scale"] == 1


def test_patterns_say_the_layers_in_their_order():
    names = in_order(models.vit(width=8, depth=12, heads=2, mlp=8, patch=8))
    layers = (r"encoder/(?:patches|position).*", r"encoder/block(\d+)/.*", "encoder/norm/.*")
    found = scales(names, 0.5, layers)
    assert found["encoder/position"] == found["encoder/patches/bias"] == 0.5**14
    assert found["encoder/block10/mlp_in/bias"] == 0.5**3
    assert found["encoder/norm/bias"] == 0.5
    assert found["classifier/bias"] == 1
    two = scales(names, 0.5, (r"encoder/(?:block[0-5]/|patches|position).*", "encoder/.*"))
    assert {two[name] for name in names if name.startswith("encoder")} == {0.25, 0.5}


def test_rates_multiply_and_the_first_that_matches_counts():
    names = [
        "encoder/block0/kernel",
        "encoder/block1/kernel",
        "classifier/kernel",
        "beside/p/kernel",
    ]
    found = scales(names, 0.5, of=[("classifier/.*", 10.0), (".*block1.*", 3.0), (".*", 2.0)])
    assert found == {names[0]: 0.25 * 2, names[1]: 0.5 * 3, names[2]: 10, names[3]: 1}


def test_updates_by_hand():
    """Three steps of AdamW in float64, with a rate and a decay of each layer."""
    random = np.random.default_rng(0)
    names = ["encoder/block0/kernel", "encoder/block1/kernel", "classifier/kernel"]
    by = dict(zip(names, (0.25, 0.5, 1.0), strict=True))
    own = {name: random.normal(size=4) for name in names}
    grads = [{name: random.normal(size=4) for name in names} for _ in range(3)]

    def tree(values):
        values = {name: jnp.float32(value) for name, value in values.items()}
        blocks = {f"block{i}": {"kernel": values[names[i]]} for i in range(2)}
        return {"encoder": blocks, "classifier": {"kernel": values[names[2]]}}

    tx = optax.chain(
        optimizers.adamw(lambda _: 0.1, b1=0.9, b2=0.99, weight_decay=0.2, decayed=".*"),
        rates.scaled(lambda: scales(names, 0.5)),
    )
    params, first, second = tree(own), dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    state = tx.init(params)
    for t, grad in enumerate(grads, 1):
        updates, state = tx.update(tree(grad), state, params)
        params = optax.apply_updates(params, updates)
        for name in names:
            first[name] = 0.9 * first[name] + 0.1 * grad[name]
            second[name] = 0.99 * second[name] + 0.01 * grad[name] ** 2
            step = first[name] / (1 - 0.9**t) / (np.sqrt(second[name] / (1 - 0.99**t)) + 1e-8)
            own[name] = own[name] - 0.1 * by[name] * (step + 0.2 * own[name])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, tree(own))


@pytest.mark.parametrize(
    ("how", "line"),
    [
        (
            {"layers": ("encoder/patches.*", r"encoder/blok(\d+).*")},
            r"optimizer.layers\[1\]: 'encoder/blok.* has no parameter",
        ),
        ({"layers": ("encoder/.*", "encoder/block0/.*")}, r"optimizer.layers\[1\]: "),
        ({"of": [("head/.*", 2.0)]}, r"optimizer.rates\[0\]: 'head/.\*' matches no parameter"),
        (
            {"of": [("encoder/.*", 2.0), ("encoder/block0.*", 3.0)]},
            r"optimizer.rates\[1\]: earlier patterns took all",
        ),
    ],
)
def test_patterns_that_match_nothing_are_refused(how, line):
    names = in_order(models.vit(width=8, depth=2, heads=2, mlp=8, patch=8))
    with pytest.raises(BadInput, match=line):
        scales(names, **how)


def test_an_encoder_without_a_numbered_part_wants_patterns():
    names = ["encoder/body/kernel", "encoder/neck/kernel", "classifier/kernel"]
    with pytest.raises(
        BadInput, match=r"layer_decay: no part .* body, neck; give optimizer.layers"
    ):
        scales(names)
    assert scales(names, layers=("encoder/body.*", "encoder/neck.*"))[names[0]] == 0.75**2
