"""What caches have saved: the time that their teachers would have taken in every step."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from kdjax import config
from kdjax.pipeline.tasks import Task


def saved(manifests: Sequence[tuple[Task, Mapping[str, Any]]]) -> dict[str, dict[str, int | float]]:
    """`{cache: {...}}` of all seeds together, for each that a student has learned from.

    A teacher that is asked in every step takes as long for an example as it took when the cache was
    written: that is measured; the rest is arithmetic. Loading examples and making views is in both.

    * `asked`: examples that the teacher was asked for, each view of each training example.
    * `asked_seconds`: that it takes for them.
    * `read`: examples that students have learned from, `steps * batch` of each.
    * `students`: how many stages and seeds those are; `live` ones are not among them.
    * `live_seconds`: that the teacher would have taken for what was read.
    * `saved_hours`: `live_seconds` less `asked_seconds`; negative where students read less than was kept.

    Args:
      manifests: of what is done, see `kdjax.pipeline.Finished`.
    """
    rates: dict[tuple[str, int], tuple[float, int]] = {}
    read: dict[tuple[str, int], list[int]] = defaultdict(list)
    for task, manifest in manifests:
        if isinstance(task.stage, config.Cache) and (asked := manifest.get("asked")):
            kept = manifest["views"] * manifest["examples"]
            rates[task.name, task.seed] = asked["seconds"] / asked["examples"], kept
        elif isinstance(task.stage, config.FromCache) and not task.stage.live:
            seen = task.stage.steps * task.stage.batch
            for other in task.needs:
                if other.name == task.stage.cache:
                    read[other.name, other.seed].append(seen)
    found: dict[str, dict[str, int | float]] = {}
    for (name, seed), (rate, kept) in rates.items():
        if not (seen := read[name, seed]):
            continue
        of_cache = found.setdefault(name, dict.fromkeys(_FIELDS, 0))
        for field, value in zip(
            _FIELDS,
            (kept, kept * rate, sum(seen), len(seen), sum(seen) * rate),
            strict=True,
        ):
            of_cache[field] += value
    for of_cache in found.values():
        hours = (of_cache["live_seconds"] - of_cache["asked_seconds"]) / 3600
        of_cache["saved_hours"] = round(hours, 4)
        for field in ("asked_seconds", "live_seconds"):
            of_cache[field] = round(of_cache[field], 3)
    return found


_FIELDS = ("asked", "asked_seconds", "read", "students", "live_seconds")
