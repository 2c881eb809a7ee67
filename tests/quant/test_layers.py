import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kdjax import tree
from kdjax.config.encoders.cnn import CNN
from kdjax.config.encoders.convnext import ConvNeXt
from kdjax.config.encoders.mlperf_tiny import DSCNN, MLPerfResNet8
from kdjax.config.encoders.mobilenet import (
    EfficientNetB0,
    EfficientNetLite0,
    MobileNetV2,
    MobileNetV3,
)
from kdjax.config.encoders.plain_cnn import PlainCNN
from kdjax.config.encoders.resnet import CifarResNet, ResNet18, ResNet50
from kdjax.config.encoders.se_resnet import SEResNet
from kdjax.config.encoders.vgg import VGG
from kdjax.config.encoders.vit import ViT, ViTTiny
from kdjax.models import Classifier, Compute
from kdjax.quant import graph_of
from tests.shrink import nets

IMAGES, TOKENS, VECTORS = (2, 6, 6, 3), (2, 4, 5), (2, 5)
KEY = jax.random.key(0)


def _net(function):
    """A linen module of a function of its input."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return function(x)

    return Net()


def _graph(module, shape, dtype=jnp.float32, **kwargs):
    x = jnp.zeros(shape, dtype)
    shapes = jax.eval_shape(lambda: module.init(KEY, x))
    return graph_of(lambda v, x: module.apply(v, x, **kwargs), shapes, x)


def _names(graph):
    return [layer.name.removesuffix("/kernel") for layer in graph.layers]


def _said(graph):
    """What is quantized if all layers are, and the layers' own bias and rectification."""
    tensors = graph.tensors([layer.name for layer in graph.layers])
    epilogues = {
        layer.name.removesuffix("/kernel"): "bias" * layer.bias + "+clip" * layer.clipped
        for layer in graph.layers
    }
    return [name.replace("/kernel", "") for name in tensors.values()], epilogues


def _maker(graph, value):
    """The operation that makes a value, or reads None of an input."""
    return next((s.name for s in graph.flat.steps if value in s.results), None)


def test_a_convolution_its_bias_and_its_rectification_are_one():
    def net(x):
        x = nn.relu(nn.Conv(4, (3, 3), name="a")(x))
        x = nn.relu6(nn.Conv(4, (3, 3), feature_group_count=4, name="depthwise")(x))
        x = jnp.clip(nn.Conv(5, (1, 1), use_bias=False, name="b")(x), -1, 2)
        return nn.Dense(3, name="head")(x.mean((1, 2)))

    graph = _graph(_net(net), IMAGES)
    tensors, epilogues = _said(graph)
    assert epilogues == {"a": "bias+clip", "depthwise": "bias+clip", "b": "+clip", "head": "bias"}
    assert tensors == ["input0", "a:out", "depthwise:out", "b:out", "head:in"]
    assert graph.edges == ("a/kernel", "head/kernel")
    a, depthwise, b, head = graph.layers
    assert [layer.convolution for layer in graph.layers] == [True, True, True, False]
    assert [layer.channels for layer in graph.layers] == [(3,), (3,), (3,), (1,)]
    assert (depthwise.input, b.input) == (a.output, depthwise.output)
    assert (a.input,) == graph.inputs
    assert graph.final == {head.output}
    assert graph.flat.shape(a.output) == (2, 6, 6, 4)


def test_what_no_layer_has_made_is_what_the_first_one_sees():
    def net(x):
        spectra = jnp.log1p(jnp.square(x @ jnp.ones((8, 6))))
        shown = x[:, 0] > 0  # of the input as well, and no layer is the first for it
        x = nn.Dense(4, name="a")(spectra - spectra.mean(1, keepdims=True))
        x = nn.Dense(4, name="b")(jnp.where(shown[:, None], x, 0.0))
        return nn.Dense(3, name="head")(x)

    assert _graph(_net(net), (2, 8)).edges == ("a/kernel", "head/kernel")


