"""The train state, the one step, where it runs, and the loop around it."""

from kdjax.train.checkpoints import Checkpoints, load_tree, save_tree
from kdjax.train.loop import train
from kdjax.train.objective import Objective, Outputs, Term, weigh
from kdjax.train.parallel import Parallel, check_batch, choose, rows_of_process
from kdjax.train.recorder import Diverged, Recorder
from kdjax.train.state import TrainState
from kdjax.train.step import make_run_steps, make_train_step

__all__ = [
    "Checkpoints",
    "Diverged",
    "Objective",
    "Outputs",
    "Parallel",
    "Recorder",
    "Term",
    "TrainState",
    "check_batch",
    "choose",
    "load_tree",
    "make_run_steps",
    "make_train_step",
    "rows_of_process",
    "save_tree",
    "train",
    "weigh",
]
