"""One report of a run: `report.json` for machines, `report.html` for people."""

from kdjax.report.page import write
from kdjax.report.pareto import pareto_front
from kdjax.report.rows import Row, aggregate, labels, wilson

__all__ = ["Row", "aggregate", "labels", "pareto_front", "wilson", "write"]
