"""A run as a graph of stages: what there is to do, what is done, and the doing of it."""

from kdjax.pipeline.graph import check_names, order
from kdjax.pipeline.one_step import replay
from kdjax.pipeline.results import Finished, finished, first_said, twins
from kdjax.pipeline.running import check, execute, help_out
from kdjax.pipeline.saved import saved
from kdjax.pipeline.tasks import VERSION, Task, plan
from kdjax.pipeline.workers import Workers, began, started

__all__ = [
    "VERSION",
    "Finished",
    "Task",
    "Workers",
    "began",
    "check",
    "check_names",
    "execute",
    "finished",
    "first_said",
    "help_out",
    "order",
    "plan",
    "replay",
    "saved",
    "started",
    "twins",
]
