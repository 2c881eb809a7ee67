"""`kdjax compress`: which student, views, steps and bits a network and a set of pictures call for.

`rules` has them all, as functions of facts; `facts` finds these, and `recognised` the network by its
weights. What is chosen is written out as a config (`written`), estimated (`estimate`) and run like any
other; `summary` says in lines what came of it.
"""

from kdjax.compress.budget import Budget, parsed
from kdjax.compress.estimate import Estimate, estimate
from kdjax.compress.facts import Machine, machine, pictures, spec_of
from kdjax.compress.recognised import recognised
from kdjax.compress.rules import (
    WIDTHS,
    Effort,
    Network,
    Pictures,
    Speed,
    batch,
    effort,
    seen,
    stages,
    stored,
    student,
    student_size,
    width_of,
)
from kdjax.compress.summary import lines, rows_of
from kdjax.compress.written import config_file

__all__ = [
    "WIDTHS",
    "Budget",
    "Effort",
    "Estimate",
    "Machine",
    "Network",
    "Pictures",
    "Speed",
    "batch",
    "config_file",
    "effort",
    "estimate",
    "lines",
    "machine",
    "parsed",
    "pictures",
    "recognised",
    "rows_of",
    "seen",
    "spec_of",
    "stages",
    "stored",
    "student",
    "student_size",
    "width_of",
]
