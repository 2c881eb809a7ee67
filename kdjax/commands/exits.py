"""How the program ends: an exit status, and one line that says what happened.

0: all is finished. 1: a stage, the storage or a check failed, or another run is at the same task.
2: bad input. 75: another of several processes is lost, see `kdjax.train.pod`. 143, 130: SIGTERM, SIGINT,
see `kdjax.train.interruption`. 141: who reads the output, such as `head`, has had enough (SIGPIPE). What
was finished before stays so.
"""

import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from absl import logging

from kdjax import files, lock, train
from kdjax.commands.flags import FLAGS
from kdjax.load import BadConfig
from kdjax.measuring.parity import StageFailed
from kdjax.train import pod
from kdjax.types import BadInput, StorageFailed

_NOBODY_READS = 141


@pod.ends_with_the_others
def run(command: Callable[[], int]) -> None:
    """Runs a command, and raises `SystemExit` where its status is not 0."""
    logging.set_verbosity(logging.FATAL)  # what a library logs as an error it also raises
    try:
        status = command()
    except BadInput as error:
        if isinstance(error, BadConfig) and FLAGS["traceback"].value:
            traceback.print_exception(error.__cause__)
        print(f"kdjax: {error}", file=sys.stderr)
        sys.exit(2)
    except (train.Diverged, StageFailed, StorageFailed, lock.Busy) as error:
        print(f"kdjax: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # of the output: that of a storage has been explained
        sys.exit(_NOBODY_READS)
    except OSError as error:  # which nothing closer to it has explained
        print(f"kdjax: {files.described(error, 'the storage')}", file=sys.stderr)
        sys.exit(1)
    if status:
        sys.exit(status)


def _of_a_thread(error: BaseException | None) -> bool:
    """Whether a thread of a library failed for a reason that is reported elsewhere.

    That is a failure of the storage, or that nobody waits any more for what the thread was writing.
    """
    if error is None:
        return False
    return files.meaning(error) is not None or str(error) == "Event loop is closed"


def quiet_threads() -> None:
    """Keeps threads of libraries from printing about a failure that already has its one line."""

    def of_python(said: threading.ExceptHookArgs) -> None:
        if not _of_a_thread(said.exc_value):
            threading.__excepthook__(said)

    def of_others(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not _of_a_thread(error):
            sys.__excepthook__(kind, error, trace)

    threading.excepthook, sys.excepthook = of_python, of_others
