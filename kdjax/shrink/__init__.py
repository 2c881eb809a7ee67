"""Channels, heads and hidden units taken away for good: groups, scores, smaller shapes."""

from kdjax.shrink.cost import described, params_left
from kdjax.shrink.cut import cut, cut_following
from kdjax.shrink.groups import Group, Groups, Kept, Member, find_groups
from kdjax.shrink.narrow import Narrowed, Widths
from kdjax.shrink.rule import gradual_units, unit_parameters
from kdjax.shrink.scores import (
    Scores,
    activity,
    group_l1,
    group_l2,
    keep_best,
    keep_each,
    producer_l1,
    random,
    scale_l1,
    taylor,
    unit_masks,
)
from kdjax.shrink.sensitivity import Keep, curves, fallen, sensitivity, whole_of
from kdjax.shrink.shrink import Model, Shrunk, groups_of, shrink, take_away
from kdjax.shrink.taps import Seen, activations

__all__ = [
    "Group",
    "Groups",
    "Keep",
    "Kept",
    "Member",
    "Model",
    "Narrowed",
    "Scores",
    "Seen",
    "Shrunk",
    "Widths",
    "activations",
    "activity",
    "curves",
    "cut",
    "cut_following",
    "described",
    "fallen",
    "find_groups",
    "gradual_units",
    "group_l1",
    "group_l2",
    "groups_of",
    "keep_best",
    "keep_each",
    "params_left",
    "producer_l1",
    "random",
    "scale_l1",
    "sensitivity",
    "shrink",
    "take_away",
    "taylor",
    "unit_masks",
    "unit_parameters",
    "whole_of",
]
