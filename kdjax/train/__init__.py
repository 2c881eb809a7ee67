"""The train state, the one step, where it runs, and the loop around it."""

from kdjax.train.auxiliary import apply_auxiliary, with_auxiliary
from kdjax.train.average import make_reading_step, readings_of
from kdjax.train.checkpoints import Checkpoints
from kdjax.train.freezing import Freezing, freeze
from kdjax.train.interruption import Interrupted
from kdjax.train.loop import train
from kdjax.train.objective import (
    Forward,
    Losses,
    Number,
    Objective,
    Outputs,
    Term,
    Terms,
    apply_model,
    at,
    forward_of,
    scheduled,
    weigh,
)
from kdjax.train.parallel import BRIEF, Parallel, check_batch, choose, rows_of_process
from kdjax.train.recalibrate import recalibrate, with_statistics
from kdjax.train.recorder import Diverged, Recorder
from kdjax.train.replay import Replayed, replay
from kdjax.train.state import BESIDE, MEMORY, TrainState, of_model
from kdjax.train.step import TrainStep, make_run_steps, make_train_step
from kdjax.train.storage import load_any, load_tree, save_tree
from kdjax.train.sweep import Sweep, make_sweep_step, start_sweep, student

__all__ = [
    "BESIDE",
    "BRIEF",
    "MEMORY",
    "Checkpoints",
    "Diverged",
    "Forward",
    "Freezing",
    "Interrupted",
    "Losses",
    "Number",
    "Objective",
    "Outputs",
    "Parallel",
    "Recorder",
    "Replayed",
    "Sweep",
    "Term",
    "Terms",
    "TrainState",
    "TrainStep",
    "apply_auxiliary",
    "apply_model",
    "at",
    "check_batch",
    "choose",
    "forward_of",
    "freeze",
    "load_any",
    "load_tree",
    "make_reading_step",
    "make_run_steps",
    "make_sweep_step",
    "make_train_step",
    "of_model",
    "readings_of",
    "recalibrate",
    "replay",
    "rows_of_process",
    "save_tree",
    "scheduled",
    "start_sweep",
    "student",
    "train",
    "weigh",
    "with_auxiliary",
    "with_statistics",
]
