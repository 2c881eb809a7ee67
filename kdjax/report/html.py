"""The page: one file, no scripts, nothing fetched; what others wrote is escaped."""

import html
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from kdjax.report import table, units
from kdjax.report.caches import caches_table
from kdjax.report.curves import loss_curve
from kdjax.report.groups import frozen_list, group_matrix
from kdjax.report.headline import headline, within_tolerance
from kdjax.report.pictures import Picture, score_versus_latency, score_versus_size
from kdjax.report.rows import Row
from kdjax.report.sensitivity import NUMBERS, UNITS, sensitivity_map, sensitivity_table
from kdjax.report.units import Number

_STYLE = (resources.files("kdjax.report") / "page.css").read_text(encoding="utf-8")
_WIDE_STYLE = (resources.files("kdjax.report") / "wide.css").read_text(encoding="utf-8")
_NO_NETWORK = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_SHOWN_APART = ("name", "config", "command", "wall_seconds", "jobs", "not_done", "caches")


def page(
    *,
    run: Mapping[str, Any],
    rows: Sequence[Row],
    curves: Mapping[str, Sequence[Mapping[str, Number]]],
    parity: Sequence[Mapping[str, Any]],
    shrunk: Mapping[str, Mapping[str, Any]],
    sensitivity: Mapping[str, Mapping[str, Any]],
    twins: Sequence[tuple[str, str]] = (),
) -> str:
    """The whole of `report.html`; the arguments are those of `kdjax.report.write`."""
    name = _text(run.get("name") or "kdjax")
    groups = _groups(run, shrunk, sensitivity)
    style = _STYLE + (_WIDE_STYLE if groups else "")
    sections = [
        _not_done(run),
        _headline(rows, parity, twins),
        _models(rows),
        _tradeoffs(rows),
        _training(curves),
        _caches(run),
        groups,
        _exports(parity),
        _run(run),
        _config(run),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_NO_NETWORK}">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{name}: kdjax report</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"<header><p class='kicker'>kdjax report</p><h1>{name}</h1>{_subtitle(run)}</header>\n"
        + "\n".join(filter(None, sections))
        + f"\n<footer>{_footer(run)}</footer>\n</main>\n</body>\n</html>\n"
    )


def _text(value: Any) -> str:
    return html.escape(_plain(value))


def _plain(value: Any) -> str:
    """One line for any plain value."""
    match value:
        case None | "":
            return units.DASH
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}" if abs(value) >= 10_000 else str(value)
        case float():
            return f"{value:.4g}"
        case Mapping():
            return ", ".join(f"{_words(key)} {_plain(item)}" for key, item in value.items())
        case list() | tuple():
            return (
                ", ".join(str(i) if isinstance(i, int) else _plain(i) for i in value) or units.DASH
            )
    return str(value)


def _words(key: Any) -> str:
    return str(key).replace("_", " ")


def _section(title: str, body: str, note: str = "") -> str:
    note = f"<p class='note'>{note}</p>" if note else ""
    return f"<section><h2>{title}</h2>{note}{body}</section>"


def _subtitle(run: Mapping[str, Any]) -> str:
    dataset = run.get("dataset")
    if isinstance(dataset, Mapping):
        dataset = dataset.get("name")
    seeds = run.get("seeds") or ()
    seeds = f"{'seed' if len(seeds) == 1 else 'seeds'} {_plain(seeds)}" if seeds else None
    total = sum(_walls(run).values())
    beside = f" in {run['jobs']} processes side by side" if "jobs" in run else ""
    work = f"{units.duration(total)} of work{beside}" if total else ""
    parts = [dataset, run.get("device"), seeds, work]
    return f"<p class='subtitle'>{' · '.join(_text(part) for part in parts if part)}</p>"


def _walls(run: Mapping[str, Any]) -> Mapping[str, Number]:
    walls = run.get("wall_seconds") or {}
    return {stage: seconds for stage, seconds in walls.items() if seconds is not None}


def _not_done(run: Mapping[str, Any]) -> str:
    """What the config has and the report has not."""
    missing: dict[tuple[str, str], list[int]] = {}
    for entry in run.get("not_done") or ():
        missing.setdefault((entry["stage"], entry["why"]), []).append(entry["seed"])
    if not missing:
        return ""
    lines = "".join(
        f"<li>{table.breakable(stage)} ({'seed' if len(seeds) == 1 else 'seeds'} {_text(seeds)}): "
        f"{_text(why)}</li>"
        for (stage, why), seeds in missing.items()
    )
    return _section("Not in this report", f"<ul class='missing'>{lines}</ul>")