def test_a_residual_sum_and_its_rectification_are_one():
    def net(x):
        x = nn.relu(nn.Dense(4, name="stem")(x))
        x = nn.relu(x + nn.Dense(4, name="b")(nn.relu(nn.Dense(4, name="a")(x))))
        return nn.Dense(3, name="head")(x)

    graph = _graph(_net(net), VECTORS)
    assert _said(graph)[0] == ["input0", "stem:out", "a:out", "b:out", "sum0:out"]
    (added,) = graph.sums
    assert added.clipped
    stem, _, b, head = graph.layers
    assert {added.left, added.right} == {stem.output, b.output}
    assert head.input == added.output
    # The sum is not quantized unless both of its branches are.
    assert [*graph.tensors(["head/kernel", "a/kernel"]).values()] == [
        "stem/kernel:out",
        "a/kernel:out",
        "sum0:out",
    ]
    assert [*graph.tensors(["a/kernel"]).values()] == ["stem/kernel:out", "a/kernel:out"]


def test_a_gate_and_its_product_are_quantized_where_both_that_make_them_are():
    def net(x):
        x = jax.nn.hard_swish(nn.Conv(4, (3, 3), name="a")(x))
        gate = nn.relu(nn.Dense(2, name="reduce")(x.mean((1, 2))))
        gate = jax.nn.hard_sigmoid(nn.Dense(4, name="expand")(gate))
        return nn.Conv(3, (1, 1), name="head")(x * gate[:, None, None])

    graph = _graph(_net(net), IMAGES)
    swish, excitation = graph.gated
    a, reduce, expand, head = graph.layers
    assert swish.value == swish.of == a.output
    assert (excitation.value, excitation.of) == (swish.output, expand.output)
    assert head.input == excitation.output
    assert {(gated.offset, gated.size) for gated in graph.gated} == {(3.0, 6.0)}
    tensors = graph.tensors([layer.name for layer in graph.layers])
    assert tensors[swish.gate], tensors[swish.output] == ("gate0:out", "gated0:out")
    assert tensors[excitation.gate] == "gate1:out"
    assert tensors[reduce.input] == "reduce/kernel:in"
    # In float: what a gate is made of, or what it is multiplied with.
    tensors = graph.tensors(["reduce/kernel", "expand/kernel", "head/kernel"])
    assert [*tensors.values()] == [
        "reduce/kernel:in",
        "reduce/kernel:out",
        "expand/kernel:out",
        "gated1:out",
    ]
    assert "gate1:out" not in graph.tensors(["a/kernel", "head/kernel"]).values()


@pytest.mark.parametrize(
    "gate",
    [
        jax.nn.sigmoid,
        lambda x: jnp.minimum(jnp.maximum(x + 3.0, 0.0), 5.0) / 6.0,
        lambda x: jnp.minimum(x + 3.0, 6.0) / 6.0,
        lambda x: x / 6.0,
    ],
)
def test_what_does_not_end_at_0_and_1_is_no_gate(gate):
    def net(x):
        x = nn.Dense(4, name="a")(x)
        return nn.Dense(3, name="b")(x * gate(x))

    graph = _graph(_net(net), VECTORS)
    assert graph.gated == ()
    assert _said(graph)[0] == ["input0", "a:out", "b:in"]


def test_a_gate_of_ones_own_is_one_too():
    def net(x):
        x = nn.Dense(4, name="a")(x)
        gate = jnp.maximum(jnp.minimum(x + -1.0, 2.0), 0.0) / 2.0
        return nn.Dense(3, name="b")(gate * x)

    (gated,) = _graph(_net(net), VECTORS).gated
    assert (gated.offset, gated.size) == (-1.0, 2.0)


def test_before_an_activation_that_is_not_alone_the_layer_ends():
    """Pre-activation: the stream is read by the rectification and by the shortcut."""

    def net(x):
        x = nn.Dense(4, name="stem")(x)
        x = x + nn.Dense(4, name="a")(nn.relu(x))
        return nn.Dense(3, name="head")(nn.relu(x))

    graph = _graph(_net(net), VECTORS)
    tensors, epilogues = _said(graph)
    assert epilogues == {"stem": "bias", "a": "bias", "head": "bias"}
    assert tensors == ["input0", "stem:out", "a:in", "a:out", "sum0:out"]
    assert graph.sums[0].clipped


