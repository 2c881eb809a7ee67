"""What a run that goes on elsewhere must have in its third and fourth step."""

from collections.abc import Mapping

import numpy as np

from tests import runs


def expected(name: str):
    """Of the third and fourth step of one device that is never stopped, and what they see."""
    whole = runs.fitted(name, "single")
    metrics = {metric: values[2:4] for metric, values in whole.metrics.items()}
    return metrics, runs.seen(name, "single", start=2, stop=4)


def assert_goes_on(found: Mapping[str, np.ndarray], name: str, case: str) -> None:
    """`found` has `case:leaf` of the third and fourth step."""
    metrics, sums = expected(name)
    for leaf, values in sums.items():
        np.testing.assert_array_equal(found[f"{case}:{leaf}"], values, err_msg=f"{case}: {leaf}")
    for metric, values in metrics.items():
        tolerance = 1e-6 if metric.startswith("loss") else 1e-5
        np.testing.assert_allclose(
            found[f"{case}:{metric}"], values, rtol=tolerance, err_msg=f"{case}: {metric}"
        )
