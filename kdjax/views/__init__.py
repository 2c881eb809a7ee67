"""Views: pure augmentations of one image, recipes of them, and mixtures of two."""

from kdjax.views.color import blur, grayscale, jitter
from kdjax.views.geometry import crop_resize, cutout, flip, quarter_turns, resize, shift, warp
from kdjax.views.masking import random_patch_mask
from kdjax.views.mixing import batch_mixed, cutmix, mixup
from kdjax.views.recipes import (
    RECIPES_VERSION,
    batch_views,
    crop_flip,
    eval_view,
    normalize,
    simclr,
)

__all__ = [
    "RECIPES_VERSION",
    "batch_mixed",
    "batch_views",
    "blur",
    "crop_flip",
    "crop_resize",
    "cutmix",
    "cutout",
    "eval_view",
    "flip",
    "grayscale",
    "jitter",
    "mixup",
    "normalize",
    "quarter_turns",
    "random_patch_mask",
    "resize",
    "shift",
    "simclr",
    "warp",
]
