"""kdjax: from a large model and mostly unlabelled data to a small, fast, deployed one.

In a notebook: `kdjax.fit` trains a model on data or on what a cache keeps, `kdjax.cached` opens one.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdjax.notebook import cached, fit

__all__ = ["cached", "fit"]


def __getattr__(name: str) -> Any:
    """Loaded when they are asked for: the command line does without, and must not wait for jax."""
    if name not in __all__:
        raise AttributeError(f"module 'kdjax' has no attribute {name!r}")
    import kdjax.notebook

    return getattr(kdjax.notebook, name)
