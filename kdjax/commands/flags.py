"""The flags of a run, and what `kdjax --help` prints.

Nothing here imports jax: help is there at once.
"""

import textwrap
from collections.abc import Mapping

from absl import flags

from kdjax.deadlines import GRACE_SECONDS, JOIN_SECONDS, LOST, PEER_SECONDS

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "config", None, "config file: FILE.py or FILE.py:arg,arg=value", flag_values=FLAGS
)
flags.DEFINE_string(
    "workdir", None, "where the run is kept: a local path or gs://", flag_values=FLAGS
)
flags.DEFINE_list("stages", None, "run only these stages and what they need", flag_values=FLAGS)
flags.DEFINE_string(
    "seeds", None, "run these seeds instead of the config's: 3, or 0,1,2", flag_values=FLAGS
)
flags.DEFINE_integer(
    "jobs",
    1,
    "processes that do stages side by side, on a CPU",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_bool("dry_run", False, "check everything, print the plan and stop", flag_values=FLAGS)
flags.DEFINE_string(
    "fields",
    None,
    "print what the fields of a part of a config accept: SGD, say, or all",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "traceback", False, "if the config file fails, print the whole traceback", flag_values=FLAGS
)
flags.DEFINE_integer(
    "replay_step",
    None,
    "repeat one step of the one stage in --stages and name the examples and values that are not finite",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "grace_seconds",
    GRACE_SECONDS,
    "how long a stop by SIGTERM or SIGINT may take to write a checkpoint",
    lower_bound=0.0,
    flag_values=FLAGS,
)
flags.DEFINE_bool("distributed", False, "join the other processes of a pod", flag_values=FLAGS)
flags.DEFINE_string(
    "coordinator_address",
    None,
    "HOST:PORT of process 0, where no cluster provides it",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "num_processes", None, "how many, with --coordinator_address", flag_values=FLAGS
)
flags.DEFINE_integer(
    "process_id", None, "which of them this is, with --coordinator_address", flag_values=FLAGS
)
flags.DEFINE_integer(
    "join_timeout_seconds",
    JOIN_SECONDS,
    f"exit with status {LOST} if not all processes have joined by then",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "peer_timeout_seconds",
    PEER_SECONDS,
    f"exit with status {LOST} if another process gives no sign of life for so long",
    lower_bound=1,
    flag_values=FLAGS,
)

_GROUPS = {
    "Flags of a run": (
        *("config", "workdir", "stages", "seeds", "jobs", "dry_run", "grace_seconds"),
    ),
    "To look into it": ("fields", "traceback", "replay_step"),
    "On several hosts (give every process the same command)": (
        *("distributed", "coordinator_address", "num_processes", "process_id"),
        *("join_timeout_seconds", "peer_timeout_seconds"),
    ),
}
_WIDTH, _INDENT = 100, 32


def overview(words: Mapping[str, str]) -> str:
    """The text of `kdjax --help`: the words first, then a run and its flags.

    Args:
      words: `{word: what it does}`.
    """
    listed = "\n".join(_entry(f"kdjax {word}", does) for word, does in words.items())
    groups = "\n\n".join(
        f"{title}:\n" + "\n".join(map(_flag, names)) for title, names in _GROUPS.items()
    )
    return f"""\
kdjax: from a large model and mostly unlabelled data to a small, deployed one, with one config.

{listed}

Each of these has a --help of its own. Without such a word, kdjax runs a config:

  kdjax --config=configs/digits.py --workdir=runs/digits --jobs=2
  kdjax --config=configs/digits.py --workdir=runs/digits --config.stages.student.steps=800

--config.PATH=VALUE sets any field of the config. The same command again skips what is finished and
continues what was stopped.

{groups}

Exit status: 0 all finished, 1 a stage or the storage failed, 2 bad input, {LOST} another process was
lost, 130 or 143 stopped by a signal."""


def _flag(name: str) -> str:
    flag = FLAGS[name]
    default = "" if flag.default in (None, False) else f" (default: {flag.default:g})"
    value = "" if flag.boolean else "=..."
    return _entry(f"--{name}{value}", f"{flag.help}{default}")


def _entry(name: str, does: str) -> str:
    return textwrap.fill(
        does,
        _WIDTH,
        initial_indent=f"  {name:<{_INDENT - 2}}",
        subsequent_indent=" " * _INDENT,
    )
