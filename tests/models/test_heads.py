import jax
import jax.numpy as jnp
import numpy as np

from kdjax.models import CNN, Classifier, Compute, EncoderProjector, Projector

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
FEATURES = jnp.asarray(RNG.normal(size=(16, 5)), jnp.float32)


def _shapes(tree):
    return jax.tree.map(lambda leaf: leaf.shape, tree)


def test_projector_has_norms_between_its_layers_and_none_after_the_last():
    shapes = jax.eval_shape(lambda: Projector((7, 6, 3)).init(KEY, FEATURES, train=False))
    assert _shapes(shapes["params"]) == {
        "dense0": {"kernel": (5, 7)},
        "norm0": {"scale": (7,), "bias": (7,)},
        "dense1": {"kernel": (7, 6)},
        "norm1": {"scale": (6,), "bias": (6,)},
        "dense2": {"kernel": (6, 3), "bias": (3,)},
    }
    assert set(shapes["batch_stats"]) == {"norm0", "norm1"}


def test_a_projector_of_one_width_is_linear():
    model = Projector((3,))
    variables = model.init(KEY, FEATURES, train=False)
    assert set(variables) == {"params"}
    layer = jax.tree.map(np.asarray, variables["params"]["dense0"])
    found = model.apply(variables, FEATURES, train=True)
    expected = np.asarray(FEATURES) @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_projector_by_hand_and_over_eight_devices():
    one, many = Projector((7, 3)), Projector((7, 3), Compute(axis_name="data"))
    variables = jax.jit(lambda: many.init(KEY, FEATURES, train=False))()
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    hidden = np.asarray(FEATURES, np.float64) @ params["dense0"]["kernel"]
    hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
    expected = np.maximum(hidden, 0) @ params["dense1"]["kernel"]

    def train(model, x):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])

    found, state = jax.jit(lambda x: train(one, x))(FEATURES)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    mapped, states = jax.pmap(lambda x: train(many, x), axis_name="data")(FEATURES.reshape(8, 2, 5))
    np.testing.assert_allclose(mapped.reshape(16, 3), found, rtol=1e-5, atol=1e-6)
    for new, old in zip(jax.tree.leaves(states), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(new, np.tile(old, (8, 1)), rtol=1e-5, atol=1e-6)


def test_named_outputs_and_float32_whatever_the_activations_are():
    compute = Compute(dtype=jnp.bfloat16)
    image = jnp.zeros((2, 6, 6, 1))

    def run(model):
        variables = model.init(KEY, image, train=False)
        return variables, model.apply(variables, image, train=False)

    encoder = CNN((4, 6), compute)
    variables, out = jax.eval_shape(lambda: run(Classifier(encoder, 3)))
    assert _shapes(out) == {"features": (2, 6), "logits": (2, 3)}
    assert set(variables["params"]) == {"encoder", "classifier"}
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, out))} == {jnp.dtype("float32")}

    variables, out = jax.eval_shape(
        lambda: run(EncoderProjector(encoder, Projector((7, 3), compute)))
    )
    assert _shapes(out) == {"features": (2, 6), "projections": (2, 3)}
    assert set(variables["params"]) == {"encoder", "projector"}
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, out))} == {jnp.dtype("float32")}


def test_the_classifier_is_linear_in_the_features():
    model = Classifier(CNN((4,)), 3)
    image = jnp.asarray(RNG.normal(size=(2, 3, 3, 1)), jnp.float32)
    variables = jax.jit(lambda: model.init(KEY, image, train=False))()
    out = jax.jit(lambda: model.apply(variables, image, train=False))()
    layer = jax.tree.map(np.asarray, variables["params"]["classifier"])
    expected = np.asarray(out["features"]) @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(out["logits"], expected, rtol=1e-5, atol=1e-6)


def test_classifier_and_contrastive_keep_one_encoder_tree():
    # So that a pretrained encoder is carried over without renaming.
    image = jnp.zeros((2, 6, 6, 1))

    def params(model):
        return jax.eval_shape(lambda: model.init(KEY, image, train=False))

    a, b = params(Classifier(CNN((4,)), 3)), params(EncoderProjector(CNN((4,)), Projector((3,))))
    assert a["params"]["encoder"] == b["params"]["encoder"]
    assert a["batch_stats"] == b["batch_stats"]
