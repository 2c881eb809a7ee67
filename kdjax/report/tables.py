"""Tables in pages, written from results that are kept as JSON: nothing in them is typed by hand.

`kdjax tables` keeps the results of runs and writes the pages.

A page has what is to be written in a comment, and below it what was written:

<!-- from kd=results/cifar100.json
| method | top-1, % | over KD |
|---|---|---|
| KD | {kd: student.accuracy} | |
| DKD | {kd: dkd.accuracy} | {kd: dkd over student} |
-->
| method | ...
<!-- end -->

Files are named relative to the page. In braces stand the name of a file and one of:

* `ROW.SCORE`, such as `ROW.accuracy`: on the test examples, mean and standard deviation over the seeds,
  in % where it is a fraction;
* `ROW.FIELD`: another field of `kdjax.report.Row`, as it is, or in a format: `ROW.latency_ms_p50:.2f`;
  `ROW.kB` are its bytes on disk, in thousands;
* `ROW over OTHER`: how many points more accurate, with the 95 % interval (`kdjax.report.rows.gain`);
  where that has zero in it, that no difference is seen;
* `least ROW over OTHER`: the difference in points that so many seeds would have seen four times of
  five (`least_seen`);
* `A.B.C` or `A.B.C:FORMAT`: whatever is there in the JSON, such as `hours:.1f` or `seeds`. A line with
  `A.*.C` is written once for each entry of the list `A`.
"""

import dataclasses
import math
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epy

from kdjax import files, spelling
from kdjax.files import from_json
from kdjax.report.rows import Row, gain, paired, row_of
from kdjax.report.scores import Score
from kdjax.types import BadFile, BadInput

with epy.lazy_imports():
    from scipy import special

_BLOCK = re.compile(
    r"(?P<head><!-- from (?P<files>[^\n]+)\n(?P<text>.*?)\n-->\n)(?P<written>.*?)(?P<end><!-- end -->)",
    re.DOTALL,
)
_FIELD = re.compile(r"\{(?P<file>\w+): *(?P<asked>[^{}]+?)\}")
_EACH = re.compile(r"\{(?P<file>\w+): *(?P<at>[\w.]+)\.\*\.")
_POWER = 0.8
_SCALED = {
    "kB": ("bytes_on_disk", 1e-3),
    "sparsity": ("sparsity", 100),
}
"""Names that a page may use: the field that each shows, and its factor."""


def least_seen(row: Row, base: Row) -> float | None:
    """The true difference of two scores that a paired t test over the seeds would have found.

    In four of five repetitions, at the 5 % level, with the standard deviation of the differences that was
    seen here: `(t(0.975) + t(0.8)) sd / sqrt(n)`, a little less than the exact figure. None of one seed.

    Reference: Bouthillier et al. 2021, https://arxiv.org/abs/2103.03098, of why to say it.
    """
    if (each := paired(row, base)) is None:
        return None
    t = sum(float(special.stdtrit(len(each) - 1, p)) for p in (0.975, _POWER))
    return t * statistics.stdev(each) / math.sqrt(len(each))


def rendered(text: str, sources: Mapping[str, Mapping[str, Any]]) -> str:
    """A text with its braces filled in.

    Raises:
      BadInput: a file is not named, or lacks what is asked for.
    """

    def one(match: re.Match[str]) -> str:
        name, asked = match["file"], match["asked"].strip()
        if name not in sources:
            raise BadInput(
                "", f"{{{match[0][1:-1]}}}: there is no file {name}", "name it after `from`"
            )
        try:
            return _asked(asked, sources[name])
        except (BadInput, ValueError) as error:
            raise BadInput(match[0], str(error)) from None

    lines = [one for line in text.split("\n") for one in _repeated(line, sources)]
    return _FIELD.sub(one, "\n".join(lines))


