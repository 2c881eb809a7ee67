"""Integers as ONNX stores them."""

from typing import Any

import numpy as np

FLOAT, INT8 = 1, 3
"""As ONNX numbers its types."""

MICROSOFT = "com.microsoft"
"""The domain of operators that ONNX Runtime has, and ONNX has not."""


def whole(values: Any, bits: int) -> np.ndarray:
    """Numbers as integers of so many bits."""
    import ml_dtypes

    kind = {4: ml_dtypes.int4, 8: np.int8, 32: np.int32}[bits]
    limits = ml_dtypes.iinfo(kind) if bits == 4 else np.iinfo(kind)
    return np.clip(values, limits.min, limits.max).astype(kind)
