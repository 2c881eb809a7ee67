"""ONNX through jax2onnx, run by ONNX Runtime."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

from kdjax.export.extras import require

OPSET = 21
"""The newest that every ONNX Runtime since 1.20 reads."""


def require_onnx() -> None:
    """Asks for all that writing and running a file need, before there is a model.

    Raises:
      BadInput: the extra is not installed.
    """
    require("ONNX", "jax2onnx", "onnx", "onnxruntime", extra="export")


def write_onnx(
    predict: Callable[[UInt8[Array, "batch height width channel"]], Float[Array, "batch classes"]],
    path: str | os.PathLike[str],
    *,
    image_shape: tuple[int, int, int],
) -> None:
    """Writes `predict`, its parameters inside, for any batch size: `image` uint8 -> `logits`.

    BatchNorm must be folded: jax2onnx 0.17 writes invalid files for it in residual networks.

    Raises:
      BadInput: jax2onnx or onnx is not installed.
    """
    require("ONNX", "jax2onnx", "onnx", extra="export")
    import jax2onnx
    import onnx

    def inlined(images):
        # jax2onnx 0.17 cannot read a jitted function within another (SiLU is one) on jax 0.12.
        with jax.disable_jit(), _no_reduced_precision():
            return predict(images)

    with jax.numpy_rank_promotion("allow"):  # jax2onnx's own shape inference relies on it
        model = jax2onnx.to_onnx(
            inlined,
            inputs=[jax.ShapeDtypeStruct(("batch", *image_shape), jnp.uint8)],
            input_names=["image"],
            output_names=["logits"],
            model_name="kdjax",
            opset=OPSET,
        )
    # Those that jax2onnx 0.17 notes are wrong beside an identity shortcut; every runtime infers its own.
    del model.graph.value_info[:]
    onnx.save(model, path)


@contextmanager
def _no_reduced_precision() -> Iterator[None]:
    """Leaves `lax.reduce_precision` to 22 bits out while a function is traced.

    The views use it to keep XLA from fusing a product with the sum behind it. In ONNX it is a dozen
    operators with a logarithm, to round the last bit of a product that no runtime there fuses.
    """
    before = lax.reduce_precision

    def whole(x, exponent_bits, mantissa_bits):
        if (exponent_bits, mantissa_bits) == (8, 22):
            return x
        return before(x, exponent_bits, mantissa_bits)

    lax.reduce_precision = whole
    try:
        yield
    finally:
        lax.reduce_precision = before


def load_onnx(
    path: str | os.PathLike[str], *, threads: int
) -> Callable[
    [UInt8[np.ndarray, "batch height width channel"]], Float[np.ndarray, "batch classes"]
]:
    """The file in ONNX Runtime on the CPU, with `threads` threads inside an operator.

    Raises:
      BadInput: ONNX Runtime is not installed.
    """
    require("ONNX", "onnxruntime", extra="export")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )
    return lambda image: np.asarray(session.run(["logits"], {"image": image})[0])
