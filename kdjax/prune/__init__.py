"""Masks: what they keep, how sparsity grows, and the optax transform that holds them."""

from kdjax.prune.masks import apply_masks, topk_mask
from kdjax.prune.schedules import cubic
from kdjax.prune.transform import MaskState, find_masks, prune_by_magnitude

__all__ = ["MaskState", "apply_masks", "cubic", "find_masks", "prune_by_magnitude", "topk_mask"]
