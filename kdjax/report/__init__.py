"""One report of a run: `report.json` for machines, `report.html` for people."""

from kdjax.report.page import write
from kdjax.report.pareto import pareto_front
from kdjax.report.rows import (
    Row,
    aggregate,
    labels,
    mean_interval,
    ratio_interval,
    row_of,
    wilson,
)
from kdjax.report.scores import Score, title

__all__ = [
    "Row",
    "Score",
    "aggregate",
    "labels",
    "mean_interval",
    "pareto_front",
    "ratio_interval",
    "row_of",
    "title",
    "wilson",
    "write",
]
