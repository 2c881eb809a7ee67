"""What a stage is given besides its own config: the data, what earlier stages left, where it runs."""

from kdjax.contexts.context import Context, Splits

__all__ = ["Context", "Splits"]
