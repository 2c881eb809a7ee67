import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from kdjax import tree
from kdjax.evaluate import flops
from kdjax.models import Classifier, Compute, vit
from kdjax.types import BadInput

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
TINY = {"width": 6, "depth": 2, "heads": 3, "mlp": 5, "patch": 4}


def _shapes(model, image=(1, 8, 12, 3)):
    return jax.eval_shape(lambda: model.init(KEY, jnp.zeros(image), train=False))


@pytest.mark.parametrize(
    ("width", "heads", "published"),
    [(768, 12, 86_567_656), (384, 6, 22_050_664), (192, 3, 5_717_416)],
    ids=["vit-b", "vit-s", "vit-ti"],
)
def test_parameters_are_those_published_without_the_class_token(width, heads, published):
    # torchvision's and DeiT's with patches of 16: one token more, and the position of it.
    model = Classifier(vit(width=width, depth=12, heads=heads, mlp=4 * width, patch=16), 1000)
    variables = _shapes(model, (1, 224, 224, 3))
    assert tree.size(variables["params"]) == published - 2 * width

    tokens = 196
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    macs = tokens * 16 * 16 * 3 * width + 12 * block + 1000 * width
    image = jnp.zeros((1, 224, 224, 3))
    assert flops(lambda v, x: model.apply(v, x, train=False), variables, image) == 2 * macs


def test_a_vit_by_hand():
    model = vit(**TINY)
    image = jnp.asarray(RNG.normal(size=(2, 8, 12, 3)), jnp.float32)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(RNG.normal(0, 0.5, leaf.shape), leaf.dtype), _shapes(model)
    )
    flat = {k: np.asarray(v, np.float64) for k, v in tree.named_leaves(variables["params"]).items()}

    def norm(name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * flat[f"{name}/scale"] + flat[f"{name}/bias"]

    def dense(name, x, sum_over="i,io->o"):
        left, right = sum_over.split(",")
        result = np.einsum(f"bt{left},{right.replace('->', '->bt')}", x, flat[f"{name}/kernel"])
        return result + flat[f"{name}/bias"]

    def gelu(x):
        return x * special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))

    # Two rows of three patches, and within a patch rows, columns and channels.
    patches = np.asarray(image, np.float64).reshape(2, 2, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    x = patches.reshape(2, 6, 48) @ flat["patches/kernel"].reshape(48, 6) + flat["patches/bias"]
    x = x + flat["position"]
    for i in range(2):
        at = f"block{i}"
        y = norm(f"{at}/attention_norm", x)
        query, key, value = (
            dense(f"{at}/attention/{name}", y, "i,ihd->hd") for name in ("query", "key", "value")
        )
        assert query.shape == (2, 6, 3, 2)
        weights = special.softmax(np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(2), axis=-1)
        mixed = np.einsum("bhqk,bkhd->bqhd", weights, value)
        x = x + dense(f"{at}/attention/out", mixed, "hd,hdo->o")
        y = gelu(dense(f"{at}/mlp_in", norm(f"{at}/mlp_norm", x)))
        x = x + dense(f"{at}/mlp_out", y)
    expected = norm("norm", x).mean(1)
    found = jax.jit(lambda: model.apply(variables, image, train=False))()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [(8, 10), (6, 8), (2, 2)])
def test_patches_that_do_not_fit_are_refused(side):
    line = rf"encoder\.patch: 4 does not divide the image of {side[0]} x {side[1]} pixels"
    with pytest.raises(BadInput, match=line):
        _shapes(vit(**TINY), (1, *side, 3))


def test_heads_and_hidden_units_can_be_taken_away():
    def narrower(call, args, kwargs, context):
        module = context.module
        if module.path == ("block0", "attention"):
            object.__setattr__(module, "num_heads", 2)
            object.__setattr__(module, "qkv_features", 4)
        if module.path == ("block0", "mlp_in"):
            object.__setattr__(module, "features", 3)
        return call(*args, **kwargs)

    with nn.intercept_methods(narrower):
        params = tree.named_leaves(_shapes(vit(**TINY))["params"])
    assert params["block0/attention/query/kernel"].shape == (6, 2, 2)
    assert params["block0/attention/out/kernel"].shape == (2, 2, 6)
    assert params["block0/mlp_out/kernel"].shape == (3, 6)
    assert params["block1/attention/query/kernel"].shape == (6, 3, 2)
    assert params["block1/mlp_in/kernel"].shape == (6, 5)


def test_the_softmax_is_float32_among_bfloat16():
    model = vit(**TINY, compute=Compute(dtype=jnp.bfloat16))
    variables = _shapes(model)
    image = jnp.zeros((1, 8, 12, 3))
    jaxpr = jax.make_jaxpr(lambda v: model.apply(v, image, train=False))(variables)
    exps = [line for line in str(jaxpr).splitlines() if " = exp " in line]
    assert len(exps) == 2
    assert all(":f32[1,3,6,6]" in line for line in exps)