def _repeated(line: str, sources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line as often as there are entries in the lists that it has a `*` of; others once."""
    lists = {match[0]: (match["file"], match["at"]) for match in _EACH.finditer(line)}
    counts = set()
    for shown, (file, at) in lists.items():
        if file not in sources:
            continue  # which is said of every field
        if not isinstance(found := _at(at, sources[file]), list):
            raise BadInput(line, f"{file}: {at} is no list", f"take out the * of {shown}...}}")
        counts.add(len(found))
    if len(counts) > 1:
        raise BadInput(line, "its lists differ in length", "give each a line of its own")
    return [
        _EACH.sub(lambda match, i=i: f"{match[0][:-2]}{i}.", line)
        for i in range(counts.pop() if counts else 1)
    ]


def _asked(asked: str, source: Mapping[str, Any]) -> str:
    rows = source.get("rows", {})

    def row(name: str) -> Row:
        if name not in rows:
            raise BadInput("", f"there is no row {name!r}", spelling.suggestion(name, rows))
        return row_of(rows[name], f"rows.{name}")

    if found := re.fullmatch(r"(least )?(\S+) over (\S+)", asked):
        ours, base = row(found[2]), row(found[3])
        if found[1]:
            least = least_seen(ours, base)
            return "–" if least is None else _shown(least, ours)
        return _over(ours, base)
    path, _, form = asked.partition(":")
    name, _, field = path.rpartition(".")
    if name in rows:
        return _field(row(name), field, form)
    value = _at(path, source)
    return format(value, form) if form else _plain(value)


def _at(path: str, source: Mapping[str, Any]) -> Any:
    """What stands at `A.B.C` in a file."""
    value: Any = source
    for part in path.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (LookupError, TypeError, ValueError):
            raise BadInput("", f"there is no {part!r}") from None
    return value


def _field(row: Row, field: str, form: str) -> str:
    if field in row.scores:
        return score(row.scores[field])
    name, scale = _SCALED.get(field, (field, None))
    known = [one.name for one in dataclasses.fields(Row)]
    if name not in known:
        names = [*row.scores, *known, *_SCALED]
        raise BadInput("", f"a row has no {field!r}", spelling.suggestion(field, names))
    value = getattr(row, name)
    if value is None:
        return "–"
    if scale is not None:
        value = scale * value
    return format(value, form or (",.1f" if isinstance(value, float) else ",d"))


def score(found: Score) -> str:
    """`91.2 ± 0.3`, in % where it is a fraction; of one seed `91.2`."""
    scale, places = (100, 1) if found.fraction else (1, 3)
    spread = ""
    if len(found.each) > 1:
        spread = f" ± {scale * statistics.stdev(found.each):.{places}f}"
    return f"{scale * found.value:.{places}f}{spread}"


def _shown(difference: float, row: Row, sign: str = "") -> str:
    """A difference of the scores of a row and another, in points where they are fractions."""
    scale, places = (100, 1) if row.score is None or row.score.fraction else (1, 3)
    return f"{scale * difference:{sign}.{places}f}".replace("-", "−")


def _over(row: Row, base: Row) -> str:
    found = gain(row, base)
    if found is None:
        return "–"
    low, high = found.ci95
    shown = [_shown(x, row, "+") for x in (found.difference, low, high)]
    seen = "" if low > 0 or high < 0 else ", no difference seen"
    return f"{shown[0]} ({shown[1]} to {shown[2]}){seen}"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)


def written(page: Path) -> str:
    """The text of a page with its tables as the files have them.

    Raises:
      BadInput: a file is missing or lacks what is asked for; the message names page and line.
    """
    text = text_of(page)

    def block(match: re.Match[str]) -> str:
        line = text.count("\n", 0, match.start()) + 1
        sources = {}
        try:
            for given in match["files"].split():
                name, equals, path = given.partition("=")
                if not equals:
                    raise BadInput(given, "write NAME=FILE")
                sources[name] = read(page.parent / path)
            return f"{match['head']}{rendered(match['text'], sources)}\n{match['end']}"
        except BadInput as error:
            raise BadFile(f"{page}:{line}", str(error)) from None

    return _BLOCK.sub(block, text)


def text_of(path: Path) -> str:
    """A page, or another file of text.

    Raises:
      BadInput: it cannot be read; the line names it.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        fault, _ = files.meaning(error) or (str(error), "")
        raise BadFile(path, fault) from None
    except ValueError as error:
        raise BadFile(path, str(error)) from None


def read(path: Path) -> Mapping[str, Any]:
    """An object from a JSON file.

    Raises:
      BadInput: it cannot be read, or is something else; the line names it.
    """
    text = text_of(path)
    try:
        found = from_json(text)
    except ValueError as error:
        raise BadFile(path, str(error)) from None
    if not isinstance(found, dict):
        raise BadFile(path, "not an object of JSON", "name a file that kdjax wrote")
    return found
