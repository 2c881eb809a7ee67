"""The train state, the one step, where it runs, and the loop around it."""

from kdjax.train.checkpoints import Checkpoints, load_tree, save_tree
from kdjax.train.loop import train
from kdjax.train.objective import Objective, Outputs, Term, weigh
from kdjax.train.parallel import Parallel, check_batch, choose, rows_of_process
from kdjax.train.recalibrate import recalibrate
from kdjax.train.recorder import Diverged, Recorder
from kdjax.train.state import TrainState
from kdjax.train.step import TrainStep, make_run_steps, make_train_step
from kdjax.train.sweep import Sweep, make_sweep_step, start_sweep, student

__all__ = [
    "Checkpoints",
    "Diverged",
    "Objective",
    "Outputs",
    "Parallel",
    "Recorder",
    "Sweep",
    "Term",
    "TrainState",
    "TrainStep",
    "check_batch",
    "choose",
    "load_tree",
    "make_run_steps",
    "make_sweep_step",
    "make_train_step",
    "recalibrate",
    "rows_of_process",
    "save_tree",
    "start_sweep",
    "student",
    "train",
    "weigh",
]