def _headline(
    rows: Sequence[Row],
    parity: Sequence[Mapping[str, Any]],
    twins: Sequence[tuple[str, str]],
) -> str:
    tiles = "".join(
        f"<li{' class=warn' if claim.is_warning else ''}><b>{_text(claim.value)}</b>"
        f"<span>{_text(claim.what)}</span><small>{_text(claim.detail)}</small></li>"
        for claim in headline(rows, parity, twins)
    )
    return f"<ul class='tiles'>{tiles}</ul>" if tiles else ""


def _models(rows: Sequence[Row]) -> str:
    if not rows:
        return _section("Models", "<p class='note'>No stage has measured a model yet.</p>")
    columns = table.columns(rows)
    missing = table.unmeasured(columns)
    note = f" Not measured in this run: {', '.join(missing)}." if missing else ""
    return _section(
        "Models",
        f"<div class='scroll' tabindex='0' role='region' aria-label='Models'>"
        f"{table.table(rows, columns)}</div>"
        "<details><summary>What each column means and how it was measured</summary>"
        f"{table.legend(columns)}</details>",
        f"{units.DASH} was not measured. <b class='best'>Bold</b> is the best of its column.{note}"
        " <span class='narrow'>The table scrolls sideways.</span>",
    )


def _figure(picture: Picture, below: str = "") -> str:
    legend = "".join(f"<span>{_text(item)}</span>" for item in picture.legend)
    legend = f"<p class='keys'>{legend}</p>" if legend else ""
    return (
        f"<figure><h3>{_text(picture.title)}</h3>{legend}{picture.svg}"
        f"<figcaption>{_text(picture.caption)}</figcaption>{below}</figure>"
    )


def _tradeoffs(rows: Sequence[Row]) -> str:
    pictures = [score_versus_size(rows), *score_versus_latency(rows)]
    figures = "".join(_figure(picture) for picture in pictures if picture is not None)
    return _section("What quality costs", f"<div class='pair'>{figures}</div>") if figures else ""


def _training(curves: Mapping[str, Sequence[Mapping[str, Number]]]) -> str:
    pictures = [
        loss_curve(stage, records, name=f"curve{i}")
        for i, (stage, records) in enumerate(curves.items())
    ]
    figures = "".join(_figure(picture) for picture in pictures if picture is not None)
    if not figures:
        return ""
    note = "Training loss by step, log scale where it is positive. A shaded band is the range of"
    note += " the logged values where there are more of them than pixels."
    return _section("Training", f"<div class='small'>{figures}</div>", note)


def _caches(run: Mapping[str, Any]) -> str:
    if not (caches := run.get("caches")):
        return ""
    note = "A cache keeps what its teacher says: students read it, and nobody asks the teacher in each of"
    note += (
        " their steps. Saved is the time of those passes, at the measured speed of the one kept."
    )
    return _section(
        "What the caches saved", _scrolling("scroll", "Caches", caches_table(caches)), note
    )


def _groups(
    run: Mapping[str, Any],
    shrunk: Mapping[str, Mapping[str, Any]],
    sensitivity: Mapping[str, Mapping[str, Any]],
) -> str:
    """What `shrink` took away and what `sensitivity` measured, one figure a stage."""
    figures = []
    for i, (stage, found) in enumerate(sensitivity.items()):
        measured = (
            (found["curves"], UNITS, f"sensitivity{i}"),
            (found.get("layers", {}), NUMBERS, f"numbers{i}"),
        )
        for curves, changed, name in measured:
            picture = sensitivity_map(curves, changed, name=name)
            if picture is not None:
                picture = _of_stage(picture, run, stage, found, f" {_measured_on(found)}")
                body = sensitivity_table(curves, changed)
                increases = _scrolling("scroll", "Increases", body)
                figures.append(
                    _wide_figure(picture, _folded("The increases as a table", increases))
                )
    for i, (stage, found) in enumerate(shrunk.items()):
        picture = group_matrix(found["groups"], name=f"groups{i}")
        if picture is not None:
            differs = f" Largest difference from the masked model: {found['difference']:.2g} of the"
            picture = _of_stage(picture, run, stage, found, f"{differs} largest output.")
            frozen = found["frozen"]
            title = f"{units.count(len(frozen), 'axis', 'axes')} that cannot lose any, and why"
            figures.append(_wide_figure(picture, _folded(title, frozen_list(frozen))))
    if not figures:
        return ""
    note = (
        "A unit is a channel, a head or a hidden one; taken away, it leaves every layer it is in."
    )
    note += " <span class='narrow'>The pictures scroll sideways.</span>"
    return _section(
        "Groups of units, and layers", f"<div class='wide'>{''.join(figures)}</div>", note
    )


def _of_stage(
    picture: Picture, run: Mapping[str, Any], stage: str, found: Mapping[str, Any], said: str
) -> Picture:
    """The picture with the stage in its title, and whose it is in its caption."""
    seeds = run.get("seeds") or ()
    which = f" Of seed {found['seed']} alone, of {len(seeds)} seeds." if len(seeds) > 1 else ""
    model = f" The model is that of the stage {found['model']}."
    caption = f"{picture.caption}{said}{model}{which}"
    return picture._replace(title=f"{stage}: {picture.title}", caption=caption)