def test_two_rectifications_of_one_product_are_not_its_end():
    def net(x):
        x = nn.Dense(4, name="a")(x)
        return nn.Dense(3, name="head")(nn.relu(x)) + nn.Dense(3, name="other")(nn.relu(-x))

    tensors, epilogues = _said(_graph(_net(net), VECTORS))
    assert epilogues["a"] == "bias"
    assert tensors[:4] == ["input0", "a:out", "head:in", "head:out"]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (lambda x: nn.relu(x) + jnp.arange(4.0)[None], "+clip"),  # too late for a bias
        (lambda x: x + jnp.arange(4.0)[None], "bias"),
        (lambda x: x + 1.0, ""),  # files keep it apart
        (lambda x: x + jnp.arange(8.0).reshape(2, 4), ""),  # positions: no kernel adds them
        (lambda x: nn.relu(x + jnp.arange(4.0)[None] + jnp.ones((1, 4))), "bias"),
        (lambda x: nn.hard_sigmoid(x), ""),
        (lambda x: nn.gelu(x), ""),
        (lambda x: jnp.maximum(x, 0.1 * x), ""),
        (lambda x: jnp.minimum(jnp.maximum(x, -1.0), 1.0), "+clip"),
        (lambda x: jax.jit(nn.relu)(x), "+clip"),
        (lambda x: jax.jit(lambda x: nn.relu(x) * 2)(x), ""),
        (lambda x: sum(jax.jit(lambda x: (nn.relu(x), jnp.minimum(x, 1.0)))(x)), ""),
        (lambda x: nn.relu(x.reshape(4, 2)).reshape(2, 4), "+clip"),
        (lambda x: x.astype(jnp.int32).astype(jnp.float32), ""),
        (lambda x: nn.relu(x.astype(jnp.bfloat16)).astype(jnp.float32), "+clip"),
    ],
)
def test_what_follows_a_product(after, said):
    def net(x):
        x = after(nn.Dense(4, use_bias=False, name="a")(x))
        return nn.Dense(3, name="head")(jnp.tanh(x))

    assert _said(_graph(_net(net), VECTORS))[1]["a"] == said


def test_moves_and_choices_keep_what_they_are_from():
    def net(x):
        x = nn.relu(nn.Conv(4, (3, 3), name="a")(x))
        x = nn.relu(nn.Conv(4, (3, 3), name="b")(nn.max_pool(x, (2, 2), (2, 2))))
        return nn.Dense(3, name="head")(
            jnp.flip(x[:, :, :2], 1).transpose(0, 3, 1, 2).reshape(2, -1)
        )

    graph = _graph(_net(net), IMAGES)
    assert _said(graph)[0] == ["input0", "a:out", "b:out"]
    a, b, head = graph.layers
    assert graph.source(b.input) == a.output != b.input
    assert graph.source(head.input) == b.output


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32])
def test_whole_numbers_are_not_quantized(dtype):
    def net(x):
        x = nn.Dense(4, name="a")(x.astype(jnp.float32))
        return nn.Dense(3, name="head")(x.astype(jnp.int32).astype(jnp.float32))

    graph = _graph(_net(net), VECTORS, dtype)
    assert _said(graph)[0] == ["a:in", "a:out", "head:in"]
    for value in graph.tensors(["a/kernel", "head/kernel"]):
        (step,) = (s for s in graph.flat.steps if value in s.results)
        assert jnp.issubdtype(step.equation.outvars[0].aval.dtype, jnp.floating)


def test_both_ways_of_a_concatenation_have_their_own_range():
    graph = _graph(nets.Concatenated(), IMAGES)
    assert _said(graph)[0] == ["input0", "left:out", "right:out", "join:in", "join:out", "head:in"]


def test_squeeze_and_excitation():
    graph = _graph(nets.Excited(), IMAGES)
    tensors, epilogues = _said(graph)
    assert epilogues == {
        "stem": "bias+clip",
        "reduce": "bias+clip",
        "expand": "bias",
        "head": "bias",
    }
    assert tensors == ["input0", "stem:out", "reduce:in", "reduce:out", "expand:out", "head:in"]


