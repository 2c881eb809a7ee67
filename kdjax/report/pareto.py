"""Which models are worth having at all."""

from collections.abc import Sequence

from kdjax.report.units import Number


def pareto_front(cost: Sequence[Number], gain: Sequence[Number]) -> list[int]:
    """Indices of the points that no other beats, by rising cost.

    A point is beaten if another has no more cost and no less gain, and is better in one of them.
    Of equal points all are kept.
    """
    front: list[int] = []
    best = float("-inf")
    for i in sorted(range(len(cost)), key=lambda i: (cost[i], -gain[i])):
        twin = bool(front) and (cost[front[-1]], gain[front[-1]]) == (cost[i], gain[i])
        if gain[i] > best or twin:
            front.append(i)
            best = gain[i]
    return front
