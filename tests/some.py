"""Some cases of a test in every run, and the rest in a thorough one."""

from collections.abc import Iterable
from typing import Any

import pytest


def some(cases: Iterable[Any], *rest: Any) -> list[Any]:
    """All the cases, of which those that are also among `rest` are `thorough`.

    What a thorough one has beside its parameters is in a case that is run each time.
    """
    return [
        pytest.param(case, marks=pytest.mark.thorough) if case in rest else case for case in cases
    ]
