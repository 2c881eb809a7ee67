"""Mixed precision: numbers for each layer that hurt least within a budget."""

from collections.abc import Mapping

import numpy as np
from etils import epy

from kdjax.types import BadInput

with epy.lazy_imports():  # slow to import, and few runs allocate numbers
    import scipy.optimize


def allocate(
    hurts: Mapping[str, Mapping[str, float]],
    costs: Mapping[str, Mapping[str, float]],
    *,
    budget: float | int,
) -> dict[str, str]:
    """The choice of each layer, of the least total hurt among those whose total cost is affordable.

    An integer program, solved exactly; that the hurts of layers add up is its one assumption (Yao et
    al. 2020, HAWQ-V3, https://arxiv.org/abs/2011.10680, eq. 8; there with the trace of the Hessian for
    the hurt). Of choices that hurt as little, the cheaper.

    Args:
      hurts: `{layer: {choice: increase of the loss}}`; one below zero is noise and counts as none.
      costs: likewise, in the unit of the budget.
      budget: of all layers together.

    Raises:
      BadInput: the cheapest choices cost more than the budget.
    """
    pairs = [(layer, choice) for layer, found in hurts.items() for choice in found]
    hurt = np.array([max(hurts[layer][choice], 0.0) for layer, choice in pairs])
    cost = np.array([costs[layer][choice] for layer, choice in pairs], np.float64)
    least = sum(min(costs[layer][choice] for choice in hurts[layer]) for layer in hurts)
    if least > budget:
        raise BadInput(
            "budget", f"{budget:,g} cannot be met", f"the cheapest numbers cost {least:,g}"
        )
    layers = list(hurts)
    once = np.array([[layer == of for of, _ in pairs] for layer in layers], float)
    # In units of their own sums: the solver's tolerances are absolute.
    tie = 1e-6 * cost / max(cost.sum(), 1e-30)
    found = scipy.optimize.milp(
        hurt / max(hurt.sum(), 1e-30) + tie,
        integrality=np.ones(len(pairs)),
        bounds=scipy.optimize.Bounds(0, 1),
        constraints=[
            scipy.optimize.LinearConstraint(once, 1, 1),
            scipy.optimize.LinearConstraint(cost[None] / budget, -np.inf, 1.0),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise BadInput("budget", f"{budget:,g}: no choice of numbers was found: {found.message}")
    return {layer: choice for (layer, choice), one in zip(pairs, found.x, strict=True) if one > 0.5}
