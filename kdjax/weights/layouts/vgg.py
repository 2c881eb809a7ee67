"""VGG with BatchNorm: the convolutions of torchvision's and timm's, and the CIFAR tables' whole.

The biases of their convolutions are taken up by the running means: a file that is written has zeros.
"""

from collections.abc import Iterator

from kdjax.models import VGG
from kdjax.weights.preprocessing import Preprocessing
from kdjax.weights.rules import Layout, Named, Rule
from kdjax.weights.transforms import conv, head, same, without_bias


def _pair(their_conv: str, their_norm: str, ours: str) -> tuple[Rule, ...]:
    """A convolution with a bias, and its BatchNorm."""
    mean = (f"{their_conv}.bias", f"{their_norm}.running_mean")
    return (
        Rule(f"{their_conv}.weight", f"params/{ours}/conv/kernel", conv),
        Rule(mean, f"batch_stats/{ours}/norm/mean", without_bias()),
        Rule(f"{their_norm}.running_var", f"batch_stats/{ours}/norm/var", same),
        Rule(f"{their_norm}.weight", f"params/{ours}/norm/scale", same),
        Rule(f"{their_norm}.bias", f"params/{ours}/norm/bias", same),
    )


def _places(network: Named) -> Iterator[tuple[int, int]]:
    """`(stage, convolution)` of each."""
    stages = network.module.stages if isinstance(network.module, VGG) else ()
    for stage, widths in enumerate(stages):
        yield from ((stage, i) for i in range(len(widths)))


def _torchvision(network: Named) -> tuple[Rule, ...]:
    """`features.0` and on: each convolution, its norm and its ReLU, and a pooling behind each stage."""
    rules: tuple[Rule, ...] = ()
    for before, (stage, i) in enumerate(_places(network)):
        at = 3 * before + stage
        rules += _pair(f"features.{at}", f"features.{at + 1}", f"stage{stage}_conv{i}")
    return rules


def _repdistiller(network: Named) -> tuple[Rule, ...]:
    """`block0.0`, `block0.1`: those of a stage are one block."""
    rules: tuple[Rule, ...] = ()
    for stage, i in _places(network):
        at = f"block{stage}"
        rules += _pair(f"{at}.{3 * i}", f"{at}.{3 * i + 1}", f"stage{stage}_conv{i}")
    return rules


LAYOUTS = (
    Layout(
        names=("torchvision", "timm"),
        family="VGG",
        of=VGG,
        rules=_torchvision,
        marks=(r"features\.0\.weight", r"features\.1\.running_mean", r"(classifier|head)\..*"),
        preprocessing=Preprocessing(),
    ),
    Layout(
        names=("repdistiller",),
        family="VGG",
        of=VGG,
        rules=_repdistiller,
        head=head("classifier"),
        marks=(r"block0\.0\.weight", r"block0\.1\.running_mean", r"classifier\.weight"),
    ),
)
