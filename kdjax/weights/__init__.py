"""Published weights: read from safetensors into a network's variables, and written again.

`kdjax/weights/README.md` has the layouts and what is refused. `kdjax.weights.layouts` has a file for each
family of networks.
"""

from kdjax.weights.account import VERSION, Account
from kdjax.weights.mapping import Mapped, Misfit, mapped
from kdjax.weights.preprocessing import Preprocessing
from kdjax.weights.reading import named, read, write
from kdjax.weights.rules import Layout, Named, Rule, Transform
from kdjax.weights.sources import Published, preprocessing, published
from kdjax.weights.tensors import FIELD, Tensors
from kdjax.weights.writing import written

__all__ = [
    "FIELD",
    "VERSION",
    "Account",
    "Layout",
    "Mapped",
    "Misfit",
    "Named",
    "Preprocessing",
    "Published",
    "Rule",
    "Tensors",
    "Transform",
    "mapped",
    "named",
    "preprocessing",
    "published",
    "read",
    "write",
    "written",
]
