"""A config as a file of Python, for a reader who wants to change it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH = 96

_FILE = '''"""{title}

  {command}

{why}
Every field is described by `kdjax --fields=NAME`, and can be set on the command line, such as
--config.stages.student.steps=500.
"""

from ml_collections import ConfigDict


def get_config(arg: str | None = None) -> ConfigDict:
    c = ConfigDict()
{fields}
    c.stages = ConfigDict(sort_keys=False)
{stages}
    return c
'''


def config_file(
    run: Mapping[str, Any],
    *,
    title: str,
    command: str,
    why: Sequence[str],
    notes: Mapping[str, str],
) -> str:
    """The text of a config file whose `get_config()` gives `run`.

    Args:
      run: plain data, with `stages`.
      title: one line that ends with a full stop.
      command: that runs it.
      why: what was chosen and by which facts, a line each.
      notes: a comment before a stage, by its name.
    """
    fields = [
        f"    c.{name} = {written(value, indent=4, used=len(name) + 9)}"
        for name, value in run.items()
        if name != "stages"
    ]
    stages = []
    for name, stage in run["stages"].items():
        if note := notes.get(name):
            stages.append(f"    # {note}")
        stages.append(f"    c.stages.{name} = {written(stage, indent=4, used=len(name) + 16)}")
    return _FILE.format(
        title=title,
        command=command,
        why="".join(f"{line}\n" for line in why),
        fields="\n".join(fields),
        stages="\n".join(stages),
    )


def written(value: Any, *, indent: int, used: int = 0) -> str:
    """Plain data as Python writes it: on one line where it fits, else an entry a line.

    Args:
      value: dicts, lists, strings, numbers, True, False and None.
      indent: columns before its first line.
      used: columns of that line that are taken.
    """
    flat = _flat(value)
    if indent + used + len(flat) <= _WIDTH or not isinstance(value, Mapping | list | tuple):
        return flat
    deeper = indent + 4
    if isinstance(value, Mapping):
        begin, end, named = _brackets(value)
        lines = [
            f"{_key(key, named)}{written(item, indent=deeper, used=len(_key(key, named)) + 1)},"
            for key, item in value.items()
        ]
    else:
        begin, end = "[", "]"
        lines = [f"{written(item, indent=deeper, used=1)}," for item in value]
    inner = "".join(f"{' ' * deeper}{line}\n" for line in lines)
    return f"{begin}\n{inner}{' ' * indent}{end}"


def _flat(value: Any) -> str:
    match value:
        case Mapping():
            begin, end, named = _brackets(value)
            inner = ", ".join(_key(key, named) + _flat(item) for key, item in value.items())
            return f"{begin}{inner}{end}"
        case list() | tuple():
            return f"[{', '.join(map(_flat, value))}]"
        case str():
            return json.dumps(value, ensure_ascii=False)  # which is a literal of Python, too
    return repr(value)


def _brackets(value: Mapping[str, Any]) -> tuple[str, str, bool]:
    """`dict(...)` where every key is a name, else braces."""
    named = all(key.isidentifier() for key in value)
    return ("dict(", ")", True) if named else ("{", "}", False)


def _key(key: str, named: bool) -> str:
    return f"{key}=" if named else f"{_flat(key)}: "
