import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import CNN, Classifier, capture, cifar_resnet, vit
from kdjax.types import BadInput

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
MODEL = Classifier(cifar_resnet(8), 3)
IMAGE = jnp.asarray(RNG.normal(size=(2, 8, 8, 3)), jnp.float32)
VARIABLES = jax.jit(lambda: MODEL.init(KEY, IMAGE, train=False))()
PATHS = ("encoder/stage2_block0", "encoder", "encoder/stage0_block0/first/norm")


def test_features_are_what_the_modules_return():
    def run(variables):
        found = capture(MODEL, variables, IMAGE, paths=PATHS, train=False)
        return found, MODEL.apply(variables, IMAGE, train=False, capture_intermediates=True)

    (outputs, features, state), (expected, every) = jax.jit(run)(VARIABLES)
    assert set(features) == set(PATHS)
    assert state == {}
    jax.tree.map(np.testing.assert_array_equal, outputs, expected)
    np.testing.assert_array_equal(features["encoder"], outputs["features"])
    inside = every["intermediates"]["encoder"]
    for path in (PATHS[0], PATHS[2]):
        seen = inside
        for name in path.split("/")[1:]:
            seen = seen[name]
        np.testing.assert_array_equal(features[path], seen["__call__"][0])
    # The mean over space of the last block is the encoder's output.
    np.testing.assert_allclose(
        features[PATHS[0]].mean((1, 2)), outputs["features"], rtol=1e-5, atol=1e-6
    )


def test_nothing_else_is_kept_or_computed():
    def run(variables):
        return capture(MODEL, variables, IMAGE, paths=PATHS[:1], train=False)

    traced = jax.make_jaxpr(run)(VARIABLES)
    plain = jax.make_jaxpr(lambda v: MODEL.apply(v, IMAGE, train=False))(VARIABLES)
    assert [x.shape for x in traced.out_avals] == [(2, 64), (2, 3), (2, 2, 2, 64)]
    assert len(traced.eqns) == len(plain.eqns)


def test_statistics_move_in_training_as_they_do_without_it():
    def run(variables):
        return (
            capture(MODEL, variables, IMAGE, paths=PATHS, mutable=["batch_stats"], train=True),
            MODEL.apply(variables, IMAGE, train=True, mutable=["batch_stats"]),
        )

    (outputs, _, state), (expected, expected_state) = jax.jit(run)(VARIABLES)
    assert set(state) == {"batch_stats"}
    jax.tree.map(np.testing.assert_array_equal, (outputs, state), (expected, expected_state))


def test_gradients_come_back_through_a_feature():
    def energy(params):
        variables = {**VARIABLES, "params": params}
        found = capture(MODEL, variables, IMAGE, paths=["encoder/stage1_block0"], train=False)
        return (found.features["encoder/stage1_block0"] ** 2).sum()

    grads = jax.jit(jax.grad(energy))(VARIABLES["params"])

    def largest(tree):
        return max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree))

    assert largest(grads["encoder"]["stem"]) > 0
    assert largest(grads["encoder"]["stage2_block0"]) == 0  # it comes later
    assert largest(grads["classifier"]) == 0


@pytest.mark.parametrize(
    ("encoder", "path", "shape"),
    [
        (vit(width=8, depth=2, heads=2, mlp=8, patch=4), "encoder/block1", (2, 4, 8)),
        (CNN((4, 6)), "encoder/block1", (2, 4, 4, 6)),
    ],
    ids=["vit", "cnn"],
)
def test_other_models_need_no_change(encoder, path, shape):
    model = Classifier(encoder, 3)

    def run():
        variables = model.init(KEY, IMAGE, train=False)
        return capture(model, variables, IMAGE, paths=[path], train=False)

    assert jax.eval_shape(run).features[path].shape == shape


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("encoder/stage1_block1", "encoder/stage1_block0"),
        ("stage2_block0", "encoder/stage2_block0"),
        ("encoder.stem", "encoder/stem"),
    ],
)
def test_an_unknown_path_is_named_with_what_is_near(path, near):
    def run(variables):
        return capture(MODEL, variables, IMAGE, paths=["encoder", path], train=False)

    with pytest.raises(BadInput) as refused:
        jax.eval_shape(run, VARIABLES)
    line = str(refused.value)
    assert line.startswith(f"paths: no module is called at {path!r}; the nearest are ")
    close = line.split("the nearest are ")[1].split(", ")
    assert near in close
    assert len(close) == 3


class _Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        shared = nn.Dense(2, name="shared")
        return nn.Dense(2, name="once")(shared(shared(x)))


def test_a_module_that_is_called_twice_is_refused():
    model, x = _Twice(), jnp.ones((1, 2))
    variables = model.init(KEY, x)
    assert set(capture(model, variables, x, paths=["once"]).features) == {"once"}
    with pytest.raises(BadInput, match="paths: shared is called 2 times"):
        capture(model, variables, x, paths=["once", "shared"])
