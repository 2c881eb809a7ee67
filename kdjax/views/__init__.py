"""Views: pure augmentations of one image, and recipes of them."""

from kdjax.views.color import blur, grayscale, jitter
from kdjax.views.geometry import crop_resize, cutout, flip, resize, shift
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
    "batch_views",
    "blur",
    "crop_flip",
    "crop_resize",
    "cutout",
    "eval_view",
    "flip",
    "grayscale",
    "jitter",
    "normalize",
    "resize",
    "shift",
    "simclr",
]