def test_attention_has_its_matrices_but_not_its_products_of_activations():
    graph = _graph(nets.Attention(), TOKENS)
    inside = [f"attention/{name}" for name in ("query", "key", "value", "out")]
    assert _names(graph) == ["tokens", *inside, "mlp_in", "mlp_out", "head"]
    products = [s for s in graph.flat.steps if s.name == "dot_general"]
    assert len(products) == len(graph.layers) + 2
    channels = {layer.name.split("/")[-2]: layer.channels for layer in graph.layers}
    assert channels["query"] == (1, 2)
    assert channels["out"] == (2,)


def test_dense_over_many_axes():
    graph = _graph(nets.GeneralDense(), VECTORS)
    assert [layer.channels for layer in graph.layers] == [(1, 2), (2,)]
    assert _said(graph)[1] == {"two": "bias+clip", "head": "bias"}


@pytest.mark.parametrize(
    ("net", "shape", "names"),
    [
        (nets.Twice, VECTORS, ["stem", "again", "again/kernel#2", "head"]),
        (nets.TwiceApart, VECTORS, ["a", "b", "shared", "shared/kernel#2", "head"]),
        (nets.Autoencoder, VECTORS, ["kernel", "kernel#2"]),
        (nets.Tied, VECTORS, ["words/embedding", "inner", "back", "words/embedding#2"]),
        (nets.Embedded, VECTORS, ["words/embedding", "head"]),
        (nets.Transposed, IMAGES, ["first", "larger", "head"]),
        (nets.Grouped, IMAGES, ["first", "grouped", "head"]),
        (nets.Remembered, VECTORS, ["stem", "head"]),
        (nets.Half, VECTORS, ["stem", "head"]),
        # Loops and branches stay as they are, and so do matrices made of parameters.
        (nets.Looped, VECTORS, ["stem", "head"]),
        (nets.Stacked, VECTORS, ["stem", "head"]),
        (nets.Recurrent, TOKENS, ["stem", "head"]),
        (nets.InAndOutOfLoop, VECTORS, ["stem", "kernel", "head"]),
        (nets.Branching, VECTORS, ["stem", "a", "b", "head"]),
        (nets.WeightNormed, VECTORS, ["stem", "head"]),
        (nets.LowRank, VECTORS, ["stem", "head"]),
        (nets.JoinedKernels, VECTORS, ["stem", "head"]),
        (nets.Gram, TOKENS, ["stem", "head"]),
        (nets.Ones, VECTORS, ["stem", "head"]),
    ],
)
def test_which_products_are_layers(net, shape, names):
    graph = _graph(net(), shape)
    assert _names(graph) == names
    assert len({layer.name for layer in graph.layers}) == len(graph.layers)


