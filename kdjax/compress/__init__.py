"""`kdjax compress`: which student, views, steps and bits a network and a set of pictures call for.

`rules` has them all, as functions of facts; `facts` finds these, and `recognised` the network by its
weights. What is chosen (`choice`) is written out as a config (`written`), with an estimate of what it
takes (`estimate`), and run like any other; `summary` says in lines what came of it.
"""

from kdjax.compress.budget import Budget, parsed
from kdjax.compress.choice import Asked, Chosen, choose
from kdjax.compress.summary import Result, opened, result, rows_of
from kdjax.compress.written import config_file

__all__ = [
    "Asked",
    "Budget",
    "Chosen",
    "Result",
    "choose",
    "config_file",
    "opened",
    "parsed",
    "result",
    "rows_of",
]
