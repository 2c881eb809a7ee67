"""The kinds of stages: a file for each family."""

from kdjax.config.stages.compression import Quantize, Sensitivity, Shrink
from kdjax.config.stages.distillation import (
    Cache,
    Distill,
    DistillEncoder,
    FromCache,
    Hyperparameters,
    taught_by,
)
from kdjax.config.stages.evaluation import Evaluate
from kdjax.config.stages.exporting import Export
from kdjax.config.stages.finetuning import Finetune, SelfTraining
from kdjax.config.stages.pretrained import Pretrained
from kdjax.config.stages.pretraining import Pretrain
from kdjax.config.stages.trimming import Trim

__all__ = [
    "Cache",
    "Distill",
    "DistillEncoder",
    "Evaluate",
    "Export",
    "Finetune",
    "FromCache",
    "Hyperparameters",
    "Pretrain",
    "Pretrained",
    "Quantize",
    "SelfTraining",
    "Sensitivity",
    "Shrink",
    "Trim",
    "taught_by",
]
