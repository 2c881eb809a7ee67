"""The vision transformer."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

from kdjax import models
from kdjax.config.encoders import Encoder
from kdjax.config.fields import Depth, Natural, Positive, Width
from kdjax.config.views import Side
from kdjax.models import Compute
from kdjax.types import Fault

_MARKS = {
    "width": "w",
    "depth": "d",
    "heads": "h",
    "mlp": "m",
    "patch": "p",
    "class_token": "class",
    "registers": "reg",
    "positions": "pos_",
    "pool": "pool_",
    "norm_after_pool": "pool_norm",
    "gelu": "gelu_",
    "epsilon": "eps",
    "qkv_bias": "qkv_bias",
    "layer_scale": "ls",
}


def _marked(mark: str, value: Any) -> str:
    """What a title says of a field."""
    if value is True:
        return mark
    if value is False or value is None:
        return f"no_{mark}"
    return f"{mark}{value:g}" if isinstance(value, float) else f"{mark}{value}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transformer(Encoder):
    """A vision transformer. Its tokens are the class, the registers and the patches, in this order.

    Attributes:
      width: of a token.
      depth: blocks.
      heads: of each attention; divides `width`.
      mlp: hidden units of each block.
      patch: side in pixels; divides the height and the width of the views.
      class_token: there is a token of the class.
      registers: how many tokens more there are that no feature is read from.
      positions: which tokens have one: the `patches` alone, the `class` token as well, or `all`.
      pool: the features: the `mean` over the patches, the `class` token, or both, one behind the other.
      norm_after_pool: the last LayerNorm is that of the features; otherwise of the tokens.
      gelu: its tanh approximation, or the exact one.
      epsilon: that each LayerNorm adds to the variance.
      qkv_bias: queries, keys and values have a bias.
      layer_scale: what the scale of each channel of a block's two branches begins with; None for none.
    """

    width: Width = 192
    depth: Depth = 12
    heads: Width = 3
    mlp: Width = 768
    patch: Side = 4
    class_token: bool = False
    registers: Natural = 0
    positions: Literal["patches", "class", "all"] = "patches"
    pool: Literal["mean", "class", "class_and_mean"] = "mean"
    norm_after_pool: bool = False
    gelu: Literal["tanh", "exact"] = "tanh"
    epsilon: Positive = 1e-6
    qkv_bias: bool = True
    layer_scale: Positive | None = None

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from models.heads_faults(self.width, self.heads)
        yield from models.vit_faults(
            class_token=self.class_token,
            registers=self.registers,
            positions=self.positions,
            pool=self.pool,
        )

    def _titled(self, name: str, *, always: tuple[str, ...]) -> str:
        """The name, and each field that is one of `always` or not at its default."""
        said = [name]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in _MARKS and (field.name in always or value != field.default):
                said.append(_marked(_MARKS[field.name], value))
        return "-".join(said)

    def module(self, compute: Compute) -> models.ViT:
        """See `kdjax.models.vit`."""
        return models.vit(
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            mlp=self.mlp,
            patch=self.patch,
            class_token=self.class_token,
            registers=self.registers,
            positions=self.positions,
            pool=self.pool,
            norm_after_pool=self.norm_after_pool,
            gelu=self.gelu,
            epsilon=self.epsilon,
            qkv_bias=self.qkv_bias,
            layer_scale=self.layer_scale,
            compute=compute,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViT(Transformer):
    """One whose features are the mean over its tokens; ViT-Ti with patches of 4 by default."""

    name: Literal["vit"]

    @property
    def title(self) -> str:
        """What the report calls it: its sizes, then what is not as usual."""
        return self._titled("vit", always=("width", "depth", "heads", "mlp", "patch"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Published(Transformer):
    """As it is published: patches of 16 pixels, a class token, which gives the features, exact GELU.

    Every field can be another, as those of DINOv2 and of mean pooling need it.
    """

    patch: Side = 16
    class_token: bool = True
    positions: Literal["patches", "class", "all"] = "class"
    pool: Literal["mean", "class", "class_and_mean"] = "class"
    gelu: Literal["tanh", "exact"] = "exact"

    @property
    def title(self) -> str:
        """What the report calls it: its name, its patch, then what is not as published."""
        return self._titled(self.name.replace("_", "-"), always=("patch",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTTiny(_Published):
    """ViT-Ti: 12 blocks, tokens of 192, 3 heads."""

    name: Literal["vit_tiny"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTSmall(_Published):
    """ViT-S: 12 blocks, tokens of 384, 6 heads."""

    name: Literal["vit_small"]
    width: Width = 384
    heads: Width = 6
    mlp: Width = 1536


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTBase(_Published):
    """ViT-B: 12 blocks, tokens of 768, 12 heads."""

    name: Literal["vit_base"]
    width: Width = 768
    heads: Width = 12
    mlp: Width = 3072
