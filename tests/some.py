"""Some cases of a test in every run, and the rest in a thorough one."""

from collections.abc import Iterable
from typing import Any

import pytest


def some(cases: Iterable[Any], *rest: Any) -> list[Any]:
    """All the cases, of which those that are also among `rest` are `thorough`.

    Choose as `rest` what differs from a case that stays by its numbers alone.
    """
    return [
        pytest.param(case, marks=pytest.mark.thorough) if case in rest else case for case in cases
    ]
