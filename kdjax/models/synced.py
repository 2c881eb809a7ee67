"""BatchNorm over all devices, for a model that knows nothing of them."""

from typing import Any

import flax.linen as nn

from kdjax.bound import attributes


class Synced(nn.Module):
    """A model whose BatchNorms have the statistics of all devices. Its variables are the model's own.

    For a model that does not take a `Compute`, as those of `kdjax.models` do.

    Attributes:
      alone: the model as it is written.
      axis_name: mapped axis of the batch.
    """

    alone: nn.Module
    axis_name: str

    def setup(self):
        """The model's variables are in this module's own scope."""
        nn.share_scope(self, self.alone)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives."""

        def sync(method, args, kwargs, context):
            norm = context.module
            if not isinstance(norm, nn.BatchNorm) or norm.axis_name is not None:
                return method(*args, **kwargs)
            with attributes(norm, axis_name=self.axis_name):
                return method(*args, **kwargs)

        with nn.intercept_methods(sync):
            return self.alone(*args, **kwargs)