def _measured_on(found: Mapping[str, Any]) -> str:
    return f"The loss is {found['loss']}, over {found['examples']:,} training examples."


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>{body}</details>" if body else ""


def _wide_figure(picture: Picture, below: str) -> str:
    """A figure that scrolls sideways rather than become too small to read."""
    return _figure(picture._replace(svg=_scrolling("sideways", picture.title, picture.svg)), below)


def _scrolling(name: str, label: str, body: str) -> str:
    label = _text(label)
    return f"<div class='{name}' tabindex='0' role='region' aria-label='{label}'>{body}</div>"


_EXPORT_COLUMNS = {
    "artifact": ("artifact", ""),
    "runtime": ("runtime", ""),
    "max_difference": ("largest difference", "of outputs"),
    "tolerance": ("tolerance", "of outputs"),
    "agreement": ("agreement", "%"),
    "required_agreement": ("required", "%"),
    "accuracy_drop": ("accuracy lost", "points"),
    "allowed_drop": ("allowed", "points"),
}


def _exports(parity: Sequence[Mapping[str, Any]]) -> str:
    if not parity:
        return ""
    keys = list(dict.fromkeys(k for export in parity for k, v in export.items() if v is not None))
    known = [key for key in _EXPORT_COLUMNS if key in keys]
    keys = known + [key for key in keys if key not in _EXPORT_COLUMNS]
    head = "<th scope='col' class='text'>verdict<small>&nbsp;</small></th>"
    for i, key in enumerate(keys):
        name, unit = _EXPORT_COLUMNS.get(key, (_words(key), ""))
        cell = f"{html.escape(name)}<small>{unit or '&nbsp;'}</small>"
        kind = " class='text'" if any(isinstance(e.get(key), str) for e in parity) else ""
        column = f"<th scope='col'{kind}>{cell}</th>"
        head = column + head if i == 0 else head + column
    body = "".join(_export(export, keys) for export in parity)
    return _section(
        "Exports against the live model",
        "<div class='scroll boxed' tabindex='0' role='region' aria-label='Exports'>"
        f"<table class='exports'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>",
        "Each exported file was loaded again in its own runtime and fed the same examples.",
    )


def _export(export: Mapping[str, Any], keys: Sequence[str]) -> str:
    first, *others = keys
    verdict = {
        None: f"<td class='none'>{units.DASH}</td>",
        True: "<td class='text good'>✓ within tolerance</td>",
        False: "<td class='text bad'>✗ beyond tolerance</td>",
    }[within_tolerance(export)]
    cells = []
    for key in others:
        value = export.get(key)
        if _EXPORT_COLUMNS.get(key, ("", ""))[1] in ("%", "points"):
            shown = units.percent(value) if value in (None, 0, 1) else f"{100 * value:.2f}"
        elif isinstance(value, float):
            shown = f"{value:.2g}"
        else:
            shown = _plain(value)
        kind = "none" if value is None else "text" if isinstance(value, str) else ""
        cells.append(f"<td class='{kind}'>{html.escape(shown)}</td>")
    name = table.breakable(_plain(export.get(first)))
    return f"<tr><th scope='row'>{name}</th>{verdict}{''.join(cells)}</tr>"


def _run(run: Mapping[str, Any]) -> str:
    facts = []
    for key, value in run.items():
        if key in _SHOWN_APART:
            continue
        facts.append(f"<div><dt>{html.escape(_words(key))}</dt><dd>{_text(value)}</dd></div>")
    body = f"<dl class='facts'>{''.join(facts)}</dl>" if facts else ""
    if walls := _walls(run):
        most = max(*walls.values(), 1e-9)
        bars = "".join(
            f"<li><span>{table.breakable(stage)}</span>"
            f"<i><b style='width:{100 * seconds / most:.1f}%'></b></i>"
            f"<em>{units.duration(seconds)}</em></li>"
            for stage, seconds in walls.items()
        )
        total = units.duration(sum(walls.values()))
        body += f"<h3>Wall time by stage, {total} in all</h3><ul class='walls'>{bars}</ul>"
    if run.get("command"):
        body += f"<h3>Command</h3><pre>{_text(run['command'])}</pre>"
    return _section("This run", body) if body else ""


def _config(run: Mapping[str, Any]) -> str:
    if not run.get("config"):
        return ""
    return (
        "<section><details class='config'><summary>The configuration of this run</summary>"
        f"<pre>{html.escape(str(run['config']))}</pre></details></section>"
    )


def _footer(run: Mapping[str, Any]) -> str:
    return "The same figures, unrounded, are in <code>report.json</code> beside this file."
