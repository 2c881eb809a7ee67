"""A line of stages that takes seconds: the real data, tiny models, few steps."""

import copy
import dataclasses
import shutil

import pytest
from etils import epath

from kdjax import config, parse, pipeline
from kdjax.contexts import Splits

_TRAINING = {
    "steps": 6,
    "batch": 32,
    "log_every_steps": 1,
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
}
_VIEWS = {"recipe": "crop_flip", "shift": 1, "flip": 0.0}

LINE = {
    "name": "tiny",
    "parallel": "single",
    "data": {
        "name": "digits",
        "train_split": "train[:20%]",
        "test_split": "test[:20%]",
        "labels_per_class": 3,
    },
    "stages": {
        "pretrain": {
            "kind": "pretrain",
            "encoder": {"name": "cnn", "widths": [8, 16]},
            "projector": [16, 8],
            "views": {"recipe": "simclr", "flip": 0.0},
            **_TRAINING,
        },
        "teacher": {
            "kind": "finetune",
            "start_from": "pretrain",
            "views": _VIEWS,
            **_TRAINING,
        },
        "cache": {
            "kind": "cache",
            "teacher": "teacher",
            "recipe": _VIEWS,
            "views": 2,
            "dtype": "float32",
        },
        "student": {
            "kind": "distill",
            "cache": "cache",
            "encoder": {"name": "cnn", "widths": [4, 8]},
            **_TRAINING,
            "steps": 30,
        },
    },
}


def changed(line: dict, **changes) -> dict:
    """A copy of `line` with `path__to__field=value` set."""
    line = copy.deepcopy(line)
    for path, value in changes.items():
        parse.override(line, path.replace("__", "."), repr(value))
    return line


@dataclasses.dataclass
class Line:
    """Runs lines in one work directory."""

    workdir: epath.Path

    def plan(self, only=None, **changes):
        run = parse.parse(config.Run, changed(LINE, **changes))
        splits = Splits(run.data)
        return run, pipeline.plan(run, self.workdir, splits, only=only), splits

    def run(self, only=None, **changes):
        """Does the tasks; gives them by stage."""
        run, tasks, splits = self.plan(only, **changes)
        pipeline.execute(run, tasks, splits)
        return {task.name: task for task in tasks}

    def copy(self, name: str, *, without: str = "student") -> "Line":
        """Another work directory with the same artifacts, but for those of one stage."""
        workdir = self.workdir.parent / f"{self.workdir.name}_{name}"
        left_out = shutil.ignore_patterns(f"{without}-seed*")
        shutil.copytree(self.workdir / "stages", workdir / "stages", ignore=left_out)
        return Line(workdir)


@pytest.fixture(scope="session")
def line(tmp_path_factory) -> Line:
    return Line(epath.Path(tmp_path_factory.mktemp("line")))
