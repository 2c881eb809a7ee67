"""What a run is: frozen dataclasses, built from the ConfigDict of a config file.

A config file gives a ConfigDict; `kdjax.parse` turns it into a `Run` and names every field that is
unknown, missing or of the wrong type by its path. Defaults live here, nowhere else.
"""

from kdjax.config.data import CropFlipViews, CutMix, Data, EvalViews, Mix, Mixup, SimCLRViews, Views
from kdjax.config.models import CNN, CifarResNet, Encoder, ResNet18
from kdjax.config.run import Run
from kdjax.config.stages import (
    Cache,
    Distill,
    DistillEncoder,
    Embedding,
    Export,
    Finetune,
    FromCache,
    FullLogits,
    Knobs,
    Pretrain,
    Prune,
    Quantize,
    Signal,
    Stage,
    TopK,
)
from kdjax.config.training import (
    LARS,
    SGD,
    AdamW,
    Constant,
    Cosine,
    Optimizer,
    Schedule,
    Stairs,
    Training,
)

__all__ = [
    "CNN",
    "LARS",
    "SGD",
    "AdamW",
    "Cache",
    "CifarResNet",
    "Constant",
    "Cosine",
    "CropFlipViews",
    "CutMix",
    "Data",
    "Distill",
    "DistillEncoder",
    "Embedding",
    "Encoder",
    "EvalViews",
    "Export",
    "Finetune",
    "FromCache",
    "FullLogits",
    "Knobs",
    "Mix",
    "Mixup",
    "Optimizer",
    "Pretrain",
    "Prune",
    "Quantize",
    "ResNet18",
    "Run",
    "Schedule",
    "Signal",
    "SimCLRViews",
    "Stage",
    "Stairs",
    "TopK",
    "Training",
    "Views",
]
