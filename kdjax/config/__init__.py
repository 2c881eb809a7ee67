"""What a run is: frozen dataclasses, built from the ConfigDict of a config file.

A config file gives a ConfigDict; `kdjax.parse` turns it into a `Run` and names every field that is
unknown, missing, of the wrong type or out of its range by its path. Defaults and ranges live here,
nowhere else: a range is part of the type of its field, and what two fields of a dataclass must be to one
another stands in its `faults`. The docstring of each dataclass ends with what its fields take, written
from the types.

A class that names something also makes it: `Encoder.module`, `Method.method`, `Views.transform`,
`LogitLoss.between`, `FeatureTerm.comparison`, `EmbeddingMethod.terms`, `Mix.mixed`, `Signal.kept`,
`Source.dataset`, `Optimizer.updates`, `Schedule.over`. A new one is a new subclass, in a file of its own
in the folder of its kind or beside the others, and no other edit.
"""

from kdjax import explain
from kdjax.config.budget import Budget, Layers
from kdjax.config.data import Data, Labels
from kdjax.config.embeddings import EmbeddingMethod
from kdjax.config.encoders import Encoder
from kdjax.config.feature_terms import FeatureTerm
from kdjax.config.imported import FromStage, Imported
from kdjax.config.logit_losses import LogitLoss
from kdjax.config.methods import Method
from kdjax.config.mixes import Mix
from kdjax.config.optimizers import Optimizer, Schedule
from kdjax.config.own_stage import OwnStage
from kdjax.config.probes import KNN, Linear, Pairs
from kdjax.config.pruning import (
    NM,
    Blocks,
    Filters,
    Gradual,
    Pattern,
    Prune,
    SparseTraining,
    Ticket,
    Units,
    Weights,
)
from kdjax.config.run import Run
from kdjax.config.scores import OwnScore
from kdjax.config.signals import Signal
from kdjax.config.sources import Source
from kdjax.config.stage import Stage
from kdjax.config.stages import (
    Cache,
    Distill,
    DistillEncoder,
    Evaluate,
    Export,
    Finetune,
    FromCache,
    Hyperparameters,
    Pretrain,
    Pretrained,
    Quantize,
    SelfTraining,
    Sensitivity,
    Shrink,
    Trim,
)
from kdjax.config.teacher_free import TeacherFree
from kdjax.config.training import Number, Ramp, Training, over_steps
from kdjax.config.views import Views

__all__ = [
    "KNN",
    "NM",
    "Blocks",
    "Budget",
    "Cache",
    "Data",
    "Distill",
    "DistillEncoder",
    "EmbeddingMethod",
    "Encoder",
    "Evaluate",
    "Export",
    "FeatureTerm",
    "Filters",
    "Finetune",
    "FromCache",
    "FromStage",
    "Gradual",
    "Hyperparameters",
    "Imported",
    "Labels",
    "Layers",
    "Linear",
    "LogitLoss",
    "Method",
    "Mix",
    "Number",
    "Optimizer",
    "OwnScore",
    "OwnStage",
    "Pairs",
    "Pattern",
    "Pretrain",
    "Pretrained",
    "Prune",
    "Quantize",
    "Ramp",
    "Run",
    "Schedule",
    "SelfTraining",
    "Sensitivity",
    "Shrink",
    "Signal",
    "Source",
    "SparseTraining",
    "Stage",
    "TeacherFree",
    "Ticket",
    "Training",
    "Trim",
    "Units",
    "Views",
    "Weights",
    "over_steps",
]

_documented = {kind: explain.documented(kind) for kind in explain.dataclasses_in(Run)}
for _kind, _doc in _documented.items():
    _kind.__doc__ = _doc
