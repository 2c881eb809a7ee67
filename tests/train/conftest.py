import pytest


@pytest.fixture(autouse=True, scope="module")
def _quick(little_optimization):
    pass