def test_the_softmax_is_as_exact_as_the_rest():
    """The bias of the keys moves all that a query looks at alike: no gradient, but for rounding."""
    with jax.enable_x64(True):
        image = jnp.asarray(RNG.normal(size=(2, 8, 12, 3)))
        model = vit(**TINY, compute=Compute(dtype=jnp.float64))
        params = model.init(KEY, image, train=False)["params"]
        draw = np.random.default_rng(1).normal
        params = jax.tree.map(lambda leaf: jnp.asarray(draw(size=leaf.shape)), params)
        gradients = jax.grad(lambda p: (model.apply({"params": p}, image, train=False) ** 2).sum())
        found = tree.named_leaves(jax.tree.map(np.asarray, gradients(params)))
    keys = [leaf for name, leaf in found.items() if name.endswith("key/bias")]
    assert len(keys) == TINY["depth"]
    largest = max(abs(leaf).max() for leaf in found.values())
    assert max(abs(leaf).max() for leaf in keys) < 1e-14 * largest


def _drawn(model, image):
    return jax.tree.map(
        lambda leaf: jnp.asarray(RNG.normal(0, 0.5, leaf.shape), leaf.dtype),
        _shapes(model, image.shape),
    )


@pytest.mark.parametrize("positions", ["patches", "class", "all"])
@pytest.mark.parametrize("norm_after_pool", [False, True])
def test_tokens_beside_the_patches_by_hand(positions, norm_after_pool):
    """With a depth of 1 and blocks that add nothing, the features are the tokens themselves."""
    model = vit(
        width=6,
        depth=1,
        heads=3,
        mlp=5,
        patch=4,
        class_token=True,
        registers=2,
        positions=positions,
        pool="class_and_mean",
        norm_after_pool=norm_after_pool,
        layer_scale=0.1,
    )
    image = jnp.asarray(RNG.normal(size=(2, 8, 12, 3)), jnp.float32)
    variables = _drawn(model, image)
    block = variables["params"]["block0"]
    for name in ("attention_scale", "mlp_scale"):
        block[name] = jnp.zeros_like(block[name])
    p = {k: np.asarray(v, np.float64) for k, v in tree.named_leaves(variables["params"]).items()}
    patches = np.asarray(image, np.float64).reshape(2, 2, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    tokens = patches.reshape(2, 6, 48) @ p["patches/kernel"].reshape(48, 6) + p["patches/bias"]
    first = np.concatenate([p["class_embedding"], p["register_embeddings"]], 1)
    placed = {"patches": 0, "class": 1, "all": 3}[positions]
    assert p["position"].shape == (1, placed + 6, 6)
    first[:, :placed] += p["position"][:, :placed]
    tokens = tokens + p["position"][:, placed:]

    def norm(x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * p["norm/scale"] + p["norm/bias"]

    if norm_after_pool:
        expected = norm(np.concatenate([np.tile(first[:, 0], (2, 1)), tokens.mean(1)], 1))
    else:
        expected = np.concatenate([np.tile(norm(first[:, 0]), (2, 1)), norm(tokens).mean(1)], 1)
    found = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, image)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # Of hidden patches nothing is seen; the class token stays.
    kept = jnp.array([[4, 1], [0, 5]])
    shown = np.take_along_axis(tokens, np.asarray(kept)[..., None], 1)
    found = model.apply(variables, image, train=False, kept=kept)
    if not norm_after_pool:
        np.testing.assert_allclose(found[:, 6:], norm(shown).mean(1), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[:, :6], expected[:, :6], rtol=1e-4, atol=1e-5)


def test_exact_gelu_scales_and_no_bias_by_hand():
    """One token: attention is its value, through the output."""
    model = vit(
        width=4,
        depth=1,
        heads=2,
        mlp=5,
        patch=4,
        gelu="exact",
        epsilon=0.1,
        qkv_bias=False,
        layer_scale=0.1,
    )
    image = jnp.asarray(RNG.normal(size=(3, 4, 4, 3)), jnp.float32)
    variables = _drawn(model, image)
    p = {k: np.asarray(v, np.float64) for k, v in tree.named_leaves(variables["params"]).items()}
    assert "block0/attention/value/bias" not in p
    assert "block0/attention/out/bias" not in p

    def norm(name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.1)
        return x * p[f"{name}/scale"] + p[f"{name}/bias"]

    x = np.asarray(image, np.float64).reshape(3, 48) @ p["patches/kernel"].reshape(48, 4)
    x = x + p["patches/bias"] + p["position"][0]
    value = np.einsum(
        "bi,ihd->bhd", norm("block0/attention_norm", x), p["block0/attention/value/kernel"]
    )
    out = np.einsum("bhd,hdo->bo", value, p["block0/attention/out/kernel"])
    x = x + p["block0/attention_scale"] * (out + p["block0/attention_bias"])
    y = norm("block0/mlp_norm", x) @ p["block0/mlp_in/kernel"] + p["block0/mlp_in/bias"]
    y = (y * special.ndtr(y)) @ p["block0/mlp_out/kernel"] + p["block0/mlp_out/bias"]
    expected = norm("norm", x + p["block0/mlp_scale"] * y)
    found = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, image)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"pool": "class"}, r"encoder\.pool, class_token: class needs a class token"),
        ({"positions": "class"}, r"encoder\.positions, class_token: there is no class token"),
        ({"positions": "all"}, r"encoder\.positions, registers: all tokens are"),
        ({"registers": -1}, r"encoder\.registers: -1 is negative"),
        ({"epsilon": 0.0}, r"encoder\.epsilon: 0.0 is not positive"),
    ],
)
def test_tokens_that_are_not_there_are_refused(fields, line):
    with pytest.raises(BadInput, match=line):
        vit(**TINY, **fields)
