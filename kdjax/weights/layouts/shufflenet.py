"""ShuffleNetV2: torchvision's names."""

from kdjax.models import ShuffleNetV2
from kdjax.weights.preprocessing import Preprocessing
from kdjax.weights.rules import Layout, Named, Rule
from kdjax.weights.transforms import conv_norm, head

# Place of a convolution within a branch, its BatchNorm right behind it, and what it is here.
_BRANCHES = (
    ("branch1", 0, "left_depthwise"),
    ("branch1", 2, "left_project"),
    ("branch2", 0, "expand"),
    ("branch2", 3, "depthwise"),
    ("branch2", 5, "project"),
)


def _torchvision(network: Named) -> tuple[Rule, ...]:
    """`stage2.0.branch1.0`, `stage2.0.branch1.1`."""
    theirs, ours = "stage{s+2}.{u}", "stage{s}_unit{u}"
    rules = conv_norm("conv1.0", "conv1.1", "stem")
    for branch, place, name in _BRANCHES:
        at = f"{theirs}.{branch}"
        rules += conv_norm(f"{at}.{place}", f"{at}.{place + 1}", f"{ours}/{name}")
    return rules + conv_norm("conv5.0", "conv5.1", "last")


LAYOUTS = (
    Layout(
        names=("torchvision",),
        family="ShuffleNetV2",
        of=ShuffleNetV2,
        rules=_torchvision,
        head=head("fc"),
        marks=(r"conv1\.0\.weight", r"stage2\.0\.branch1\.0\.weight", r"conv5\.0\.weight"),
        preprocessing=Preprocessing(),
    ),
)
