"""Masks: what they keep, how sparsity grows, and what holds an optimizer to them."""

from kdjax.prune.masks import apply_masks, topk_mask
from kdjax.prune.rules import (
    gradual,
    gradual_global,
    random_masks,
    rigl,
    sparse_evolution,
    straight_through,
)
from kdjax.prune.schedules import cubic
from kdjax.prune.transform import MaskState, Rule, find_masks, hold, hold_fixed

__all__ = [
    "MaskState",
    "Rule",
    "apply_masks",
    "cubic",
    "find_masks",
    "gradual",
    "gradual_global",
    "hold",
    "hold_fixed",
    "random_masks",
    "rigl",
    "sparse_evolution",
    "straight_through",
    "topk_mask",
]
