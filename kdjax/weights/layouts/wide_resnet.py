"""Wide ResNets: the names of the CIFAR distillation tables."""

from kdjax.models import WideResNet
from kdjax.weights.rules import Layout, Named, Rule
from kdjax.weights.transforms import conv, head, norm


def _repdistiller(network: Named) -> tuple[Rule, ...]:
    """`block1.layer.0.bn1`, `block1.layer.0.convShortcut`."""
    theirs, ours = "block{s+1}.layer.{b}", "stage{s}_block{b}"
    return (
        Rule("conv1.weight", "params/stem/kernel", conv),
        *norm(f"{theirs}.bn1", f"{ours}/norm"),
        Rule(f"{theirs}.conv1.weight", f"params/{ours}/first/conv/kernel", conv),
        *norm(f"{theirs}.bn2", f"{ours}/first/norm"),
        Rule(f"{theirs}.conv2.weight", f"params/{ours}/second/kernel", conv),
        Rule(f"{theirs}.convShortcut.weight", f"params/{ours}/shortcut/kernel", conv),
        *norm("bn1", "norm"),
    )


LAYOUTS = (
    Layout(
        names=("repdistiller",),
        family="wide ResNet",
        of=WideResNet,
        rules=_repdistiller,
        head=head("fc"),
        marks=(r"conv1\.weight", r"block1\.layer\.0\.bn1\.weight"),
    ),
)
