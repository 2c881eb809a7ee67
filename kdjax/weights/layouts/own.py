"""kdjax's own layout: every variable under its path, whatever the network."""

import flax.linen as nn

from kdjax.weights.rules import Layout, Rule
from kdjax.weights.transforms import same

LAYOUTS = (
    Layout(
        names=("kdjax",),
        family="network",
        of=nn.Module,
        rules=lambda network: (
            Rule("{in:word}/encoder/{path:path}", "{in:word}/{path:path}", same),
        ),
        head=(
            Rule("params/masked_lm/{path:path}", "masked_lm/{path:path}", same),
            Rule("params/classifier/{path:path}", "{path:path}", same),
        ),
        marks=(r"params/encoder/.+",),
        ignored=(),
        counters=False,
    ),
)
