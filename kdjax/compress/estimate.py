"""How long a plan will take, and what it needs: worked out before it begins."""

from typing import Any, NamedTuple

from kdjax.compress.facts import Machine
from kdjax.compress.rules import Effort, Network, Pictures, batch

COMPILING = 20.0
"""Seconds that a stage takes besides its arithmetic: tracing, compiling, timing a file."""


PROBE = 0.04
"""Seconds that logistic regression takes for each labelled picture, all strengths together."""


class Estimate(NamedTuple):
    """What a plan takes.

    Attributes:
      seconds: by stage; evaluation on the test pictures is part of each.
      disk: bytes of the work directory.
      memory: bytes, at most.
    """

    seconds: dict[str, float]
    disk: int
    memory: int

    @property
    def minutes(self) -> float:
        """All of it."""
        return sum(self.seconds.values()) / 60


def estimate(
    stages: dict[str, Any],
    network: Network,
    pictures: Pictures,
    effort: Effort,
    machine: Machine,
    *,
    student: int,
    outputs: int,
    example: int,
) -> Estimate:
    """By arithmetic alone.

    Args:
      stages: of the plan.
      network: that one begins with.
      pictures: to learn from.
      effort: see there.
      machine: see there.
      student: parameters of the student.
      outputs: numbers that are kept of a view.
      example: bytes of a picture as it is read.
    """
    large, small, size = machine.speed.teacher, machine.speed.student, batch(pictures)
    tests = {"teacher": large, "network": large}
    work = {
        "network": 0.0,
        # A probe asks once for the features, and fits them eight times or so.
        "teacher": PROBE * pictures.labelled
        + large * pictures.labelled
        + machine.speed.teacher_step * size * effort.teacher,
        "cache": large * pictures.train * effort.views,
        "student": small * size * effort.student,
        "scratch": small * size * effort.student,
        "small": small * size * effort.shrunk,
    }
    seconds = {
        name: COMPILING + work.get(name, 0.0) + pictures.test * tests.get(name, small / 3)
        for name in stages
    }
    of_network, of_student = 4 * network.params, 4 * student
    models = of_network * sum(name in stages for name in ("network", "teacher"))
    # Parameters, two moments and a copy of each training stage's last checkpoints.
    models += 8 * of_student * sum(name in stages for name in ("student", "scratch", "small"))
    models += 3 * of_network if effort.teacher else 0
    cache = 2 * outputs * pictures.train * effort.views
    return Estimate(
        seconds,
        int(models + cache),
        int(machine.memory + example * (pictures.train + pictures.test)),
    )
