"""The command line, `kdjax`: a first word says what to do, and without one a config is run.

kdjax --config=configs/digits.py --workdir=DIR
kdjax verify DIR
kdjax --help

What a word does is in `kdjax.commands`, a file each, which is imported when the word is used.
"""

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence

from kdjax import heap
from kdjax.commands import flags

WORDS: Mapping[str, str] = {
    "compress": "make a small checked file of a published network and pictures",
    "prepare": "download a TFDS dataset and prepare it, once",
    "verify": "check that a work directory still is as it was written",
    "report": "write the report of a work directory again",
    "reexport": "write the exported files of a work directory again, with the installed jax",
    "latency": "time an ONNX or LiteRT file on this CPU",
    "weights": "write the model of a stage as safetensors, in its publisher's names or kdjax's",
    "tables": "write the tables of pages from kept results",
    "convert": "write a checkpoint of torch as safetensors; nothing in it is run",
}
"""The words that may come first and what they do; `kdjax.commands` has a module for each."""

EIGEN = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
"""XLA:CPU runs convolutions by Eigen, not by YNNPACK, which takes 1.3 to 1.6 times as long for them."""

_MEASURED_JAXLIB = "0.10."


def main(argv: Sequence[str]) -> int:
    """Does what the arguments say; `argv[0]` is the program.

    Returns:
      The exit status.

    Raises:
      BadInput: an argument or a field is wrong.
    """
    word, *rest = argv[1:] or [""]
    if not word or word.startswith("-"):
        return importlib.import_module("kdjax.commands.run").main(argv)
    from kdjax import spelling, types
    from kdjax.train import interruption  # with jax, for which help does not wait

    if word not in WORDS:
        if word.partition(":")[0].endswith(".py"):
            raise types.BadInput("", f"to run a config, write kdjax --config={word} --workdir=DIR")
        near = spelling.suggestion(word, WORDS)
        raise types.BadInput("", f"there is no command {word!r}", f"{near}; see kdjax --help")
    command = importlib.import_module(f"kdjax.commands.{word}")
    with interruption.watched(then_exits=True):
        return command.main(rest)


def run() -> None:
    """Does what the command line says; see `kdjax.commands.exits` for the exit status."""
    if _asks_for_help(sys.argv) and _helped(sys.argv[1:]):
        return
    from kdjax.commands import exits  # with jax

    exits.run(lambda: main(sys.argv))


def _asks_for_help(argv: Sequence[str]) -> bool:
    """Whether help is wanted, of the whole command or of a word."""
    return bool({"--help", "-h"} & {*argv[1:]}) and (argv[1].startswith("-") or argv[1] in WORDS)


def _helped(given: Sequence[str]) -> bool:
    """Prints help of the whole command; that of a word ends the program. False where it is refused."""
    if given[0].startswith("-"):
        print(flags.overview(WORDS))
        return True
    from kdjax import types
    from kdjax.commands import words

    # What is refused is said, with its status, when the word is done.
    with contextlib.suppress(types.BadInput):
        words.PARSERS[given[0]]().parse_args(given[1:])
    return False


def _prefer_eigen() -> None:
    """Sets the flag of XLA before jax starts, where it was measured and nobody has set flags."""
    import jaxlib.version

    if jaxlib.version.__version__.startswith(_MEASURED_JAXLIB):
        os.environ.setdefault("XLA_FLAGS", EIGEN)


def program() -> None:
    """Entry point. A failure ends at once: what threads were about to write is not waited for."""
    if not _asks_for_help(sys.argv):
        heap.keep()
        from kdjax.commands import exits

        exits.quiet_threads()
        _prefer_eigen()
    status: int | str | None = 1
    try:
        return run()
    except SystemExit as stop:
        status = stop.code
    except Exception:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status if isinstance(status, int) else 1)


if __name__ == "__main__":
    program()
