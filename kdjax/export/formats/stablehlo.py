"""StableHLO through `jax.export`: the archive, and what serves on TPU and GPU."""

import contextlib
import dataclasses
import datetime
import os
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

import jax
from etils import epath
from jax import export
from jaxtyping import Array, Float

from kdjax.export.formats import Known
from kdjax.export.model import Model
from kdjax.export.shapes import longest, open_shapes
from kdjax.types import BadFile, BadInput, Fields

PLATFORMS = ("cpu", "cuda", "tpu")

PROMISED = datetime.timedelta(days=180)
"""For how long `jax.export` promises to read what it has written: six months of newer releases."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StableHLO(Known):
    """`jax.export`, for jax on CPU, CUDA and TPU; a quantized model rounds in float."""

    name: Literal["stablehlo"] = "stablehlo"

    suffix: ClassVar[str] = ".stablehlo"
    takes_threads: ClassVar[bool] = False

    @property
    def runs_in(self) -> str:
        """XLA, on this machine."""
        return f"stablehlo:{jax.default_backend()}"

    def write(self, model: Model, path: epath.PathLike) -> None:
        """See `write_stablehlo`."""
        write_stablehlo(model.predict, path, inputs=model.inputs.fields)

    def load(self, path: epath.PathLike, *, threads: int) -> Callable[..., Any]:
        """See `load_stablehlo`; XLA takes the threads that it wants."""
        return load_stablehlo(path)

    def facts(self, path: epath.PathLike) -> dict[str, str]:
        """The promise is counted from today: every jax that has been released by then reads it.

        `jax.export` promises six months; of a jax that is old today, the promise is older by as much.
        Then `kdjax reexport` writes the file again.
        """
        content = bytearray(epath.Path(path).read_bytes())
        version = export.deserialize(content).calling_convention_version
        return {
            "format": f"StableHLO, jax.export calling convention {version}",
            "reads": f"jax {jax.__version__} and newer, six months of releases",
            "promised_until": (datetime.date.today() + PROMISED).isoformat(),
        }


def write_stablehlo(
    predict: Callable[..., Float[Array, "batch ..."]],
    path: epath.PathLike,
    *,
    inputs: Fields,
) -> None:
    """Writes `predict`, its parameters inside, for any batch size and length on CPU, CUDA and TPU.

    `jax.export` promises to read it for six months, and three weeks of older releases to read newer
    files. It takes any batch of 1 or more. Nothing in it says where the code of the model lies: exported
    from another folder, the file is the same.

    Args:
      predict: the model in evaluation, of as many arrays as there are inputs, in their order.
      path: of the file.
      inputs: of one example, by the names that the file gives them.

    Raises:
      BadInput: the model's code cannot be traced while its batch, or a length, has no size.
    """
    open_length = bool(longest(inputs))
    try:
        with _without_call_stacks():
            exported = export.export(jax.jit(predict), platforms=PLATFORMS)(*open_shapes(inputs))
    except (TypeError, ValueError) as error:
        # Such as of `len(x)`; with one example there is nothing that a size could be missing for.
        jax.eval_shape(predict, *(field.batch(1) for field in inputs.values()))
        reason = str(error).splitlines()[0]
        raise BadInput(
            "",
            "StableHLO needs a model whose code takes a batch of any "
            f"size{(' and length' if open_length else '')}: {reason}",
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
    """The function in the file, of its inputs in their order; compiled anew for each of their shapes.

    Raises:
      BadInput: this jax does not read the file: it is too old for it, or it is damaged; or, when it is
        called, the arrays are of other shapes than it takes.
    """
    content = bytearray(epath.Path(path).read_bytes())
    try:
        exported = export.deserialize(content)
    except Exception as error:  # whatever jax says of a version that it does not know
        raise BadFile(
            os.fspath(path),
            f"jax {jax.__version__} does not read this StableHLO file, write it again with "
            f"`kdjax reexport WORKDIR`: {(str(error).splitlines() or [type(error).__name__])[0]}",
        ) from error
    call = jax.jit(exported.call)

    def run(*arrays: Any) -> Any:
        try:
            return call(*arrays)
        except ValueError as error:  # which speaks of the refining of shapes
            taken = ", ".join(each.str_short() for each in exported.in_avals)
            given = ", ".join(jax.typeof(array).str_short() for array in arrays)
            raise BadFile(
                os.fspath(path),
                f"it takes {taken}, no more positions than its model was trained for, and was "
                f"given {given}",
            ) from error

    return run
