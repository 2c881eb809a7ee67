"""Weights held at zero while an optimizer runs. What makes a model smaller is `kdjax.shrink`.

A rule is put together from a schedule (how much), an allocation (where), a score (which) and a mask
(in what pattern), each a module of pure functions:

    rule = prune.gradual(schedules.cubic(0.9, begin_step=0, end_step=1000), mask=masks.topk_mask)
    tx = prune.hold(tx, rule, prunable=".*/kernel", begin_step=0, end_step=1000, every_steps=100)
"""

from kdjax.prune import allocation, masks, schedules, scores
from kdjax.prune.rules import (
    gradual,
    gradual_global,
    random_masks,
    rigl,
    sparse_evolution,
    straight_through,
)
from kdjax.prune.transform import MaskState, Rule, find_masks, hold, hold_fixed

__all__ = [
    "MaskState",
    "Rule",
    "allocation",
    "find_masks",
    "gradual",
    "gradual_global",
    "hold",
    "hold_fixed",
    "masks",
    "random_masks",
    "rigl",
    "schedules",
    "scores",
    "sparse_evolution",
    "straight_through",
]