def test_linen_jit_einsum_and_matrices_on_the_left():
    class Left(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.jit(nn.Dense)(4, name="jitted")(x)
            x = nn.Einsum((4, 2, 3), "bi,ihd->bhd", use_bias=False, name="einsum")(x)
            w = jnp.flip(self.param("w", nn.initializers.normal(), (5, 6)), 0)
            batched = self.param("batched", nn.initializers.normal(), (2, 3, 3))
            x = jnp.einsum("bhd,hde->bhe", x, batched)  # a matrix for each head: no layer
            return w @ x.reshape(2, 6).T

    graph = _graph(Left(), VECTORS)
    assert _names(graph) == ["jitted", "einsum", "w"]
    w = graph.layers[-1]
    for layer in graph.layers:
        step = graph.flat.steps[layer.step]
        shape = graph.flat.shape(step.operands[layer.place])
        kept = int(np.prod([shape[axis] for axis in layer.channels]))
        rows = graph.flat.shape(step.results[0])
        assert int(np.prod(rows)) == 2 * kept
    assert graph.final == {w.output}


def test_the_parameter_is_found_behind_a_conversion():
    graph = _graph(nets.Half(), VECTORS)
    stem = graph.layers[0]
    value = graph.flat.steps[stem.step].operands[stem.place]
    assert _maker(graph, value) == "convert_element_type"
    assert (stem.bias, stem.clipped) == (True, True)


def test_dropout_ends_a_layer_and_evaluation_does_not_see_it():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.relu(nn.Dense(4, name="a")(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
            return nn.Dense(3, name="head")(x)

    evaluated = _graph(Net(), VECTORS)
    assert _said(evaluated)[0] == ["input0", "a:out"]
    trained = _graph(Net(), VECTORS, train=True, rngs={"dropout": KEY})
    assert _names(trained) == _names(evaluated)
    assert _said(trained)[0] == ["input0", "a:out", "head:in"]


def test_an_output_given_twice_is_still_only_an_output():
    def net(x):
        y = nn.Dense(3, name="head")(nn.relu(nn.Dense(4, name="a")(x)))
        return {"logits": y, "again": y}

    graph = _graph(_net(net), VECTORS)
    assert graph.edges == ("a/kernel", "head/kernel")
    assert _said(graph)[0] == ["input0", "a:out"]


def test_an_output_that_is_read_as_well_is_quantized():
    def net(x):
        features = nn.relu(nn.Dense(4, name="a")(x))
        return {"features": features, "logits": nn.Dense(3, name="head")(features)}

    graph = _graph(_net(net), VECTORS)
    assert _said(graph)[0] == ["input0", "a:out"]


def test_nothing_is_computed():
    def function(variables, x):
        assert isinstance(x, jax.core.Tracer)
        return x @ variables["params"]["w"]

    shapes = {"params": {"w": jax.ShapeDtypeStruct((50_000, 50_000), jnp.float32)}}
    (layer,) = graph_of(
        function, shapes, jax.ShapeDtypeStruct((50_000, 50_000), jnp.float32)
    ).layers
    assert layer.name == "w"


def test_a_product_of_parameters_or_of_activations_is_none():
    def function(variables, x):
        a, b = variables["params"]["a"], variables["params"]["b"]
        return x @ (a @ b), x @ x.T, lax.dot(a, a)

    graph = graph_of(function, {"params": {"a": X4, "b": X4}}, X4)
    assert graph.layers == ()


X4 = jnp.eye(4)

FAMILIES = {
    "cnn": CNN(name="cnn", widths=(4, 6)),
    "cifar_resnet": CifarResNet(name="cifar_resnet", depth=8),
    "resnet18": ResNet18(name="resnet18", width=4),
    "resnet50": ResNet50(name="resnet50", width=4),
    "vgg": VGG(name="vgg", depth=8, width=4),
    "mobilenet_v2": MobileNetV2(name="mobilenet_v2", multiplier=0.1),
    "mobilenet_v3": MobileNetV3(name="mobilenet_v3", size="small", multiplier=0.1),
    "efficientnet_b0": EfficientNetB0(name="efficientnet_b0", multiplier=0.1),
    "efficientnet_lite": EfficientNetLite0(
        name="efficientnet_lite0", multiplier=0.1, epsilon=1e-3, padding="same"
    ),
    "convnext": ConvNeXt(name="convnext", depths=(1, 1), widths=(4, 6)),
    "vit": ViT(name="vit", width=8, depth=1, heads=2, mlp=6, patch=8),
    "vit_tiny": ViTTiny(
        name="vit_tiny", width=8, depth=1, heads=2, mlp=6, patch=8, registers=2, layer_scale=0.1
    ),
    "se_resnet": SEResNet(name="se_resnet", depth=18, width=4),
    "mlperf_resnet8": MLPerfResNet8(name="mlperf_resnet8", width=4),
    "ds_cnn": DSCNN(name="ds_cnn", width=4, blocks=1),
    "plain_cnn": PlainCNN(name="plain_cnn", widths=(4, 6), hidden=5),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_kernel_of_every_family_is_a_layer(name):
    module = Classifier(FAMILIES[name].module(Compute(folded=True)), 3)
    x = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(lambda: module.init(KEY, x, train=False))
    graph = graph_of(lambda v, x: module.apply(v, x, train=False)["logits"], shapes, x)
    kernels = {n for n in tree.named_leaves(shapes["params"]) if n.endswith("kernel")}
    names = [layer.name for layer in graph.layers]
    assert sorted(names) == sorted(kernels)
    assert all(layer.bias for layer in graph.layers)
    assert len(graph.edges) == 2
    assert graph.edges[1] == "classifier/kernel"
