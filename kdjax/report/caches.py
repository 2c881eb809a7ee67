"""What the caches have saved, as a table: see `kdjax.pipeline.saved`."""

from collections.abc import Mapping

from kdjax.report import table, units
from kdjax.report.units import Number

_COLUMNS = (
    ("asked once for", "examples"),
    ("took", "&nbsp;"),
    ("students read", "examples"),
    ("students", "&nbsp;"),
    ("live it would take", "&nbsp;"),
    ("saved", "&nbsp;"),
)


def caches_table(caches: Mapping[str, Mapping[str, Number]]) -> str:
    """One row a cache, and one of all where there are several."""
    head = "".join(f"<th scope='col'>{name}<small>{unit}</small></th>" for name, unit in _COLUMNS)
    rows = [_row(table.breakable(name), found) for name, found in caches.items()]
    if len(caches) > 1:
        fields = next(iter(caches.values()))
        all_of = {field: sum(found[field] for found in caches.values()) for field in fields}
        rows.append(_row("all", all_of))
    return (
        "<table class='exports'><thead><tr><th scope='col' class='text'>cache<small>&nbsp;</small>"
        f"</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _row(name: str, found: Mapping[str, Number]) -> str:
    seconds = 3600 * found["saved_hours"]
    saved = units.duration(abs(seconds)) if seconds >= 0 else f"−{units.duration(-seconds)}"
    cells = (
        f"{found['asked']:,}",
        units.duration(found["asked_seconds"]),
        f"{found['read']:,}",
        f"{found['students']}",
        units.duration(found["live_seconds"]),
        saved,
    )
    body = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr><th scope='row'>{name}</th>{body}</tr>"
