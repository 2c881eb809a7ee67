"""Channels, heads and hidden units taken away for good: groups, scores, smaller shapes."""

from kdjax.shrink.cut import cut, cut_following
from kdjax.shrink.groups import Group, Groups, Kept, Member, find_groups
from kdjax.shrink.narrow import Narrowed, Widths
from kdjax.shrink.scores import (
    activity,
    group_l1,
    group_l2,
    keep_best,
    keep_each,
    producer_l1,
    scale_l1,
    taylor,
    unit_masks,
)
from kdjax.shrink.shrink import Model, Shrunk, groups_of, shrink, take_away
from kdjax.shrink.taps import Seen, activations

__all__ = [
    "Group",
    "Groups",
    "Kept",
    "Member",
    "Model",
    "Narrowed",
    "Seen",
    "Shrunk",
    "Widths",
    "activations",
    "activity",
    "cut",
    "cut_following",
    "find_groups",
    "group_l1",
    "group_l2",
    "groups_of",
    "keep_best",
    "keep_each",
    "producer_l1",
    "scale_l1",
    "shrink",
    "take_away",
    "taylor",
    "unit_masks",
]
