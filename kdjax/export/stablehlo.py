"""StableHLO through `jax.export`: the archive, and what serves on TPU and GPU."""

import contextlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import export
from jaxtyping import Array, Float, UInt8

from kdjax.types import BadInput

PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(
    predict: Callable[[UInt8[Array, "batch height width channel"]], Float[Array, "batch classes"]],
    path: epath.PathLike,
    *,
    image_shape: tuple[int, int, int],
) -> None:
    """Writes `predict`, its parameters inside, for any batch size on CPU, CUDA and TPU.

    `jax.export` promises to read it for six months, and three weeks of older releases to read newer
    files. It takes any batch of 1 or more. Nothing in it says where the code of the model lies: exported
    from another folder, the file is the same.

    Raises:
      BadInput: the model's code cannot be traced while its batch has no size.
    """
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.uint8)
    try:
        with _without_call_stacks():
            exported = export.export(jax.jit(predict), platforms=PLATFORMS)(images)
    except (TypeError, ValueError) as error:
        # Such as of `len(x)`; with one image there is nothing that a size could be missing for.
        jax.eval_shape(predict, jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8))
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"StableHLO needs a model whose code takes a batch of any size: {reason}"
        ) from error
    epath.Path(path).write_bytes(bytes(exported.serialize()))


@contextlib.contextmanager
def _without_call_stacks() -> Iterator[None]:
    """Operations are lowered with their names in the model, not with the files and lines of code."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def load_stablehlo(path: epath.PathLike) -> Callable[[np.ndarray], jax.Array]:
    """The function in the file, compiled anew for each batch size that it is called with.

    Raises:
      BadInput: this jax does not read the file: it is too old for it, or it is damaged.
    """
    content = bytearray(epath.Path(path).read_bytes())
    try:
        return jax.jit(export.deserialize(content).call)
    except Exception as error:  # whatever jax says of a version that it does not know
        raise BadInput(
            f"{path}: jax {jax.__version__} does not read this StableHLO file, write it again with "
            f"`kdjax reexport WORKDIR`: {(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
