"""Views: pure augmentations of one image, recording or text, recipes of them, and mixtures of two."""

from kdjax.views import draws
from kdjax.views.centre import before_crop, uncropped
from kdjax.views.color import blur, grayscale, jitter
from kdjax.views.geometry import (
    Size,
    crop_resize,
    cutout,
    flip,
    quarter_turns,
    resize,
    shift,
    sides,
    warp,
)
from kdjax.views.masking import frame_spans, masked_tokens, random_patch_mask
from kdjax.views.mixing import Mix, batch_mixed, cutmix, mixup
from kdjax.views.quiet import pauses
from kdjax.views.recipes import (
    RECIPES_VERSION,
    Recipe,
    batch_views,
    crop_flip,
    eval_view,
    normalize,
    simclr,
    to_float,
)
from kdjax.views.sound import Pauses, ragged_waveform, shortest, waveform
from kdjax.views.text import token_view

__all__ = [
    "RECIPES_VERSION",
    "Mix",
    "Pauses",
    "Recipe",
    "Size",
    "batch_mixed",
    "batch_views",
    "before_crop",
    "blur",
    "crop_flip",
    "crop_resize",
    "cutmix",
    "cutout",
    "draws",
    "eval_view",
    "flip",
    "frame_spans",
    "grayscale",
    "jitter",
    "masked_tokens",
    "mixup",
    "normalize",
    "pauses",
    "quarter_turns",
    "ragged_waveform",
    "random_patch_mask",
    "resize",
    "shift",
    "shortest",
    "sides",
    "simclr",
    "to_float",
    "token_view",
    "uncropped",
    "warp",
    "waveform",
]
