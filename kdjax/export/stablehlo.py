"""StableHLO through `jax.export`: the archive, and what serves on TPU and GPU."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from etils import epath
from jax import export
from jaxtyping import Array, Float

from kdjax.types import BadInput, Fields

PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(
    predict: Callable[..., Float[Array, "batch ..."]],
    path: epath.PathLike,
    *,
    inputs: Fields,
) -> None:
    """Writes `predict`, its parameters inside, for any batch size on CPU, CUDA and TPU.

    `jax.export` promises to read it for six months, and three weeks of older releases to read newer
    files. It takes any batch of 1 or more. Nothing in it says where the code of the model lies: exported
    from another folder, the file is the same.

    Args:
      predict: the model in evaluation, of as many arrays as there are inputs, in their order.
      path: of the file.
      inputs: of one example, by the names that the file gives them.

    Raises:
      BadInput: the model's code cannot be traced while its batch has no size.
    """
    (batch,) = export.symbolic_shape("batch")
    try:
        with _without_call_stacks():
            exported = export.export(jax.jit(predict), platforms=PLATFORMS)(
                *(field.batch(batch) for field in inputs.values())
            )
    except (TypeError, ValueError) as error:
        # Such as of `len(x)`; with one example there is nothing that a size could be missing for.
        jax.eval_shape(predict, *(field.batch(1) for field in inputs.values()))
        reason = str(error).splitlines()[0]
        raise BadInput(
            "", f"StableHLO needs a model whose code takes a batch of any size: {reason}"
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


def load_stablehlo(path: epath.PathLike) -> Callable[..., Any]:
    """The function in the file, of its inputs in their order; compiled anew for each batch size.

    Raises:
      BadInput: this jax does not read the file: it is too old for it, or it is damaged.
    """
    content = bytearray(epath.Path(path).read_bytes())
    try:
        return jax.jit(export.deserialize(content).call)
    except Exception as error:  # whatever jax says of a version that it does not know
        raise BadInput(
            "",
            f"{path}: jax {jax.__version__} does not read this StableHLO file, write it again with "
            f"`kdjax reexport WORKDIR`: {(str(error).splitlines() or [type(error).__name__])[0]}",
        ) from error
