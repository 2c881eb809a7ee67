"""What is done to a view and that of another example."""

import dataclasses
import functools
from typing import Literal

from kdjax import views
from kdjax.choice import Choice
from kdjax.config.fields import Positive


class Mix(Choice):
    """How two views become one."""

    def mixed(self) -> views.Mix:
        """`(key, view, view of the partner) -> (mixed, weight)`."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixup(Mix):
    """See `kdjax.views.mixup`."""

    name: Literal["mixup"]
    alpha: Positive = 0.2

    def mixed(self) -> views.Mix:
        """See `kdjax.views.mixup`."""
        return functools.partial(views.mixup, alpha=self.alpha)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutMix(Mix):
    """See `kdjax.views.cutmix`."""

    name: Literal["cutmix"]
    alpha: Positive = 1.0

    def mixed(self) -> views.Mix:
        """See `kdjax.views.cutmix`."""
        return functools.partial(views.cutmix, alpha=self.alpha)
