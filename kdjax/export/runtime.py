"""What a file format is: how its files are written, loaded, described, timed and weighed.

Everything that differs between formats stands in one subclass of `Runtime`: kdjax's own are in
`kdjax.export.formats`, and a config may name one of the user's. A stage asks it, whichever it is.
"""

import abc
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from kdjax import quant
from kdjax.export.extras import require
from kdjax.export.memory import peak_memory
from kdjax.export.model import Model
from kdjax.export.shapes import sizes
from kdjax.types import BadFile

Path = str | os.PathLike[str]

Call = Callable[..., Any]
"""`*raw arrays -> output`, in the order of the file's inputs, with any number of examples in front."""


class Runtime(abc.ABC):
    """The files of one format, and what runs them. Only `suffix`, `write` and `load` have no default.

    Attributes:
      suffix: of the name of a file, with its dot: `.onnx`.
      open_batch: a file takes any number of examples in a call, and ragged inputs of any length. Of one
        that does not, what `load` gives takes any number all the same, with a call for each, as long as
        may be.
      integers: the file of a quantized model has its integers; otherwise it rounds in float.
      needs: packages that are imported to write and run a file.
      extra: of kdjax, which has these packages.
      takes_threads: what runs a file uses as many threads as it is told to.
      package: that runs a file, whose version `kdjax latency` prints.
      program: a Python file that loads and runs one, see `kdjax.export.peak_memory`; None where there is
        none, and so no figure of memory.
      channels_first: what `seen` gives has the channels of an image before its space.
      streaming: a file is given an example in pieces, which `write` makes of `Model.stream`; what `load`
        gives takes whole examples all the same, and cuts them up.
    """

    suffix: ClassVar[str]
    open_batch: ClassVar[bool] = True
    integers: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str | None] = None
    takes_threads: ClassVar[bool] = True
    package: ClassVar[str | None] = None
    program: ClassVar[str | None] = None
    channels_first: ClassVar[bool] = False
    streaming: bool = False

    @property
    def runs_in(self) -> str:
        """What the report calls it, and where it runs: `onnxruntime:cpu`."""
        return f"{self.suffix.removeprefix('.')}:cpu"

    @property
    def batch(self) -> str:
        """What batch a file takes, in words."""
        return "any of 1 or more" if self.open_batch else "1 example a call"

    def require(self) -> None:
        """Asks for the packages that it needs, before there is a model.

        Raises:
          BadInput: one is not installed; the line says how it is.
        """
        require(type(self).__name__, *self.needs, extra=self.extra)

    def misfits(
        self,
        rules: Mapping[str, quant.Rule],
        layers: Callable[[], Sequence[quant.Layer]],
        *,
        model: str,
    ) -> Iterator[str]:
        """What it should not be asked to hold, said before there is a model; one line each.

        Args:
          rules: of the layers that are quantized, by the names of their parameters.
          layers: gives all layers of the model.
          model: its name, for messages.
        """
        yield from ()

    @abc.abstractmethod
    def write(self, model: Model, path: Path) -> None:
        """Writes the file of a model; of a quantized one with its integers, where the format has them.

        Raises:
          BadInput: the format cannot hold this model; nothing has been written then.
        """

    @abc.abstractmethod
    def load(self, path: Path, *, threads: int) -> Call:
        """The function in a file.

        Args:
          path: of the file.
          threads: to use within one call, where `takes_threads`.

        Raises:
          BadInput: what runs it is not installed, or does not read this file.
        """

    def facts(self, path: Path) -> dict[str, str]:
        """`format` and `reads` of a file, and `promised_until` (a date) where that ends."""
        return {
            "format": f"{type(self).__name__} ({self.suffix})",
            "reads": "the function that the config names",
        }

    def memory(
        self, path: Path, *, threads: int, batch: int, length: int | None = None
    ) -> int | None:
        """Bytes that a process needs to load and run a file by `program`, see `kdjax.export.peak_memory`.

        Args:
          path: of the file.
          threads: of one operator.
          batch: examples in a call.
          length: positions of ragged inputs; the most that the file takes by default.

        Returns:
          None where that is not known.
        """
        if self.program is None:
            return None
        return peak_memory(self.program, path, threads=threads, batch=batch, length=length)

    def call(
        self, path: Path, *, threads: int, batch: int, length: int | None = None
    ) -> Callable[[], Any]:
        """Runs a file on made-up inputs once a call, to be timed without its model; see `memory`.

        Raises:
          BadInput: a file cannot be timed by itself, or not this one.
        """
        raise BadFile(os.fspath(path), f"a {self.suffix} file does not say what it takes")

    def seconds(self, path: Path, *, length: int | None = None) -> float | None:
        """How long one example of `call` lasts, where that is known and examples are of time."""
        return None

    def seen(self, path: Path, arrays: Sequence[np.ndarray]) -> list[np.ndarray] | None:
        """What goes into each layer of a file, in order.

        It serves to say where a file that is not right goes wrong first.

        Args:
          path: of the file.
          arrays: raw inputs, in the order of the file.

        Returns:
          None where the file does not show it.
        """
        return None


def described(runtime: Runtime, path: Path, model: Model) -> dict[str, str]:
    """What a file accepts, how it rounds, and what its format promises: for its manifest.

    Args:
      runtime: of its format.
      path: of the file.
      model: that it was made of.
    """
    fields, is_open = model.inputs.fields.items(), runtime.open_batch  # its lengths are then, too
    taken = ", ".join(f"{name}: {f.dtype} {sizes(f, is_open=is_open)}" for name, f in fields)
    if runtime.streaming:
        taken = f"pieces of {taken}"
    found = {"accepts": f"{taken}; {runtime.batch}", **runtime.facts(path)}
    if model.rules:
        found["computes"] = "integers" if runtime.integers else "rounded in float"
    return found


def suffix_fault(runtime: Runtime) -> str | None:
    """What is wrong with a format's suffix, None where nothing is."""
    suffix = getattr(runtime, "suffix", None)
    if isinstance(suffix, str) and re.fullmatch(r"\.[A-Za-z0-9]\w*", suffix):
        return None
    return f"its suffix is {suffix!r}; give one of letters and digits behind a dot, such as '.npz'"
